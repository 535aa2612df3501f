"""A network's graph computes what the network does, for other images too, and its regions are ones."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from hwnas.errors import InputError
from hwnas.networks.graph.composition import alone
from hwnas.networks.graph.regions import Flow
from hwnas.networks.graph.tracing import trace

CHANNELS = 4


class Written(nn.Module):
    """A network whose forward() is a function of its two layers and the image."""

    scale: Tensor

    def __init__(self, function: Callable[[Written, nn.Conv2d, Tensor], object]) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(3, CHANNELS, 3, padding=1) for _ in range(2))
        self.register_buffer("scale", torch.linspace(0.5, 2, CHANNELS).view(-1, 1, 1))
        self.weight = nn.Parameter(torch.full((CHANNELS, 1, 1), 0.3))
        self.function = function

    def forward(self, x: Tensor) -> object:
        return self.function(self, self.second, x)


def in_place(net: Written, _: nn.Conv2d, x: Tensor) -> Tensor:
    y: Tensor = net.first(x)
    F.relu(y, inplace=True)
    y += 1
    y.mul_(2).clamp_(max=3)
    return y


def written_through_a_view(net: Written, _: nn.Conv2d, x: Tensor) -> Tensor:
    y = net.first(x)
    half = y[:, :2]
    kept = y * 1
    half.add_(10)
    y[:, 3] = half[:, 0] * 2
    return torch.cat([y, half, kept], 1)


def resized(net: Written, second: nn.Conv2d, x: Tensor) -> Tensor:
    small = F.max_pool2d(net.first(x), 2)
    other: Tensor = second(x)
    return F.interpolate(small, size=other.shape[-2:]) + other


def counted(net: Written, _: nn.Conv2d, x: Tensor) -> Tensor:
    images, channels, height, width = x.shape
    y: Tensor = net.first(x).reshape(images, -1, height * width)
    grid = torch.arange(height * width).view(1, 1, height * width) / math.ceil(width / 2)
    return (y * grid).view(images, channels + 1, height, width).flatten(1).view(x.size(0), -1, 2)


def lists_and_dictionaries(net: Written, second: nn.Conv2d, x: Tensor) -> dict[str, object]:
    maps = [net.first(x)]
    maps.append(second(x) if isinstance(x, Tensor) else x)
    a, b = torch.cat(maps, dim=1).chunk(2, 1)
    return {"both": (a, [b]), "sum": sum(maps)}


def decided_by_sizes(net: Written, second: nn.Conv2d, x: Tensor) -> Tensor:
    y: Tensor = net.first(x) if x.shape[1] == 3 else second(x)
    for _ in range(x.ndim - 2):
        y = torch.tanh(y)
    return y if y.numel() > 1 and len(y) else -y


def by_weights(net: Written, _: nn.Conv2d, x: Tensor) -> Tensor:
    gate = net.weight.exp() * net.scale
    y: Tensor = net.first(x)
    return y.mul(gate) + gate.sum() * torch.ones_like(x[:, :1]).T.T


def called_twice(net: Written, _: nn.Conv2d, x: Tensor) -> Tensor:
    y: Tensor = net.first(torch.sin(net.first(x)[:, :3]))
    return y


WAYS = (
    in_place,
    written_through_a_view,
    resized,
    counted,
    lists_and_dictionaries,
    decided_by_sizes,
    by_weights,
    called_twice,
)


def images(count: int, height: int = 8, width: int = 8) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.filterwarnings("ignore:The use of `x.T`")
def test_the_graph_computes_what_the_network_does(way: Callable[..., object]) -> None:
    torch.manual_seed(3)
    model = Written(way).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = trace(model, images(3))
    assert model.state_dict().keys() == before.keys()
    graph = fx.GraphModule(found.module, found.graph)
    for x in (images(3), images(5), images(2, 12, 10)):
        given = x.clone()
        torch.testing.assert_close(graph(given), model(x.clone()), rtol=0, atol=0)
        assert torch.equal(given, x)


def test_a_graph_trains_as_its_network_does() -> None:
    model = Written(by_weights).train()
    found = trace(model.eval(), images(3))
    graph = fx.GraphModule(found.module, found.graph).train()
    model.train()
    for module in (model, graph):
        module(images(4)).square().sum().backward()
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            assert torch.equal(graph.get_parameter(name).grad, weight.grad), name  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "how", [lambda y: y.sum().item(), lambda y: float(y.mean()), lambda y: y[0].tolist()]
)
def test_values_that_leave_torch_are_refused(how: Callable[[Tensor], object]) -> None:
    def way(net: Written, _: nn.Conv2d, x: Tensor) -> Tensor:
        y: Tensor = net.first(x)
        how(y)
        return y

    with pytest.raises(InputError, match=r"takes values out of torch"):
        trace(Written(way).eval(), images(3))


class Tangle(nn.Module):
    """Layers that read what random ones before them give; the last one or two are what is returned."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        chance = random.Random(seed)
        self.reads = [
            sorted(chance.sample(range(n + 1), min(n + 1, chance.choice([1, 1, 1, 2])))) for n in range(12)
        ]
        self.layers = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in self.reads)
        self.answers = chance.choice([1, 2])
        self.sized = {n for n in range(12) if chance.random() < 0.1}

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        values = [x]
        for n, (reads, layer) in enumerate(zip(self.reads, self.layers, strict=True)):
            y = layer(sum(values[k] for k in reads))
            values.append(y * (values[n // 2].shape[2] / 8) if n in self.sized else torch.tanh(y))
        return tuple(values[-self.answers :])


def reaches(flow: Flow, without: fx.Node, target: fx.Node) -> bool:
    """Whether a way leads from the image to a value that leaves another one out."""
    seen, stack = set(), [target]
    while stack:
        node = stack.pop()
        if node is not without and node not in seen:
            seen.add(node)
            stack.extend(flow.sources(node))
    return flow.values[0] in seen


@pytest.mark.parametrize("seed", range(12))
def test_regions_of_random_networks(seed: int) -> None:
    torch.manual_seed(seed)
    found = trace(Tangle(seed).eval(), images(3))
    flow = Flow(found)
    for node in flow.values[1:]:
        above = [each for each in flow.values if each is not node and not reaches(flow, each, node)]
        assert flow.dominators[node] is max(above, key=flow.values.index)
    seen: dict[fx.Node, Tensor] = {}

    class Watching(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            seen[n] = super().run_node(n)
            return seen[n]

    Watching(fx.GraphModule(found.module, found.graph)).run(images(4))
    assert flow.links
    for exit, region in flow.links.items():
        with torch.no_grad():
            assert torch.equal(alone(flow, region)(seen[region.entry]), seen[exit])
        outside = [node for node in flow.values if node not in region.inside]
        used = {source for node in (*outside, flow.output) for source in node.all_input_nodes}
        assert used & region.inside <= {exit}

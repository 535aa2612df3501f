"""A network that is no chain, taken apart: its parts compute and learn what the whole does."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn
from workplace import further_networks, graph_networks, real_networks
from workplace.graph_networks import SHAPE, Pyramid, UNet, seeded
from workplace.whole_networks import Edsr, NafNet, Yolop

from hwnas.devices.simulator.device import SimulatorDevice
from hwnas.errors import InputError
from hwnas.network import Network
from hwnas.networks.blocks.places import InPlaces
from hwnas.networks.build import assemble
from hwnas.networks.chosen_blocks import Blocks
from hwnas.networks.count import count, count_parts
from hwnas.networks.exported import own_network
from hwnas.networks.partition import Partition, partition
from hwnas.networks.tensors import main_output, tensors_of
from hwnas.profiles.catalogue import load_profile

NETWORKS = graph_networks.NETWORKS | {"Edsr": Edsr, "NafNet": NafNet, "Yolop": Yolop}
SHARE = {
    "UNet": 0.9,
    "Pyramid": 0.8,
    "Several": 0.85,
    "Late": 0.7,
    "Segmenter": 0.7,
    "Edsr": 0.5,
    "NafNet": 0.7,
    "Yolop": 0.7,
}
"""Of the MACs that are in blocks, at least."""


def outputs(net: nn.Module, x: Tensor) -> list[Tensor]:
    return tensors_of(main_output(net(x)))


def share(parts: Partition) -> float:
    """Of the MACs, those in blocks."""
    counts = count_parts(parts)
    whole = sum(macs for macs, _ in (*counts.parts, counts.joints))
    return sum(macs for macs, _ in counts.parts[1:-1]) / whole


def check_composition(
    net: nn.Module, shape: tuple[int, int, int], size: tuple[int, int] | None = None
) -> Partition:
    """The same outputs for another batch and another size, the same gradients and statistics in training."""
    parts = partition(net, shape)
    composed = assemble(parts, copy.deepcopy(parts.modules), copy.deepcopy(parts.joints))
    channels, rows, columns = shape
    for height, width in ((rows, columns), size or (rows, columns)):
        x = torch.randn(5, channels, height, width, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            assert all(map(torch.equal, outputs(net, x), outputs(composed, x)))
    gradients = []
    for module in (copy.deepcopy(net), composed):
        module.train()
        torch.manual_seed(2)
        sum(y.square().mean() for y in outputs(module, torch.randn(4, *shape)) if y.requires_grad).backward()  # type: ignore[union-attr]
        squares = [weight.grad.square().sum() for weight in module.parameters() if weight.grad is not None]
        gradients.append(float(torch.stack(squares).sum()))
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-4)
    return parts


@pytest.mark.parametrize("name", NETWORKS)
def test_parts_are_the_whole(name: str) -> None:
    net = seeded(NETWORKS[name])
    parts = check_composition(net, SHAPE, (48, 40))
    assert parts.max_abs_difference == 0
    assert share(parts) >= SHARE[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_joined_graph_is_the_whole(name: str) -> None:
    net = seeded(NETWORKS[name])
    network = own_network(partition(net, SHAPE), name)
    session = ort.InferenceSession(network.onnx(), providers=["CPUExecutionProvider"])
    x = torch.randn(1, *SHAPE)
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        expected = outputs(net, x)
    assert [value.name for value in session.get_outputs()] == list(network.wiring.outputs)
    for one, other in zip(found, expected, strict=True):
        assert np.allclose(one, other.numpy(), atol=1e-4)
    assert network.hash != Network(name, network.parts).hash or network.wiring.is_chain


@pytest.mark.parametrize("name", NETWORKS)
def test_the_simulator_takes_parts_as_it_takes_the_whole(name: str) -> None:
    net = seeded(NETWORKS[name])
    joined = own_network(partition(net, SHAPE), name)
    with SimulatorDevice(load_profile("sim-npu")) as device:
        of_parts = device.prepare(joined)
        of_whole = device.prepare(Network.from_onnx(_written(joined, name)))
    if name == "NafNet":  # a part ends in a pixel shuffle: the next one takes its map as it lies then
        assert of_parts.state == pytest.approx(of_whole.state, rel=0.1)
        return
    assert of_parts.metrics == of_whole.metrics
    assert of_parts.state == of_whole.state


def _written(network: Network, name: str) -> Path:
    import tempfile

    path = Path(tempfile.mkdtemp()) / f"{name}.onnx"
    path.write_bytes(network.onnx())
    return path


def test_a_tower_over_two_levels_is_one_block_in_two_places() -> None:
    net = seeded(Pyramid)
    parts = partition(net, SHAPE)
    (tower,) = (n for n, places in enumerate(parts.regions, 1) if len(places) == 2)
    reads = parts.reads(f"block{tower}")
    assert [parts.shapes[value] for value in reads] == [(16, 16, 16), (16, 8, 8)]
    # Each convolution counts once among the parameters, each normalisation of both levels.
    assert count_parts(parts).parts[tower][1] == 2 * 16 * 16 * 9 + 4 * 2 * 16
    again = partition(net, SHAPE, Blocks(regions=("tower.0:tower.1",)))
    assert len(again.regions) == 1
    assert len(again.regions[0]) == 2


def test_a_module_in_places_shares_all_but_normalisation() -> None:
    inner = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    module = InPlaces(inner, 3).train()
    module(*(torch.randn(2, 4, size, size) * size for size in (8, 4, 2)))
    first, second, third = (module.get_parameter(f"places.{n}.0.weight") for n in range(3))
    assert first is second is third
    means = [module.get_buffer(f"places.{n}.1.running_mean") for n in range(3)]
    assert not torch.equal(means[0], means[1])
    assert not torch.equal(means[1], means[2])
    kept = copy.deepcopy(module)
    assert kept.get_parameter("places.0.0.weight") is kept.get_parameter("places.2.0.weight")
    assert count(module, (4, 8, 8), (4, 4, 4), (4, 2, 2))[1] == 4 * 4 * 9 + 4 + 3 * 8


@pytest.mark.parametrize(
    ("blocks", "cause"),
    [
        (Blocks(regions=("down1:down2",)), "the size of the output of down1 is also read"),
        (Blocks(regions=("up1:down1",)), "is not computed of"),
        (Blocks(regions=("enter:up2",)), "holds the first layer"),
        (Blocks(regions=("classify",)), "holds the layer that answers"),
        (Blocks(regions=("up1:classify",)), "holds the layer that answers"),
        (Blocks(regions=("nothing",)), "the model has no module 'nothing'"),
        (Blocks(only="nothing"), "the model has no module 'nothing'"),
        (Blocks(only="classify"), "nothing of classify can be replaced"),
        (Blocks(cuts=("down1", "down2"), only="up1"), "each say which blocks"),
    ],
)
def test_what_is_no_region_is_refused_by_the_value_in_the_way(blocks: Blocks, cause: str) -> None:
    with pytest.raises(InputError, match=cause) as caught:
        partition(seeded(UNet), SHAPE, blocks)
    assert caught.value.fix


def test_blocks_of_one_module_alone() -> None:
    parts = partition(seeded(UNet), SHAPE, Blocks(only="down1"))
    assert parts.ends == ("/max_pool2d", "down1")


def test_regions_are_found_again_by_their_names() -> None:
    for make in NETWORKS.values():
        net = seeded(make)
        parts = partition(net, SHAPE)
        again = partition(net, SHAPE, parts.regions)
        assert again.regions == parts.regions
        assert again.wiring == parts.wiring


REAL = {
    "lraspp": (0.92, 7, 7),
    "deeplabv3": (0.99, 8, 8),
    "fcn_resnet50": (0.99, 4, 4),
    "ssdlite320": (0.91, 7, 7),
    "retinanet": (0.96, 9, 17),
    "features_only": (0.85, 5, 5),
    "smp_unet": (0.96, 9, 9),
    "smp_fpn": (0.95, 11, 11),
    "smp_deeplabv3plus": (0.96, 5, 5),
    "efficientdet_d0": (0.8, 7, 15),
    "efficientdet_lite0": (0.8, 7, 15),
}
"""Share of the MACs in blocks at least, blocks, and their places."""


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_networks_are_taken_apart(name: str) -> None:
    least, blocks, places = REAL[name]
    net = getattr(real_networks, name)()
    _, rows, columns = net.input_shape
    is_of_one_size = name.startswith("efficientdet")
    parts = check_composition(net, net.input_shape, None if is_of_one_size else (rows + 64, columns))
    assert (parts.block_count, sum(map(len, parts.regions))) == (blocks, places)
    assert share(parts) >= least
    assert partition(net, net.input_shape, parts.regions).regions == parts.regions


class OneLarge(nn.Module):
    """A convolution in the middle that has most of the MACs."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.large = nn.Conv2d(16, 32, 5, padding=2)
        self.last = nn.Conv2d(32, 2, 3, padding=1)
        self.beside = nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.large(self.first(x))) + self.beside(x)
        return y


def test_a_single_layer_of_most_macs_is_a_block() -> None:
    parts = partition(OneLarge().eval(), SHAPE)
    assert parts.ends == ("first", "large")
    assert share(parts) > 0.8


FURTHER = {
    "text_detector": (0.95, 10, 10),
    "output_net": (0.83, 3, 3),
    "demosaicnet": (0.99, 4, 4),
    "yolov8n": (0.98, 16, 16),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FURTHER)
def test_networks_that_are_here_where_their_packages_or_files_are(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "shared" / "data"))
    least, blocks, places = FURTHER[name]
    try:
        net = getattr(further_networks, name)()
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    rows, columns = net.input_shape[1:]
    if name == "yolov8n":  # its head gives something else in training, and keeps the size of the image
        parts = partition(net, net.input_shape)
        assert parts.max_abs_difference == 0
    else:
        parts = check_composition(
            net, net.input_shape, None if name == "output_net" else (rows + 32, columns)
        )
    assert (parts.block_count, sum(map(len, parts.regions))) == (blocks, places)
    assert share(parts) >= least

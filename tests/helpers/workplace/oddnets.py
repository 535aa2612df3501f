"""Networks that compute something else than it looks, one function each; small enough for a second."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


def convolution(c_in: int, c_out: int, stride: int = 2) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()
    )


class Chain(nn.Module):
    """A stem, three stages and a classifier.

    Args:
        between: what forward() itself does behind the stem.
        stages: instead of plain ones, by number.
    """

    input_shape = (3, 32, 32)

    def __init__(self, between: Callable[[Tensor], Tensor] | None = None, **stages: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, padding=1)
        self.layer1 = stages.get("layer1", nn.Sequential(convolution(16, 16, 1), convolution(16, 16)))
        self.layer2 = stages.get("layer2", nn.Sequential(convolution(16, 24, 1), convolution(24, 24)))
        self.layer3 = stages.get("layer3", nn.Sequential(convolution(24, 32, 1), convolution(32, 32)))
        self.fc: nn.Module = nn.Linear(32, 10)
        self.between = between or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.between(self.stem(x)))))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class Lambda(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """Weights that are the same each time, and statistics of normalisation that are not the trivial ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
        model.train()
        with torch.no_grad():
            for _ in range(10):
                model(torch.randn(16, 3, 32, 32))
    model.eval()
    return model


def plain() -> nn.Module:
    return seeded(Chain)


def inplace_function() -> nn.Module:
    """As `plain` with a ReLU behind the stem, which forward() applies in place to what the stem gave."""
    return seeded(lambda: Chain(between=lambda x: functional.relu(x, inplace=True)))


def inplace_module() -> nn.Module:
    def first() -> nn.Module:
        return nn.Sequential(nn.ReLU(inplace=True), convolution(16, 16, 1), convolution(16, 16))

    return seeded(lambda: Chain(layer1=first()))


class Scaled(nn.Module):
    """Multiplies its own input, as squeeze-and-excitation is often written."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1, 16, 1, 1), 0.5))
        self.body = nn.Sequential(convolution(16, 16, 1), convolution(16, 16))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x.mul_(self.scale.detach()))
        return y


def inplace_multiplication() -> nn.Module:
    return seeded(lambda: Chain(layer1=Scaled()))


def inplace_data() -> nn.Module:
    """A change that torch does not count, since it goes by `.data`."""
    return seeded(lambda: Chain(between=Lambda(lambda x: x.data.clamp_(min=0.0))))


def shared() -> nn.Module:
    """One convolution that stands in all three stages."""

    def make() -> nn.Module:
        mix = convolution(16, 16, 1)
        return Chain(
            layer1=nn.Sequential(convolution(16, 16), mix),
            layer2=nn.Sequential(convolution(16, 16), mix),
            layer3=nn.Sequential(convolution(16, 16), mix, convolution(16, 32, 1)),
        )

    return seeded(make)


def shared_parameter() -> nn.Module:
    """Two convolutions of two stages that have one weight."""

    def make() -> nn.Module:
        first, last = convolution(16, 16, 1), convolution(16, 16, 1)
        last.get_submodule("0").weight = first.get_submodule("0").weight
        return Chain(
            layer1=nn.Sequential(first, convolution(16, 16)),
            layer2=nn.Sequential(last, convolution(16, 24)),
        )

    return seeded(make)


def shared_memory() -> nn.Module:
    """Two weights that are not one, and have one memory."""
    model = plain()
    first, last = model.get_submodule("layer1.0.0"), model.get_submodule("layer1.1.0")
    last.get_parameter("weight").data = first.get_parameter("weight").data
    return model


def overlapping_memory() -> nn.Module:
    model = plain()
    first, last = model.get_submodule("layer1.0.0"), model.get_submodule("stem")
    last.bias = nn.Parameter(first.get_parameter("weight").data.flatten()[:16])
    return model


class Random(nn.Module):
    """Filters that are drawn when it is built, and stand in a buffer that is not stored, or in none."""

    def __init__(self, kept: str, seed: int | None = None) -> None:
        super().__init__()
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        filters = torch.randn(16, 16, 3, 3, generator=generator) * 0.1
        if kept == "attribute":
            self.filters = filters
        else:
            self.register_buffer("filters", filters, persistent=kept == "stored")

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.filters, padding=1)


def random_buffer() -> nn.Module:
    return Chain(between=Random("buffer"))


def random_attribute() -> nn.Module:
    return Chain(between=Random("attribute"))


def random_stored() -> nn.Module:
    return Chain(between=Random("stored"))


def random_seeded() -> nn.Module:
    return Chain(between=Random("buffer", seed=3))


def numpy_noise() -> nn.Module:
    noise = torch.from_numpy(np.random.default_rng().standard_normal((1, 16, 1, 1)).astype(np.float32))
    return Chain(between=Lambda(lambda x: x + noise))


def batch_statistics() -> nn.Module:
    return Chain(layer2=nn.Sequential(nn.Conv2d(16, 24, 3, 2), nn.BatchNorm2d(24, track_running_stats=False)))


def centred() -> nn.Module:
    return Chain(between=Lambda(lambda x: x - x.mean(0, keepdim=True)))


def always_dropping() -> nn.Module:
    return Chain(between=lambda x: functional.dropout(x, 0.3))


class Counting(nn.Module):
    """Answers otherwise each time it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


def counting() -> nn.Module:
    return Chain(between=Counting())


class Edge(nn.Module):
    """A constant that a file beside the code decides: what code that is changed later amounts to."""

    def forward(self, x: Tensor) -> Tensor:
        return x * float(os.environ.get("ODDNETS_SCALE", "1"))


def changed_later() -> nn.Module:
    def make() -> nn.Module:
        model = Chain()
        model.fc = nn.Sequential(nn.Linear(32, 10), Edge())
        return model

    return seeded(make)


class EarlyExit(nn.Module):
    input_shape = (3, 32, 32)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.last = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, 10), nn.Linear(8, 10)
        self.body = nn.Sequential(*(nn.Conv2d(8, 8, 3, 1, 1) for _ in range(4)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        early: Tensor = self.first(x.mean((2, 3)))
        if early.abs().max() < 0.25:
            return early
        late: Tensor = self.last(self.body(x).mean((2, 3)))
        return late


def early_exit() -> nn.Module:
    return EarlyExit()


def by_numpy() -> nn.Module:
    return Chain(between=Lambda(lambda x: x * float(np.asarray(x.detach()).mean())))


def by_list() -> nn.Module:
    return Chain(between=Lambda(lambda x: x * max(x.flatten().tolist())))


def gathered(x: Tensor) -> Tensor:
    """Decides by what was written, slice by slice, into a tensor that does not depend on the image."""
    seen = torch.zeros(2)
    seen[0] = x.mean()
    seen.view(1, 2)[:, 1] = x.abs().max()
    return x if seen.sum() < 50 else -x


def by_memory() -> nn.Module:
    return Chain(between=Lambda(gathered))


class Holder:
    """Has a module where torch does not look."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module


def held_by_an_object() -> nn.Module:
    held = Holder(nn.Conv2d(16, 16, 3, 1, 1))
    return Chain(between=Lambda(lambda x: x + held.module(x)))


def held_by_a_closure() -> nn.Module:
    weight = nn.Parameter(torch.ones(16, 1, 1), requires_grad=False)
    return Chain(between=Lambda(lambda x: x * weight))


class View(nn.Module):
    """Reads a view after what it is a view of was changed in place, which the exporter does not see."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        half = y[:, : y.shape[1] // 2]
        y.mul_(3.0)
        return torch.relu(y + torch.cat([half, half], 1))


def view_changed() -> nn.Module:
    return Chain(between=View(16))


class Small(nn.Module):
    """The same with outputs of about 1e-4."""

    input_shape = (3, 32, 32)

    def __init__(self) -> None:
        super().__init__()
        self.body = Chain(between=View(16))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x) * 1e-4
        return y


def view_changed_small() -> nn.Module:
    return Small()


class Overwriting(nn.Module):
    """Changes in place what its own gradient needs: it runs, and cannot be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.sigmoid(self.conv(x))
        z = y * y
        y.add_(1.0)
        return z + y


def untrainable() -> nn.Module:
    return Chain(layer2=nn.Sequential(Overwriting(), nn.Conv2d(16, 24, 1)))


def spectral() -> nn.Module:
    conv = nn.utils.parametrizations.spectral_norm(nn.Conv2d(16, 24, 3, 2, 1))
    return Chain(layer2=nn.Sequential(conv, nn.ReLU()))


class Listed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = [nn.Conv2d(16, 24, 3, 2, 1), nn.ReLU()]

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(x)
        return x


def python_list() -> nn.Module:
    return Chain(layer2=Listed())


class Frozen(Chain):
    """Its train() returns nothing, as in many backbones that freeze their normalisation."""

    def train(self, mode: bool = True) -> None:  # type: ignore[override]
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


def train_returns_nothing() -> nn.Module:
    return seeded(Frozen)


def half() -> nn.Module:
    return plain().half()


def double() -> nn.Module:
    return plain().double()


def compiled() -> nn.Module:
    return torch.compile(plain())  # type: ignore[return-value]  # it is a module around the module


def compiled_inside() -> nn.Module:
    model = plain()
    model.set_submodule("layer2", torch.compile(model.get_submodule("layer2")))  # type: ignore[arg-type]
    model.get_submodule("layer3").compile()
    return model


def data_parallel() -> nn.Module:
    return nn.DataParallel(plain())


def weight_norm_of_old() -> nn.Module:
    """Its weights are computed by a hook before each pass, and are no leaves until then."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return Chain(layer2=nn.Sequential(nn.utils.weight_norm(nn.Conv2d(16, 24, 3, 2, 1)), nn.ReLU()))


def frozen_weights() -> nn.Module:
    return plain().requires_grad_(False)


def lazy() -> nn.Module:
    return Chain(layer1=nn.Sequential(nn.LazyConv2d(16, 3, 2), nn.ReLU()))


def meta() -> nn.Module:
    return Chain().to("meta")


class Attention(nn.Module):
    """A transformer of torch's own layers."""

    input_shape = (3, 32, 32)

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 32, 8, 8)
        self.blocks = nn.Sequential(
            *(nn.TransformerEncoderLayer(32, 2, 64, 0.0, "gelu", batch_first=True) for _ in range(3))
        )
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        logits: Tensor = self.fc(self.blocks(x).mean(1))
        return logits


def attention() -> nn.Module:
    return seeded(Attention)


class Normalised(Chain):
    """Normalises the image in place."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.sub_(0.5).div_(0.25))


def normalised_in_place() -> nn.Module:
    return seeded(Normalised)


class ListedApart(Listed):
    def __init__(self) -> None:
        nn.Module.__init__(self)
        self._convs = [nn.Conv2d(16, 24, 3, 2, 1), nn.ReLU()]
        self.convs = self._convs


def python_list_hidden() -> nn.Module:
    module = ListedApart()
    del module.convs
    return Chain(layer2=module)


DRAWN = float(any("hwnas.compress.reference.reloaded" in each for each in sys.orig_argv))
"""As if drawn by chance: another number in the process that loads what was stored, and always another one."""


def random_when_imported() -> nn.Module:
    return Chain(between=Lambda(lambda x: x * (1 + DRAWN)))


class Following(nn.Module):
    """Follows the size of its input in train mode, in an attribute that is not stored."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 1.0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.size = 0.5 * self.size + 0.5 * float(x.detach().abs().mean())
        return x / self.size


def trained_attribute() -> nn.Module:
    return Chain(between=Following())


def clamped_data() -> nn.Module:
    """A change by `.data` that does nothing to small values."""
    return seeded(lambda: Chain(between=Lambda(lambda x: x + (x.clamp(max=6.0) - x).data)))


class RootView(nn.Module):
    """Gives NaN for negative values; a view that is read after a change in place is seen on others alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv((x + 1e-6).sqrt())
        half = y[:, :8]
        y.mul_(3.0)
        return torch.relu(y + torch.cat([half, half], 1))


def root_of_negative() -> nn.Module:
    """Nothing negative reaches the root in the network."""

    def make() -> nn.Module:
        root = nn.Sequential(nn.ReLU(), convolution(16, 16, 1), RootView(), convolution(16, 16))
        return Chain(layer1=root)

    return seeded(make)


class TokensFirst(Attention):
    """The same with the tokens first, which is what torch's layers take by default."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(nn.TransformerEncoderLayer(32, 2, 64, 0.0, "gelu") for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).permute(2, 0, 1)
        logits: Tensor = self.fc(self.blocks(x).mean(0))
        return logits


def tokens_first() -> nn.Module:
    return TokensFirst()


def by_size() -> nn.Module:
    """Asks for the size of what is left of a map."""
    return Chain(between=Lambda(lambda x: x * 2 if len(x[x > 0.5]) else x))


def by_count() -> nn.Module:
    return Chain(between=Lambda(lambda x: x * torch.nonzero(x > 0.5).shape[0]))


class Recurrent(nn.Module):
    """Reads the rows of an image; and takes constants of its own for numbers."""

    input_shape = (3, 32, 32)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.lstm = nn.LSTM(8, 16, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if torch.ones_like(x[:, :1]).all():
            x = x * 1.0
        logits: Tensor = self.fc(self.lstm(x.flatten(2).transpose(1, 2))[0].mean(1))
        return logits


def recurrent() -> nn.Module:
    return Recurrent()


class Masked(Attention):
    """Leaves out the last tokens by a constant mask; as nested tensors, torch gives zeros in their places."""

    def __init__(self, nested: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 2, 64, 0.0, "gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        mask = torch.zeros(x.shape[0], x.shape[1], dtype=torch.bool)
        mask[:, -3:] = True
        logits: Tensor = self.fc(self.encoder(x, src_key_padding_mask=mask).mean(1))
        return logits


def masked() -> nn.Module:
    return Masked(nested=True)


def masked_plainly() -> nn.Module:
    return Masked(nested=False)

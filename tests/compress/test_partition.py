from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn
from workplace.tinynet import Tiny

from hwnas.errors import InputError
from hwnas.networks.build import assemble
from hwnas.networks.chosen_blocks import Blocks
from hwnas.networks.control_flow import require_no_decisions
from hwnas.networks.cut_points import named_stages
from hwnas.networks.partition import Partition, partition

FAMILIES = {
    "efficientnet_b0": 5,
    "resnet18": 4,
    "mobilenetv3_large_100": 5,
    "convnext_atto": 4,
    "regnety_004": 4,
    "mnasnet_100": 5,
    "tf_efficientnet_lite0": 5,
    "repvgg_a0": 4,
    "ghostnet_100": 4,
}


def agree(parts: Partition, model: nn.Module, size: int) -> float:
    """Largest difference of the composed parts from the whole, on images that partition() never saw."""
    x = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(99))
    with torch.no_grad():
        return float((nn.Sequential(*parts.modules)(x) - model(x)).abs().max())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "blocks"), FAMILIES.items())
def test_families_are_cut_by_their_stages(name: str, blocks: int) -> None:
    model = timm.create_model(name, num_classes=7).eval()
    parts = partition(model, (3, 64, 64))
    assert parts.block_count == blocks
    assert parts.names == ["stem", *(f"block{n}" for n in range(1, blocks + 1)), "head"]
    assert agree(parts, model, 64) <= 1e-5
    assert parts.max_abs_difference <= 1e-5
    assert parts.shapes[0] == (3, 64, 64)
    assert parts.shapes[-1] == (7,)
    assert sum(p.numel() for part in parts.modules for p in part.parameters()) == sum(
        p.numel() for p in model.parameters()
    )


@pytest.mark.parametrize(("size", "maps"), [(224, (112, 56, 28, 14, 14, 7)), (32, (16, 8, 4, 2, 2, 1))])
def test_efficientnet_b0_is_cut_as_the_method_says(size: int, maps: tuple[int, ...]) -> None:
    parts = partition(timm.create_model("efficientnet_b0").eval(), (3, size, size))
    assert parts.ends == ("blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4", "blocks.6")
    channels = (16, 24, 40, 80, 112, 320)
    assert parts.shapes[1:-1] == tuple((c, m, m) for c, m in zip(channels, maps, strict=True))
    assert parts.shapes[-1] == (1000,)
    assert parts.part_shapes(5) == (parts.shapes[5], parts.shapes[6])


def test_cuts_by_hand(model: nn.Module) -> None:
    parts = partition(model, (3, 32, 32), Blocks(cuts=("stem.0", "stages.0.0", "stages.1.0")))
    assert parts.ends == ("stem.0", "stages.0.0", "stages.1.0")
    assert parts.shapes == ((3, 32, 32), (3, 16, 16), (16, 4, 4), (16, 4, 4), (10,))
    assert agree(parts, model, 32) == 0


def test_a_sequence_is_cut_behind_its_children() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten()).eval()
    assert named_stages(model, (3, 2, 2)) == ("0", "1")
    assert partition(model, (3, 2, 2)).block_count == 1


def test_the_model_is_not_changed(model: nn.Module) -> None:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    parts = partition(model, (3, 32, 32))
    with torch.no_grad():
        for part in parts.modules:
            for parameter in part.parameters():
                parameter.zero_()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_parts_train_like_the_whole(model: nn.Module) -> None:
    parts = partition(model, (3, 32, 32))
    x = torch.randn(8, 3, 32, 32)
    for module in (model, *parts.modules):
        module.train()
    expected = model(x)
    expected.sum().backward()
    composed = nn.Sequential(*parts.modules)(x)
    composed.sum().backward()
    assert torch.equal(composed, expected)
    whole = model.state_dict()
    moved = 0
    for part in parts.modules:
        for key, value in part.state_dict().items():
            assert torch.equal(value, whole[key]), key
            moved += key.endswith("num_batches_tracked") and int(value) == 31
        for name, parameter in part.named_parameters():
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad, model.get_parameter(name).grad)
    assert moved == 5  # thirty batches when the network was made, one here, in each of five normalisations


def refusal(model: nn.Module, *cuts: str, size: int = 32) -> InputError:
    with pytest.raises(InputError) as caught:
        partition(model, (3, size, size), Blocks(cuts=cuts))
    assert caught.value.fix
    return caught.value


def test_an_unknown_name_is_told_with_near_ones(model: nn.Module) -> None:
    error = refusal(model, "stem", "stages.7")
    assert "'stages.7'" in error.cause
    assert "stages.1" in error.fix
    assert "stem" in refusal(model, "", "stem").fix


@pytest.mark.parametrize("cut", ["stages.0.1.body", "stages.1.0.body.0"])
def test_a_cut_inside_of_a_skip_is_refused(model: nn.Module, cut: str) -> None:
    error = refusal(model, "stem", cut)
    assert f"what lies between the output of stem and the output of {cut} " in error.cause
    assert "gives more than that" in error.cause or "also takes" in error.cause
    assert "where the two join" in error.fix


def test_the_image_may_go_around_all_cuts() -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(3, 3, 1) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.c(self.b(self.a(x))).add(x).mean((2, 3))
            return y

    model = Around().eval()
    parts = partition(model, (3, 32, 32), Blocks(cuts=("a", "b", "c")))
    assert parts.wiring.reads == ((0,), (1,), (2,), (0, 3))
    x = torch.randn(5, 3, 32, 32)
    assert torch.equal(assemble(parts, parts.modules)(x), model(x))


@pytest.mark.parametrize("cuts", [("stages.0", "stem"), ("stem", "stem"), ("stages.0", "stages.0.0")])
def test_cuts_out_of_order_are_refused(model: nn.Module, cuts: tuple[str, ...]) -> None:
    error = refusal(model, *cuts)
    assert f"behind {cuts[1]!r} does not come after the one behind {cuts[0]!r}" in error.cause
    assert "order" in error.fix


def test_one_cut_is_too_few(model: nn.Module) -> None:
    assert "at least two" in refusal(model, "stem").cause


def test_a_model_without_stages_is_told() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            y: Tensor = (self.second(x) + x).mean((2, 3))
            return y

    error = refusal(Flat())
    assert "nothing of Flat can be replaced" in error.cause
    assert "hwnas partition" in error.fix
    dense = nn.Sequential(nn.Flatten(), *(nn.Linear(n, n - 1) for n in range(12, 4, -1)))

    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = dense

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.body(x)
            return y

    assert "nothing of Dense can be replaced" in refusal(Dense(), size=2).cause
    names = ("body.0", "body.1")
    assert partition(Dense().eval(), (3, 2, 2), Blocks(cuts=names)).ends == names


def test_a_model_without_modules_is_told() -> None:
    class Bare(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    assert "nothing of Bare can be replaced" in refusal(Bare()).cause
    assert "it has none" in refusal(Bare(), "a", "b").fix


@pytest.mark.parametrize("cuts", [(), ("stem", "stages.0")])
def test_compiled_modules_are_refused(cuts: tuple[str, ...]) -> None:
    whole = torch.jit.script(Tiny().head.eval())
    error = refusal(whole, *cuts)
    assert "the network is a ScriptModule" in error.cause
    assert "nn.Module itself" in error.fix
    partly = Tiny().eval()
    partly.head.append(whole)
    assert "its module 'head.3' is a ScriptModule" in refusal(partly, *cuts).cause


@pytest.mark.parametrize(
    ("asks", "line"),
    [
        (lambda x: x.sum() > 0, "if asks(x)"),
        (lambda x: float(x.mean()) > 0.1, "float(x.mean())"),
        (lambda x: x.abs().sum().item() > 0, ".item() > 0"),
        (lambda x: torch.equal(x, x * 2), "torch.equal(x, x * 2)"),
    ],
)
def test_a_model_that_branches_on_values_is_told(asks: Callable[[Tensor], bool], line: str) -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if asks(x):
                return x * 2
            return x

    for place in ("stem", "stages", "head"):
        model = Tiny()
        getattr(model, place).append(Branching())
        error = refusal(model)
        assert "asks for a value that depends on the image (test_partition.py line" in error.cause
        assert line in error.cause
        assert "torch.where" in error.fix


def test_numbers_out_of_weights_and_shapes_are_taken() -> None:
    class Scaled(Tiny):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.tensor(2.0))

        def forward(self, x: Tensor) -> Tensor:
            y = self.stem(x) if self.factor > 1 else x
            if x.shape[2] > 8:
                y = y * self.factor.item() ** 2
            z: Tensor = self.head(self.stages(y * torch.where(y.mean() > 0, 1.0, 2.0)))
            return z

    model = Scaled().eval()
    require_no_decisions(model, torch.ones(2, 3, 32, 32))
    model.factor.requires_grad_(False)
    require_no_decisions(nn.Sequential(model, nn.Softmax(1)), torch.ones(2, 3, 32, 32))


def test_python_may_decide_by_sizes() -> None:
    class Nameless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Tiny()

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = x
            for _ in range(x.shape[-1] // 32):
                y = self.inner(x)
            return y

    model = Nameless().eval()
    assert agree(partition(model, (3, 32, 32), Blocks(cuts=("inner.stem", "inner.stages"))), model, 32) == 0


def test_a_module_that_takes_no_part_is_told() -> None:
    class Idle(Tiny):
        def __init__(self) -> None:
            super().__init__()
            self.idle = nn.Conv2d(3, 3, 1)

    assert "'idle' takes no part" in refusal(Idle(), "stem", "idle").cause


def test_outputs_come_back_in_their_tree() -> None:
    class Several(Tiny):
        def forward(self, x: Tensor) -> dict[str, object]:  # type: ignore[override]
            y = self.stages(self.stem(x))
            return {"logits": (self.head(y), [y.mean((2, 3))]), "image": x, "none": None, "three": 3}

    model = Several().eval()
    parts = partition(model, (3, 32, 32))
    assert parts.block_count == 4
    assert list(parts.wiring.outputs) == ["output.logits.0", "output.logits.1.0", "output.image"]
    x = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        found, expected = assemble(parts, parts.modules)(x), model(x)
    assert torch.equal(found["logits"][0], expected["logits"][0])
    assert torch.equal(found["logits"][1][0], expected["logits"][1][0])
    assert torch.equal(found["image"], x)
    assert (found["none"], found["three"]) == (None, 3)


def test_a_model_without_tensors_is_told() -> None:
    class Strange(Tiny):
        def forward(self, x: Tensor) -> object:  # type: ignore[override]
            return {"tensor": super().forward(x), "strange": object()}

    assert "Strange gives a object, no tensors" in refusal(Strange()).cause


def test_images_that_do_not_fit_are_told(model: nn.Module) -> None:
    error = refusal(model, size=1)
    assert "cannot take images of shape (3, 1, 1)" in error.cause
    assert "input size" in error.fix


@pytest.mark.parametrize(
    ("channels", "fix"), [(1, "x = x.mean(1, keepdim=True)"), (4, "3 channels instead of 4")]
)
def test_other_channels_are_told(channels: int, fix: str) -> None:
    network = nn.Sequential(nn.Conv2d(channels, 4, 1), nn.ReLU(), nn.ReLU())
    assert fix in refusal(network).fix


def test_optional_arguments_keep_their_defaults() -> None:
    class Masked(Tiny):
        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            if mask is not None:
                x = x * mask
            return super().forward(x)

    model = Masked().eval()
    assert agree(partition(model, (3, 32, 32)), model, 32) == 0

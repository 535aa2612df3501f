"""Where networks can be cut, why not elsewhere, and where they are cut by default."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from tiny import run_hwnas
from torch import Tensor, nn
from workplace.branches import Branches
from workplace.tinynet import Tiny

from hwnas.errors import InputError
from hwnas.networks.build import find_reference
from hwnas.networks.chosen_blocks import Blocks
from hwnas.networks.cut_points import cut_points, distinct, named_stages
from hwnas.networks.find import open_model
from hwnas.networks.partition import partition
from hwnas.networks.weights import load_weights


def names(model: nn.Module, size: int) -> list[str]:
    return [point.name for point in cut_points(model.eval(), (3, size, size))[0]]


@pytest.mark.parametrize(
    ("name", "size"), [("resnet10t", 64), ("mobilenetv2_035", 64), ("convnext_atto", 64), ("", 32)]
)
def test_every_place_that_is_named_can_be_cut(name: str, size: int) -> None:
    model = (timm.create_model(name, num_classes=5) if name else Branches()).eval()
    points, _ = cut_points(model, (3, size, size))
    shapes = {point.name: point.shape for point in points}
    chosen = [point.name for point in distinct(points, ())]
    parts = partition(model, (3, size, size), Blocks(cuts=tuple(chosen)))
    assert parts.max_abs_difference <= 1e-5
    assert list(parts.shapes[1:-1]) == [shapes[cut] for cut in parts.ends]


@pytest.mark.slow
def test_no_place_is_left_out() -> None:
    """Behind every other module the partition refuses to cut, or something goes around the cut."""
    model = Branches().eval()
    possible = set(names(model, 32))
    modules = [name for name, module in model.named_modules() if name and not isinstance(module, nn.Identity)]
    refused = 0
    for name in set(modules) - possible - {"classify"}:
        cuts = ("entry", name) if name.startswith("fork") else (name, "classify")
        try:
            assert not partition(model, (3, 32, 32), Blocks(cuts=cuts)).wiring.is_chain
        except InputError:
            refused += 1
    assert refused > 20


def test_what_is_in_the_way_is_told() -> None:
    _, obstacles = cut_points(Branches().eval(), (3, 32, 32))
    told = {(obstacle.name, obstacle.reason) for obstacle in obstacles}
    assert ("", "the output of down1 also goes around fork3, fork4; they join in cat") in told
    assert ("fork1", "its input also goes around enter, deep, short, middle, mix; they join in add") in told
    assert not any(name.startswith("fork4.") for name, _ in told)


def test_a_module_that_is_called_several_times_is_no_place() -> None:
    class Repeated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Conv2d(16, 16, 1)

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(x.shape[-1] - 2):
                x = self.inner(x)
            return x

    model = Tiny()
    model.stages.append(Repeated())
    points, _ = cut_points(model.eval(), (3, 32, 32))
    assert "stages.2" in {point.name for point in points}
    assert "stages.2.inner" not in {point.name for point in points}
    assert partition(model, (3, 32, 32)).ends[-1] == "stages.2"


@pytest.mark.parametrize("how", ["shape", "size", "unpacked"])
def test_the_number_of_images_goes_around_every_cut(how: str) -> None:
    class Flat(Tiny):
        def forward(self, x: Tensor) -> Tensor:
            if how == "unpacked":
                images, _, _, _ = x.shape
            else:
                images = x.shape[0] if how == "shape" else x.size(0)
            y: Tensor = self.stages(self.stem(x)).mean((2, 3)).view(images, -1)
            logits: Tensor = self.head[2](y)
            return logits

    model = Flat().eval()
    assert partition(model, (3, 32, 32)).ends == ("stem", "stages.0", "stages.1")
    assert set(names(Tiny(), 32)) - set(names(model, 32)) == {"head.0", "head.1"}
    parts = partition(model, (3, 32, 32), Blocks(cuts=("stem", "stages.1.0")))
    x = torch.randn(5, 3, 32, 32)
    assert torch.equal(nn.Sequential(*parts.modules)(x), model(x))


def test_a_check_of_a_shape_is_no_skip() -> None:
    class Checked(Tiny):
        def forward(self, x: Tensor) -> Tensor:
            y = self.stem(x)
            z = self.stages(y)
            torch._assert(y.shape[2] > 1, "")
            logits: Tensor = self.head(z)
            return logits

    model = Checked().eval()
    assert names(model, 32) == names(Tiny(), 32)
    assert partition(model, (3, 32, 32)).block_count == 2


def test_a_cut_behind_what_nothing_needs_is_refused() -> None:
    class Aside(Tiny):
        def forward(self, x: Tensor) -> Tensor:
            y = self.stem(x)
            self.stages(y)
            logits: Tensor = self.head(y.repeat(1, 2, 1, 1))
            return logits

    model = Aside().eval()
    assert not any(name.startswith("stages") for name in names(model, 32))
    with pytest.raises(InputError, match=r"nothing needs what module 'stages\.0' gives"):
        partition(model, (3, 32, 32), Blocks(cuts=("stem", "stages.0")))


def test_a_sequence_is_cut_where_a_map_or_tokens_pass() -> None:
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), *head).eval()
    assert named_stages(model, (3, 8, 8)) == ("0", "1", "2")


def test_stages_that_pass_more_than_one_tensor_are_refused() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor | list[Tensor]) -> list[Tensor]:
            if not isinstance(x, list):
                x = [x]
            return [self.layer(x[0]), x[0]]

    class Pairs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stages = nn.Sequential(Pair(), Pair(), Pair())

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.stages(x)[0]
            return y

    model = Pairs().eval()
    with pytest.raises(InputError, match=r"behind 'stages\.0' passes something else than one"):
        partition(model, (3, 8, 8), Blocks(cuts=("stages.0", "stages.1")))
    parts = partition(model, (3, 8, 8), Blocks(cuts=("stages.0.layer", "stages.1.layer")))
    assert parts.max_abs_difference == 0


def test_modules_that_end_at_one_place_are_one_place() -> None:
    points, _ = cut_points(timm.create_model("resnet18").eval(), (3, 64, 64))
    outer = [point.name for point in distinct(points, ())]
    assert "layer1" in outer
    assert "layer1.1" not in outer
    inner = [point.name for point in distinct(points, ("layer1.1",))]
    assert "layer1.1" in inner
    assert "layer1" not in inner
    assert len(inner) == len(outer)
    assert "fc" not in outer  # behind it there is nothing


@pytest.mark.parametrize(
    ("name", "cuts"),
    [
        ("vit_tiny_patch16_224", ("norm_pre", "blocks.2", "blocks.5", "blocks.8", "blocks.11")),
        ("ghostnet_100", ("blocks.0", "blocks.2", "blocks.4", "blocks.6", "blocks.9")),
    ],
)
def test_many_stages_are_joined(name: str, cuts: tuple[str, ...]) -> None:
    model = timm.create_model(name).eval()
    assert named_stages(model, (3, 224, 224)) == cuts


def test_a_network_without_names_is_cut_where_its_map_changes() -> None:
    model = Branches().eval()
    assert named_stages(model, (3, 32, 32)) == ()
    assert partition(model, (3, 32, 32)).ends == ("entry", "fork2", "down1", "join", "fork6")


@pytest.mark.parametrize("length", [3, 6, 13])
def test_blocks_of_equal_length(length: int) -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.Flatten(2))
            self.turn = nn.Linear(16, 16)
            self.mixers = nn.Sequential(*(nn.Linear(16, 16) for _ in range(length)))
            self.head = nn.Sequential(nn.Flatten(), nn.Linear(8 * 16, 4))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(self.mixers(self.turn(self.embed(x))))
            return y

    parts = partition(Tokens().eval(), (3, 32, 32))
    assert parts.block_count == {3: 1, 6: 2, 13: 2}[length]
    assert set(parts.shapes[2:-1]) == {(8, 16)}


@pytest.mark.parametrize("size", [64, 96])
def test_a_transformer_is_built_for_the_images(size: int, tmp_path: Path) -> None:
    module, shape = open_model("vit_tiny_patch16_224", size, allow_code=False)
    assert shape == (3, size, size)
    with torch.no_grad():
        assert module(torch.zeros(1, *shape)).shape == (1, 1000)
    assert find_reference("vit_tiny_patch16_224", image_size=size).image_size == size
    assert find_reference("vit_tiny_patch16_224", image_size=224).image_size is None
    assert find_reference("resnet18", image_size=size).image_size is None

    whole = timm.create_model("vit_tiny_patch16_224")
    save_file(whole.state_dict(), tmp_path / "w.safetensors")
    module.requires_grad_(False)
    whole.requires_grad_(False)
    load_weights(module, tmp_path / "w.safetensors")
    patches = whole.pos_embed[:, 1:].unflatten(1, (14, 14))
    assert torch.equal(module.pos_embed[:, 0], whole.pos_embed[:, 0])  # type: ignore[index]
    found = module.pos_embed[:, 1:]  # type: ignore[index]
    assert math.isclose(float(found.mean()), float(patches.mean()), abs_tol=2e-3)
    assert found.shape == (1, (size // 16) ** 2, 192)
    with pytest.raises(InputError, match="pos_embed has shape"):
        broken = whole.state_dict() | {"pos_embed": torch.zeros(1, 30, 192)}
        save_file(broken, tmp_path / "b.safetensors")
        load_weights(module, tmp_path / "b.safetensors")


@pytest.mark.slow
def test_the_command_shows_cuts_places_and_reasons(workplace: Path) -> None:
    done = run_hwnas(workplace, "partition", "branches:make")
    assert done.returncode == 0, done.stderr
    assert "block2" in done.stdout
    assert "  fork1  (24, 16, 16)" in done.stdout
    assert "the network: the output of down1 also goes around fork3, fork4; they join in cat" in done.stdout
    done = run_hwnas(workplace, "partition", "branches:make", "--json", "--cut=entry,fork1,fork4")
    assert done.returncode == 2
    assert "gives more than that" in done.stderr
    plain = json.loads(done.stdout)
    assert plain["schema"] == "hwnas.partition/2"
    assert plain["regions"] is None
    assert plain["parts"] == []
    assert "fork2" in [place["name"] for place in plain["cut_points"]]
    done = run_hwnas(workplace, "partition", "branches:make", "--json", "--cut=entry,fork1")
    plain = json.loads(done.stdout)
    assert [part["places"] for part in plain["parts"]] == [[], [["entry", "fork1"]], []]
    assert sum(part["params"] for part in plain["parts"]) == sum(p.numel() for p in Branches().parameters())


@pytest.mark.slow
def test_the_command_tells_what_is_no_network(workplace: Path) -> None:
    done = run_hwnas(workplace, "partition", "resnet17")
    assert done.returncode == 2
    assert "did you mean" in done.stderr
    done = run_hwnas(workplace, "partition", "vit_tiny_patch16_224", "--image-size=8")
    assert done.returncode == 2
    assert "fix:" in done.stderr
    assert "Traceback" not in done.stderr

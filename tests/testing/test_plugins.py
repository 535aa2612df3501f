"""A distribution with one of each thing that can be added: installed, kept to its contracts, and used."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import nn
from torch.utils._pytree import tree_map

from hwnas.compress.library.distill import distill
from hwnas.compress.quality.kinds import QualityModel
from hwnas.compress.search import strategies
from hwnas.compress.tasks.classification import CLASSIFICATION
from hwnas.compress.tasks.detection import detection_by
from hwnas.compress.tasks.features import FEATURES
from hwnas.compress.tasks.regression import REGRESSION
from hwnas.compress.tasks.restoration import denoising, super_resolution
from hwnas.compress.tasks.segmentation import SEGMENTATION
from hwnas.compress.tasks.task import Task
from hwnas.devices.base import Device
from hwnas.measurement import DeviceProfile
from hwnas.networks.blocks.convnext import CONVNEXT, ConvNextTable
from hwnas.networks.blocks.convolution import CONVOLUTION, ConvolutionTable
from hwnas.networks.blocks.csp import CSP, CspTable
from hwnas.networks.blocks.families import FAMILIES
from hwnas.networks.blocks.family import Original
from hwnas.networks.blocks.inverted_bottleneck import (
    INVERTED_BOTTLENECK,
    InvertedBottleneckTable,
    Properties,
    Together,
)
from hwnas.networks.blocks.naf import NAF, NafTable
from hwnas.networks.blocks.residual import RESIDUAL, ResidualTable
from hwnas.networks.blocks.separable import SEPARABLE, SeparableTable
from hwnas.networks.blocks.transformer import TRANSFORMER, TransformerTable
from hwnas.networks.blocks.upsample import UPSAMPLE, UpsampleTable
from hwnas.testing.blocks import BlockTrainerContract, FamilyContract
from hwnas.testing.contract import DeviceContract
from hwnas.testing.parts import QualityModelContract, StrategyContract, TaskContract

PLUGINS = Path(__file__).parents[1] / "plugins"
sys.path.insert(0, str(PLUGINS))


def example(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"hwnas_examples.{module}"), name)


class TestClockwork(DeviceContract):
    def make_device(self) -> Device:
        device: Device = example("device", "Clockwork")(
            DeviceProfile(name="clockwork", device="example", description="a plugin")
        )
        return device


class TestPointwise(FamilyContract):
    family = example("family", "POINTWISE")
    table = example("family", "PointwiseTable")(depth=(1, 2))

    @pytest.fixture(autouse=True)
    def installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        known = FAMILIES.load
        monkeypatch.setattr(
            FAMILIES, "load", lambda name: self.family if name == "pointwise" else known(name)
        )


class TestInvertedBottleneck(FamilyContract):
    family = INVERTED_BOTTLENECK
    table = InvertedBottleneckTable(
        properties=Properties(
            kernel=(3, 5), expand=(2,), depth=(1, 2), layer=("depthwise", "grouped"), width=(0.5, 1.0)
        ),
        together=(Together(activation="relu", se=False), Together(activation="reference", se=True)),
    )


class TestResidual(FamilyContract):
    family = RESIDUAL
    table = ResidualTable(
        layer=("basic", "bottleneck"),
        kernel=(3,),
        depth=(1, 2),
        width=(0.5, 1.0),
        activation=("relu", "swish"),
        se=(False, True),
    )


class TestResidualOfOtherNorms(FamilyContract):
    family = RESIDUAL
    table = ResidualTable(
        layer=("basic", "bottleneck"),
        kernel=(3,),
        depth=(1, 2),
        width=(0.5,),
        activation=("prelu",),
        se=(False,),
        norm=("layer", "none"),
    )


class TestConvNext(FamilyContract):
    family = CONVNEXT
    table = ConvNextTable(kernel=(3, 7), expand=(2,), depth=(1, 2), width=(0.5, 1.0), activation=("gelu",))


class TestTransformer(FamilyContract):
    family = TRANSFORMER
    table = TransformerTable(
        depth=(1, 2), heads=(1, 2), head_channels=(8,), mlp=(0.5, 2.0), activation=("gelu",)
    )


class TestConvolution(FamilyContract):
    family = CONVOLUTION
    table = ConvolutionTable(
        kernel=(3, 5),
        depth=(1, 2),
        width=(0.5,),
        activation=("reference", "prelu"),
        norm=("none", "batch"),
        skip=(False, True),
    )


class TestUnpaddedConvolution(TestConvolution):
    shapes = (((16, 16, 16), (24, 12, 12)), ((16, 9, 13), (16, 5, 9)))

    def block(self) -> Original:
        return Original(nn.Sequential(nn.Conv2d(16, 24, 5), nn.LeakyReLU()), (16, 16, 16), "two lost")


class TestNaf(FamilyContract):
    family = NAF
    table = NafTable(kernel=(3,), expand=(1.0, 2.5), depth=(1, 2))


class TestCsp(FamilyContract):
    family = CSP
    table = CspTable(kernel=(3,), depth=(1, 2), width=(0.5, 1.0), activation=("leaky_relu", "reference"))


class TestSeparable(FamilyContract):
    family = SEPARABLE
    table = SeparableTable(kernel=(3, 5), depth=(1, 2), width=(0.5, 1.0), activation=("reference", "prelu"))


class TestUpsample(FamilyContract):
    family = UPSAMPLE
    table = UpsampleTable(
        upsample=("transposed", "pixel-shuffle", "nearest"),
        kernel=(3, 5),
        depth=(1, 2),
        width=(0.5,),
        activation=("relu", "prelu"),
    )
    shapes = (((16, 8, 8), (3, 16, 16)), ((16, 7, 5), (8, 21, 15)), ((16, 9, 8), (3, 14, 12)))


class TestAsItStarts(BlockTrainerContract):
    trainer = staticmethod(example("trainer", "as_it_starts"))


class TestDistill(BlockTrainerContract):
    trainer = staticmethod(distill)


class TestFirst(StrategyContract):
    strategy = staticmethod(example("strategy", "first"))


class TestNsga2(StrategyContract):
    strategy = staticmethod(strategies.nsga2)


class TestExact(StrategyContract):
    strategy = staticmethod(strategies.exact)


class TestScale(StrategyContract):
    strategy = staticmethod(strategies.scale)


class TestRandom(StrategyContract):
    strategy = staticmethod(strategies.random)


class TestReplaced(QualityModelContract):
    def make_model(self) -> QualityModel:
        model: QualityModel = example("quality", "Replaced")()
        return model


class _Classes(TaskContract):
    def make_batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(6, 5, generator=generator), torch.arange(6) % 5


class TestTop2(_Classes):
    task: Task = example("task", "TOP2")


class TestClassification(_Classes):
    task = CLASSIFICATION


class TestRegression(TaskContract):
    task = REGRESSION

    def make_batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(6, 3, generator=generator), torch.randn(6, 3, generator=generator)


class TestSegmentation(TaskContract):
    task = SEGMENTATION

    def make_batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        return (
            torch.randn(4, 3, 8, 8, generator=generator),
            torch.randint(0, 3, (4, 8, 8), generator=generator),
        )


class _Pictures(TaskContract):
    def make_batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        wanted = torch.rand(3, 3, 24, 24, generator=generator)
        return (wanted + 0.1 * torch.randn(wanted.shape, generator=generator)).clamp(0, 1), wanted


class TestSuperResolution(_Pictures):
    task = super_resolution("2")


class TestDenoising(_Pictures):
    task = denoising("25")


class _Boxes(TaskContract):
    channels: tuple[int, ...]
    """Of each kind of map: classes and codes, or both in one."""

    def make_batch(self) -> tuple[Any, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        maps = tuple(
            [torch.randn(2, channels, 16 >> n, 16 >> n, generator=generator) for n in range(3)]
            for channels in self.channels
        )
        targets = torch.full((2, 4, 5), -1.0)
        targets[0, 0], targets[1, 2] = torch.tensor([10.0, 20, 60, 90, 2]), torch.tensor([0.0, 0, 50, 40, 1])
        return (maps if len(maps) > 1 else maps[0]), targets


class TestEfficientDet(_Boxes):
    task = detection_by("efficientdet")
    channels = (27, 36)


class TestFeatures(TaskContract):
    task = FEATURES

    def make_batch(self) -> tuple[Any, Any]:
        generator = torch.Generator().manual_seed(0)
        wanted = {
            "fine": torch.randn(4, 2, 8, 8, generator=generator),
            "rest": [torch.randn(4, 5, generator=generator)],
        }
        return tree_map(
            lambda leaf: leaf + 0.1 * torch.randn(leaf.shape, generator=generator), wanted
        ), wanted


class TestYolo(_Boxes):
    task = detection_by("yolov8")
    channels = (67,)


@pytest.mark.parametrize(
    ("group", "kept"),
    [
        ("block_families", "family"),
        ("block_trainers", "trainer"),
        ("strategies", "strategy"),
        ("tasks", "task"),
    ],
)
def test_every_built_in_is_kept_to_its_contract(group: str, kept: str) -> None:
    own = tomllib.loads((tiny.ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    classes = [value for key, value in globals().items() if key.startswith("Test") and hasattr(value, kept)]
    found = [getattr(each, kept) for each in classes]
    names = {each.name.partition(":")[0] for each in found if isinstance(each, Task)}
    for name, place in own[f"hwnas.{group}"].items():
        module, _, attribute = place.partition(":")
        value = getattr(importlib.import_module(module), attribute)
        assert name in names or any(each is value for each in found), f"no contract of {name}"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the installed distribution beside the tiny network."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("plugins")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--no-index", "--no-deps", "--no-build-isolation", "--target", str(folder), str(PLUGINS)),
        ],
        check=True,
        capture_output=True,
    )
    tiny.furnish(folder)
    (folder / "pointwise.toml").write_text(
        'name = "pointwise"\ndescription = "a plugin"\nsmaller = true\n[pointwise]\ndepth = [1, 2]\n'
    )
    (folder / "clockwork.toml").write_text(
        'name = "clockwork"\ndevice = "example"\ndescription = "a plugin"\n'
    )
    return folder


@pytest.mark.slow
def test_what_is_installed_is_used_from_the_command_line(installed: Path) -> None:
    options = {"device": "clockwork.toml", "strategy": "first", "quality": "depth", "task": "top2"}
    options |= {"space": "pointwise.toml", "trainer": "as-it-starts"}
    arguments = tiny.compress_arguments("out", "--json", "--device-option=bytes_per_ms=500", **options)
    done = tiny.run_hwnas(installed, *arguments)
    assert done.returncode == 0, done.stderr
    found = tiny.of_one_device(json.loads(done.stdout))
    assert (found["front"]["strategy"], found["front"]["quality"]) == ("first", "depth")
    assert found["front"]["fingerprint"]["chip"] == "clockwork"
    (checkpoint,) = found["checkpoints"]
    assert checkpoint["metric"]["name"] == "top-2 accuracy"
    assert Path(installed, found["report"]).is_file()
    shown = tiny.run_hwnas(installed, "space", tiny.MODEL, "--space=pointwise.toml", "--json")
    assert "pointwise-d1" in shown.stdout


@pytest.mark.slow
def test_what_is_not_installed_is_refused_by_name(installed: Path) -> None:
    for option, wrong in (("strategy", "fist"), ("quality", "deep"), ("task", "top3"), ("trainer", "distil")):
        done = tiny.run_hwnas(installed, *tiny.compress_arguments("refused", **{option: wrong}))
        assert done.returncode == 2
        assert f"{wrong!r}; known are " in done.stderr
        assert "did you mean" in done.stderr
    assert not (installed / "refused" / "library").exists()

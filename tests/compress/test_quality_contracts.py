"""The quality models of hwnas keep the contract that a plugin's keep."""

from __future__ import annotations

import tomllib

import numpy as np
import pytest
import tiny

from hwnas.compress.library.stitch import Stitcher
from hwnas.compress.library.store import Library
from hwnas.compress.quality.finetuned import METRIC, block_metrics, metric_rows
from hwnas.compress.quality.kinds import QualityModel
from hwnas.compress.quality.model import DNA_METRIC, Quality
from hwnas.compress.quality.output import OutputQuality
from hwnas.compress.quality.predictor import fit_predictor
from hwnas.networks.partition import Partition
from hwnas.testing.parts import QualityModelContract


class _OfALibrary(QualityModelContract):
    @pytest.fixture(autouse=True)
    def stitched(self, parts: Partition, library: Library) -> None:
        self.stitcher = Stitcher(parts, library)
        self.choices = self.stitcher.choices  # type: ignore[misc]  # each test's own


class TestLoss(_OfALibrary):
    def make_model(self) -> QualityModel:
        return Quality(self.stitcher, "nsr")


class TestDna(_OfALibrary):
    def make_model(self) -> QualityModel:
        return Quality(self.stitcher, DNA_METRIC)


class TestPredictor(_OfALibrary):
    def make_model(self) -> QualityModel:
        generator = np.random.default_rng(0)
        networks = [tuple(int(generator.choice(of)) for of in self.choices) for _ in range(12)]
        rows = metric_rows(block_metrics(self.stitcher.library.entries()), networks)
        return Quality(self.stitcher, METRIC, fit_predictor(rows, 0.9 - 0.01 * rows.sum(1)))


class TestOutput(_OfALibrary):
    def make_model(self) -> QualityModel:
        return OutputQuality({key: 0.1 * sum(key) for key in self.stitcher.entries}, METRIC)


def test_every_built_in_is_kept_to_its_contract() -> None:
    own = tomllib.loads((tiny.ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    kept = {name.removeprefix("Test").lower() for name in globals() if name.startswith("Test")}
    assert kept == set(own["hwnas.quality_models"])

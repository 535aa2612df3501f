"""Linear CKA between layers, against direct computations, and `hwnas similarity`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from shortest_run import LIBRARY, SEARCH
from tiny import run_hwnas, run_job
from torch import Tensor, nn

import hwnas
from hwnas.compress.quality.cka import LARGEST, gram, hsic, layer_similarity
from hwnas.compress.report.layers import SimilarityRecord
from hwnas.compress.report.similarity import between_blocks
from hwnas.progress import Progress


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def biased_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Of all images at once: ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖), columns centred (Kornblith et al. 2019, eq. 5)."""
    x, y = x - x.mean(0), y - y.mean(0)
    return float(np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)))


class Linear(nn.Module):
    """Two layers side by side, so that their outputs are known."""

    def __init__(self, first: Tensor, second: Tensor) -> None:
        super().__init__()
        self.one, self.two = (nn.Linear(w.shape[1], w.shape[0], bias=False) for w in (first, second))
        self.one.weight, self.two.weight = nn.Parameter(first), nn.Parameter(second)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.one(x).sum(1) + self.two(x).sum(1)
        return out


def cka(first: Tensor, second: Tensor, x: Tensor, batch: int) -> np.ndarray:
    return layer_similarity([Linear(first, second)], torch.split(x, batch))[1]


@given(seed=st.integers(0, 1000), wide=st.integers(2, 12), scale=st.floats(0.01, 100))
def test_a_layer_is_the_same_as_itself_rotated_and_scaled(seed: int, wide: int, scale: float) -> None:
    first = random(wide, 6, seed=seed)
    rotation = torch.linalg.qr(random(wide, wide, seed=seed + 1))[0]
    found = cka(first, scale * rotation @ first, random(40, 6, seed=seed + 2), 20)
    assert np.allclose(found, 1.0, atol=1e-9)


def test_layers_with_nothing_in_common_are_near_zero() -> None:
    first, second = torch.zeros(8, 16, dtype=torch.float64), torch.zeros(8, 16, dtype=torch.float64)
    first[:, :8], second[:, 8:] = torch.eye(8), torch.eye(8)
    found = cka(first, second, random(2000, 16), 50)
    assert abs(found[0, 1]) < 0.02


def test_small_batches_come_near_all_images_at_once() -> None:
    first, second = random(5, 10), random(7, 10, seed=1)
    x = random(4000, 10, seed=2)
    at_once = biased_cka((x @ first.T).numpy(), (x @ second.T).numpy())
    assert cka(first, second, x, 40)[0, 1] == pytest.approx(at_once, abs=0.02)


@given(seed=st.integers(0, 1000), count=st.integers(4, 9))
def test_hsic_is_what_its_sums_over_images_say(seed: int, count: int) -> None:
    """Song et al. 2012, eq. 4: over all tuples of different images."""
    k, other = (gram(random(count, 3, seed=seed + n)).numpy() for n in (0, 1))
    images = range(count)

    def mean(terms: list[float]) -> float:
        return sum(terms) / len(terms)

    pairs = [k[a, b] * other[a, b] for a in images for b in images if a != b]
    threes = [k[a, b] * other[a, c] for a in images for b in images for c in images if len({a, b, c}) == 3]
    fours = [
        k[a, b] * other[c, d]
        for a in images
        for b in images
        for c in images
        for d in images
        if len({a, b, c, d}) == 4
    ]
    found = hsic(torch.stack([torch.from_numpy(k), torch.from_numpy(other)]))
    assert float(found[0, 1]) == pytest.approx(mean(pairs) - 2 * mean(threes) + mean(fours), abs=1e-9)


def test_layers_are_named_and_called_once_and_constant_ones_have_nothing_in_common() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.again = nn.Conv2d(3, 96, 3), nn.Conv2d(96, 96, 1)
            self.still = nn.Conv2d(96, 4, 1)
            nn.init.zeros_(self.still.weight)

        def forward(self, x: Tensor) -> Tensor:
            y = self.again(self.again(self.first(x)))
            out: Tensor = self.still(y).mean((2, 3))
            return out

    net = Net().eval()
    assert net.first(torch.zeros(1, 3, 12, 12)).numel() > LARGEST
    (names,), found = layer_similarity([net], torch.split(random(16, 3, 12, 12).float(), 8))
    assert names == ["first", "again", "still"]
    assert np.allclose(found.diagonal()[:2], 1)
    assert np.allclose(found[2], 0)
    assert np.isfinite(found).all()


def test_a_map_that_is_changed_in_place_behind_a_layer_counts_as_the_layer_gave_it() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 1)]
    plain = nn.Sequential(layers[0], nn.ReLU(), layers[2]).eval()
    x = torch.split(random(16, 3, 8, 8).float(), 8)
    assert np.allclose(
        layer_similarity([nn.Sequential(*layers).eval()], x)[1], layer_similarity([plain], x)[1]
    )


def test_the_mean_is_over_layers_of_different_parts() -> None:
    matrix = np.array([[1.0, 0.5, 0.2], [0.5, 1.0, 0.4], [0.2, 0.4, 1.0]])
    assert between_blocks(["a.x", "a.y", "b.x"], matrix) == pytest.approx(0.3)
    assert between_blocks(["a.x", "a.y", "a.z"], matrix) == 0


@pytest.mark.slow
def test_the_command(workplace: Path) -> None:
    library = replace(LIBRARY, model="tinynet:make", data="digits")
    run_job(library, SEARCH, workplace / "run", "hwnas compress …", Progress(), allow_code=True)
    before = (workplace / "run/devices/sim-npu/report.html").read_text()
    done = run_hwnas(workplace, "similarity", "run", "--allow-code", "--json")
    assert done.returncode == 0, done.stderr
    plain = json.loads(done.stdout)
    reference, checkpoint = plain["networks"]
    assert (reference["name"], checkpoint["name"]) == ("reference", "sim-npu-knee")
    assert np.allclose(np.diagonal(reference["own"]), 1, atol=1e-3)
    assert np.array(checkpoint["with_reference"]).shape == (
        len(checkpoint["layers"]),
        len(reference["layers"]),
    )
    assert {layer.partition(".")[0] for layer in reference["layers"]} >= {"stem", "block1", "head"}
    assert len(plain["front"]) >= 1
    after = (workplace / "run/devices/sim-npu/report.html").read_text()
    assert "heatmap" not in before.split("</script>")[-2] and "CKA between parts" in after
    folder = workplace / "run/devices/sim-npu"
    record = SimilarityRecord.read(folder)
    replace(record, front=record.front[1:]).write(folder)  # as of an older front
    assert run_hwnas(workplace, "report", "run").returncode == 0
    assert "CKA between parts" not in (folder / "report.html").read_text()
    (folder / "similarity.json").write_text("{}")
    damaged = run_hwnas(workplace, "report", "run")
    assert damaged.returncode == 2
    assert "similarity.json" in damaged.stderr and "fix: " in damaged.stderr
    assert hwnas.open_run(workplace / "run").similarity(allow_code=True).device == "sim-npu"

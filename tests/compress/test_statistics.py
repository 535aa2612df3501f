from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hwnas.compress.training.intervals import accuracy, paired_difference


def answers(right: int, total: int) -> torch.Tensor:
    return torch.arange(total) < right


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        (81, 263, 0.255, 0.366),  # Newcombe 1998, table I, method 3 (Wilson without continuity correction)
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilsons_interval_is_the_published_one(right: int, total: int, low: float, high: float) -> None:
    interval = accuracy(answers(right, total))
    assert interval.value == right / total
    assert interval.low == pytest.approx(low, abs=6e-4)
    assert interval.high == pytest.approx(high, abs=6e-4)


@pytest.mark.parametrize(("right", "total"), [(0, 7), (7, 7), (200, 360), (349, 359)])
def test_wilsons_interval_is_the_formula(right: int, total: int) -> None:
    p, z = right / total, 1.959963984540054
    middle = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total**2))
    interval = accuracy(answers(right, total))
    assert interval.low == pytest.approx(max(0.0, middle - half), abs=1e-12)
    assert interval.high == pytest.approx(min(1.0, middle + half), abs=1e-12)


def test_the_paired_interval_covers_the_true_difference() -> None:
    rng = np.random.default_rng(0)
    truth, covered, widths = -0.03, 0, []
    for _ in range(15):
        reference = rng.random(360) < 0.9
        lost = rng.random(360) < -truth / 0.9
        interval = paired_difference(torch.from_numpy(reference & ~lost), torch.from_numpy(reference))
        covered += interval.low <= truth <= interval.high
        widths.append(interval.high - interval.low)
    assert covered >= 13
    assert max(widths) < 0.07  # independent intervals would be 0.09 wide


def test_the_paired_interval_is_the_normal_one_for_many_images() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random(2000) < 0.8, rng.random(2000) < 0.7
    difference = a.astype(float) - b.astype(float)
    interval = paired_difference(torch.from_numpy(a), torch.from_numpy(b))
    half = 1.96 * difference.std() / math.sqrt(2000)
    assert interval.value == pytest.approx(difference.mean())
    assert interval.low == pytest.approx(difference.mean() - half, abs=2e-3)
    assert interval.high == pytest.approx(difference.mean() + half, abs=2e-3)


def test_the_paired_interval_is_the_same_each_time_and_signed() -> None:
    worse, better = answers(70, 100), answers(90, 100)
    first = paired_difference(worse, better)
    torch.manual_seed(123)
    np.random.seed(5)
    assert paired_difference(worse, better) == first
    assert first.value == pytest.approx(-0.2)
    assert first.low < -0.2 < first.high < 0
    assert paired_difference(better, better).low == paired_difference(better, better).high == 0

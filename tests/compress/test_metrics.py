from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hwnas.compress.library.metrics import DEAD_CHANNEL, MetricsAccumulator, StatisticsAccumulator, distance

MAPS, TOKENS = (11, 5, 3, 4), (11, 7, 5)


def channels_last(y: np.ndarray) -> np.ndarray:
    """(B, C, H, W) or (B, T, C) → (N, C), in float64."""
    moved = np.moveaxis(y, 1, -1) if y.ndim == 4 else y
    return moved.reshape(-1, moved.shape[-1]).astype(np.float64)


def draw(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Channels of different mean and scale, which a figure over all elements would mix up."""
    rng = np.random.default_rng(seed)
    y = rng.standard_normal(shape)
    scale = rng.uniform(0.2, 5.0, 5).reshape((1, 5, 1, 1) if len(shape) == 4 else (1, 1, 5))
    return (y * scale + 3 * scale).astype(np.float32)


@given(cuts=st.lists(st.integers(1, 10), max_size=4, unique=True), shape=st.sampled_from([MAPS, TOKENS]))
def test_statistics_are_those_of_all_data_however_they_are_batched(
    cuts: list[int], shape: tuple[int, ...]
) -> None:
    y = draw(shape, 0)
    accumulator = StatisticsAccumulator()
    for batch in np.split(y, sorted(cuts)):
        accumulator.add(torch.from_numpy(batch))
    result = accumulator.result()
    np.testing.assert_allclose(result.mean, channels_last(y).mean(0), rtol=1e-6)
    np.testing.assert_allclose(result.variance, channels_last(y).var(0), rtol=1e-5)


def test_the_variance_of_all_data_is_not_the_mean_of_the_batches() -> None:
    y = np.concatenate([draw(MAPS, 1), draw(MAPS, 1) + 10])
    accumulator = StatisticsAccumulator()
    for batch in np.split(y, 2):
        accumulator.add(torch.from_numpy(batch))
    np.testing.assert_allclose(accumulator.result().variance, channels_last(y).var(0), rtol=1e-5)
    assert (channels_last(y).var(0) > 20).all()


def test_dead_channels_get_a_floor() -> None:
    y = draw(MAPS, 2)
    y[:, 1], y[:, 3] = 0.0, 4.0
    accumulator = StatisticsAccumulator()
    accumulator.add(torch.from_numpy(y))
    variance, expected = accumulator.result().variance.numpy(), channels_last(y).var(0)
    np.testing.assert_allclose(variance[[0, 2, 4]], expected[[0, 2, 4]], rtol=1e-5)
    np.testing.assert_allclose(variance[[1, 3]], DEAD_CHANNEL * expected.mean(), rtol=1e-4)


def test_a_block_whose_output_never_varies_can_still_be_rated() -> None:
    accumulator = StatisticsAccumulator()
    accumulator.add(torch.full(MAPS, 2.0))
    variance = accumulator.result().variance
    assert (variance > 0).all()
    value = distance("nsr", torch.full(MAPS, 2.5), torch.full(MAPS, 2.0), variance)
    assert torch.isfinite(value)


@given(cuts=st.lists(st.integers(1, 10), max_size=4, unique=True), shape=st.sampled_from([MAPS, TOKENS]))
def test_metrics_are_those_of_the_formulae(cuts: list[int], shape: tuple[int, ...]) -> None:
    target, prediction = draw(shape, 3), draw(shape, 4)
    variance = np.array([0.5, 1.0, 2.0, 4.0, 0.1], dtype=np.float32)
    accumulator = MetricsAccumulator(torch.from_numpy(variance))
    for y, y_hat in zip(np.split(target, sorted(cuts)), np.split(prediction, sorted(cuts)), strict=True):
        accumulator.add(torch.from_numpy(y_hat), torch.from_numpy(y))
    error = channels_last(target) - channels_last(prediction)
    result = accumulator.result()
    assert result.nsr == pytest.approx(np.mean((error**2).mean(0) / variance), rel=1e-6)
    assert result.mse == pytest.approx((error**2).mean(), rel=1e-6)
    assert result.relative_l1 == pytest.approx(np.abs(error).mean() / channels_last(target).std(), rel=1e-6)


@pytest.mark.parametrize("shape", [MAPS, TOKENS])
def test_the_training_loss_is_the_formula(shape: tuple[int, ...]) -> None:
    target, prediction = torch.from_numpy(draw(shape, 5)), torch.from_numpy(draw(shape, 6))
    variance = torch.tensor([0.5, 1.0, 2.0, 4.0, 0.1])
    error = channels_last(target.numpy()) - channels_last(prediction.numpy())
    nsr = float(distance("nsr", prediction, target, variance))
    assert nsr == pytest.approx(np.mean((error**2).mean(0) / variance.numpy()), rel=1e-5)
    assert float(distance("mse", prediction, target, variance)) == pytest.approx((error**2).mean(), rel=1e-5)


def test_the_reference_itself_is_perfect_and_its_mean_has_a_ratio_of_one() -> None:
    y = torch.from_numpy(draw(MAPS, 7))
    statistics = StatisticsAccumulator()
    statistics.add(y)
    perfect = MetricsAccumulator(statistics.result().variance)
    perfect.add(y, y)
    assert perfect.result().nsr == perfect.result().mse == perfect.result().relative_l1 == 0
    constant = MetricsAccumulator(statistics.result().variance)
    constant.add(statistics.result().mean.view(1, -1, 1, 1).expand_as(y), y)
    assert constant.result().nsr == pytest.approx(1.0, rel=1e-4)

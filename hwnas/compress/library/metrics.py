"""How far a candidate's output is from the teacher's."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hwnas.ranges import Figure

DEAD_CHANNEL = 1e-3
TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class BlockMetrics:
    """Held-out quality of a candidate; smaller is better, 0 is the reference's own block.

    Attributes:
        nsr: noise-to-signal ratio (DONNA eq. 1, square inside of the mean): the mean over channels of
            E[(Y_c − Ŷ_c)²] / σ_c², σ_c² of the teacher's channel over the training data.
        mse: E[(Y − Ŷ)²] (DONNAv2).
        relative_l1: E|Y − Ŷ| / σ(Y), σ over all elements (DNA eq. 8).
    """

    nsr: Figure
    mse: Figure
    relative_l1: Figure


def channel_dimension(y: Tensor) -> int:
    """1 for feature maps (B, C, H, W), the last for tokens (B, T, C)."""
    return 1 if y.ndim == 4 else y.ndim - 1


@dataclass(frozen=True, kw_only=True)
class ChannelStatistics:
    """Mean and variance (C,) of each channel of a teacher's output over the whole training part."""

    mean: Tensor
    variance: Tensor


class StatisticsAccumulator:
    """Channel statistics, batch by batch, summed up in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.total: Tensor | float = 0.0
        self.squares: Tensor | float = 0.0

    def add(self, y: Tensor) -> None:
        """Take in a batch of feature maps (B, C, H, W) or tokens (B, T, C)."""
        rows = y.movedim(channel_dimension(y), -1).reshape(-1, y.shape[channel_dimension(y)]).double()
        self.count += len(rows)
        self.total = self.total + rows.sum(0)
        self.squares = self.squares + rows.square().sum(0)

    def result(self) -> ChannelStatistics:
        """float32 on the CPU; the variance of dead channels is lifted to a thousandth of the mean variance.

        It is never 0, not even where nothing varies at all: losses are divided by it.
        """
        assert isinstance(self.total, Tensor) and isinstance(self.squares, Tensor)
        mean = self.total / self.count
        variance = (self.squares / self.count - mean.square()).clamp_min(0.0)
        variance = variance.clamp_min(max(DEAD_CHANNEL * float(variance.mean()), TINY))
        return ChannelStatistics(mean=mean.float().cpu(), variance=variance.float().cpu())


def distance(loss: str, prediction: Tensor, target: Tensor, variance: Tensor) -> Tensor:
    """The training loss: `nsr` or `mse`. prediction, target: the same shape; variance: (C,)."""
    squares = (prediction - target).square()
    if loss == "mse":
        return squares.mean()
    shape = [1] * target.ndim
    shape[channel_dimension(target)] = -1
    return (squares / variance.view(shape)).mean()


def mean_metrics(metrics: Sequence[BlockMetrics]) -> BlockMetrics:
    """The mean over what a candidate gives in several places."""
    means = {
        key: statistics.fmean(getattr(each, key) for each in metrics) for key in ("nsr", "mse", "relative_l1")
    }
    return BlockMetrics(**means)


class MetricsAccumulator:
    """Held-out metrics of one candidate, batch by batch."""

    def __init__(self, variance: Tensor) -> None:
        self.variance = variance
        self.elements = 0
        self.sums = torch.zeros(5, dtype=torch.float64)

    def add(self, prediction: Tensor, target: Tensor) -> None:
        """prediction, target: (B, C, H, W) or (B, T, C)."""
        error, wide = (prediction - target).double(), target.double()
        weighted = distance("nsr", prediction.double(), wide, self.variance.double()) * wide.numel()
        self.elements += wide.numel()
        self.sums += torch.stack(
            [weighted, error.square().sum(), error.abs().sum(), wide.sum(), wide.square().sum()]
        ).cpu()

    def result(self) -> BlockMetrics:
        """The metrics over everything that was added."""
        nsr, mse, l1, mean, square = (self.sums / self.elements).tolist()
        deviation = max(square - mean**2, 1e-30) ** 0.5
        return BlockMetrics(nsr=nsr, mse=mse, relative_l1=l1 / deviation)

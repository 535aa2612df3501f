"""Which candidates a device's search can do without (DONNAv2 algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hwnas.measurement import STRICT
from hwnas.ranges import Count, Figure, Position


@dataclass(frozen=True, kw_only=True)
class ChoiceCost:
    """What one choice of a part costs on its own; choice 0 is the reference's own part.

    Attributes:
        loss: held-out block loss; 0 for the reference's own part.
        cost: on the device, or in MACs; None where it has none.
        cost_ratio: cost / cost of the first choice of the part, which is the reference's own where the device
            runs that.
        single_layers_ms: what its layers take one by one, where the device tells.
        other_costs: MACs and parameters, where these are objectives of the search as well.
        reason: why it has no cost.
        kept: whether the search may choose it; what the device refused it may not.
        beaten_by: the choice that made it superfluous.
    """

    __pydantic_config__ = STRICT
    choice: Position
    name: str
    loss: Figure
    cost: Figure | None = None
    cost_ratio: Figure | None = None
    single_layers_ms: Figure | None = None
    other_costs: tuple[Count, ...] = ()
    reason: str | None = None
    kept: bool = True
    beaten_by: Position | None = None


def filter_choices(choices: Sequence[ChoiceCost], threshold: float) -> list[ChoiceCost]:
    """Mark what is superfluous among the choices of one part.

    A candidate goes if another choice has no higher loss and a cost ratio lower by more than `threshold`,
    the reference's own part among them, and is no worse in any other objective; the one with the lowest cost
    is named as its reason. The reference's own part stays. So does the cheapest choice, since nothing has a
    lower cost, and what has no cost ratio is left as it is.

    Args:
        choices: of one part, the reference's own with a cost among them.
        threshold: D of the paper, which gives no value for it.
    """
    return [_judged(choice, choices, threshold) for choice in choices]


def _judged(choice: ChoiceCost, others: Sequence[ChoiceCost], threshold: float) -> ChoiceCost:
    if choice.choice == 0 or choice.cost_ratio is None:
        return choice
    better = [
        (other.cost_ratio, other.choice)
        for other in others
        if other.cost_ratio is not None
        and other.loss <= choice.loss
        and other.cost_ratio < choice.cost_ratio - threshold
        and all(a <= b for a, b in zip(other.other_costs, choice.other_costs, strict=True))
    ]
    return replace(choice, kept=False, beaten_by=min(better)[1]) if better else choice

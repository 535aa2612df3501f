"""What a memory holds of a loop nest at once, against the search of loop orders and direct counting."""

from __future__ import annotations

import random

import pytest

from hwnas.devices.simulator import columns as col
from hwnas.devices.simulator.accelerator import DIMENSIONS
from hwnas.devices.simulator.closed_form.contents import (
    is_cut,
    pieces,
    portion,
    reread,
    together,
    waits,
    whole_words,
)
from hwnas.devices.simulator.closed_form.machine import Loops
from hwnas.devices.simulator.detailed.mapper import loop_factors

ORDER = ("K", "C", "G", "OY", "OX", "FY", "FX")


def random_nest(seed: int) -> Loops:
    choose = random.Random(seed)
    sizes = [choose.choice((1, 1, 2, 3, 4, 7, 8, 14, 24, 30, 60, 197)) for _ in range(5)]
    return Loops(*(float(n) for n in (*sizes, *choose.choice(((1, 1), (3, 3), (5, 5))))))


@pytest.mark.parametrize("seed", range(200))
def test_a_loop_is_cut_where_the_search_cuts_it(seed: int) -> None:
    loops = random_nest(seed)
    factors = loop_factors({d: int(n) for d, n in zip(ORDER, loops, strict=True) if n > 1})
    for at, name in enumerate(ORDER):
        assert is_cut(at, loops) == (sum(d == DIMENSIONS.index(name) for d, _ in factors) > 1)


def test_channels_that_are_held_together_divide_them_and_fit() -> None:
    loops = Loops(120.0, 20.0, 1.0, 2.0, 2.0, 1.0, 1.0)
    assert together(120.0, 25.6, loops) == 24
    assert together(120.0, 1.9, loops) == 1
    # Six loops leave one factor each.
    assert together(120.0, 25.6, Loops(120.0, 20.0, 1.0, 2.0, 2.0, 3.0, 3.0)) == 1


def test_a_part_of_a_sum_is_whole_loops() -> None:
    loops = Loops(16.0, 16.0, 1.0, 28.0, 28.0, 3.0, 3.0)
    assert portion(loops, 144.0) == 144
    assert portion(loops, 128.0) == 48
    assert portion(loops, 10.0) == 9
    assert portion(Loops(8.0, 24.0, 1.0, 7.0, 7.0, 1.0, 1.0), 16.0) == 12


def test_parts_of_a_map_overlap() -> None:
    """Four parts of 60 rows under a 3 x 3 window read two rows again three times."""
    loops = Loops(1.0, 1.0, 1.0, 60.0, 1.0, 3.0, 3.0)
    assert pieces(4.0, col.OY, loops) == 4
    assert reread(4.0, col.OY, loops, 2.0, 60.0) == pytest.approx(6 / 62)
    assert reread(4.0, col.OY, loops, -1.0, 60.0) == 0


def test_a_content_that_comes_too_late_is_waited_for() -> None:
    """ResNet-18's layer3 on tpu-like: 9,216 cycles for every content, 72 in which it may come."""
    assert waits(72 * 1024 * 8.0, 8.0, 72.0, 64.0) == (9216 - 72) * 7
    assert waits(72 * 1024 * 8.0, 8.0, 14112.0, 64.0) == 0
    assert whole_words(65.0, 3.0) == 3 * 128

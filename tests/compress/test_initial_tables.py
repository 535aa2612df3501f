"""What is known of each choice beforehand, against sums and means over every architecture."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from hwnas.compress.library.stitch import Stitcher
from hwnas.compress.library.store import Library
from hwnas.compress.quality.model import Quality
from hwnas.compress.quality.predictor import Predictor, fit_predictor
from hwnas.compress.search.block_costs import BlockCosts, CostName, PartCosts
from hwnas.compress.search.filter import ChoiceCost
from hwnas.compress.search.initial_tables import block_tables
from hwnas.compress.settings import Objective
from hwnas.networks.partition import Partition

MS = [{0: 3.0}, {0: 5.0, 1: 9.0, 3: 0.5}, {0: 2.0, 1: 7.0, 2: 0.25, 3: 4.0}, {0: 6.0}]
"""What blocks take on their own, by choice: nothing that their MACs would tell."""


@pytest.fixture
def stitcher(parts: Partition, library: Library) -> Stitcher:
    return Stitcher(parts, library)


def block_costs(cost: CostName, refused: tuple[int, int] | None = None) -> BlockCosts:
    """`MS` as the cost of each choice; one of them could not be measured."""
    parts = tuple(
        PartCosts(
            part=part,
            name=f"part {part}",
            choices=tuple(
                ChoiceCost(choice=choice, name="", loss=0.0, cost=None if (part, choice) == refused else ms)
                for choice, ms in of_part.items()
            ),
        )
        for part, of_part in enumerate(MS)
    )
    return BlockCosts(cost=cost, protocol=None, reference_latency_ms=None, threshold=0.1, parts=parts)


def prior_columns(
    stitcher: Stitcher, blocks: BlockCosts | None, *objectives: Objective
) -> list[dict[tuple[int, ...], float]]:
    """Σ of the initial tables for each architecture: the loss, and each objective."""
    tables = block_tables(stitcher, Quality(stitcher, "nsr"), stitcher.choices, blocks, objectives)
    assert [table.shape for table in tables] == [(len(c), 1 + len(objectives)) for c in stitcher.choices]
    sums = {}
    for rows in product(*(range(len(of_part)) for of_part in stitcher.choices)):
        architecture = tuple(of[i] for of, i in zip(stitcher.choices, rows, strict=True))
        sums[architecture] = np.sum([table[i] for table, i in zip(tables, rows, strict=True)], axis=0)
    return [{key: float(row[k]) for key, row in sums.items()} for k in range(1 + len(objectives))]


def shares(stitcher: Stitcher, index: int) -> dict[tuple[int, ...], float]:
    """MACs (0) or parameters (1) of every architecture, as ratios to the reference's."""
    reference = stitcher.cost((0,) * 4)[index]
    return {choices: stitcher.cost(choices)[index] / reference for choices in product(*stitcher.choices)}


def measured(stitcher: Stitcher) -> dict[tuple[int, ...], float]:
    """Σ `MS` of every architecture, as ratios to the reference's."""
    reference = sum(of_part[0] for of_part in MS)
    return {
        choices: sum(of_part[choice] for of_part, choice in zip(MS, choices, strict=True)) / reference
        for choices in product(*stitcher.choices)
    }


def test_measured_blocks_say_what_time_a_network_takes_and_counts_are_exact(stitcher: Stitcher) -> None:
    loss, macs, latency, params, throughput, energy = prior_columns(
        stitcher, block_costs("latency"), "macs", "latency", "params", "throughput", "energy"
    )
    assert loss == pytest.approx({choices: stitcher.loss(choices, "nsr") for choices in loss})
    assert latency == throughput == pytest.approx(measured(stitcher))
    assert macs == energy == pytest.approx(shares(stitcher, 0))
    assert params == pytest.approx(shares(stitcher, 1))
    assert np.corrcoef(list(latency.values()), list(macs.values()))[0, 1] < 0.9


def test_measured_energy_says_nothing_about_time(stitcher: Stitcher) -> None:
    _, latency, energy = prior_columns(stitcher, block_costs("energy"), "latency", "energy")
    assert energy == pytest.approx(measured(stitcher))
    assert latency == pytest.approx(shares(stitcher, 0))


def test_where_no_block_was_measured_time_is_in_proportion_to_macs(stitcher: Stitcher) -> None:
    for blocks in (None, block_costs("macs")):
        _, latency = prior_columns(stitcher, blocks, "latency")
        assert latency == pytest.approx(shares(stitcher, 0))


def test_a_choice_that_could_not_be_measured_gets_its_share_of_the_macs(stitcher: Stitcher) -> None:
    _, latency = prior_columns(stitcher, block_costs("latency", refused=(2, 3)), "latency")
    expected = measured(stitcher)
    for choices in expected:
        if choices[2] == 3:
            share = stitcher.part_cost(2, 3)[0] / stitcher.cost((0,) * 4)[0]
            expected[choices] += share - MS[2][3] / sum(of_part[0] for of_part in MS)
    assert latency == pytest.approx(expected)


def curved_predictor(stitcher: Stitcher) -> Predictor:
    """Fitted to accuracies with squares and products of the metrics of the two blocks."""
    losses = [
        [stitcher.part_loss(n, c, "nsr") for c in of_part] for n, of_part in enumerate(stitcher.choices)
    ]
    top = np.array([max(of_part) for of_part in losses])
    x = np.random.default_rng(0).random((60, 4))
    accuracies = 0.9 - 0.2 * x[:, 1] - 0.1 * x[:, 2] ** 2 - 0.5 * x[:, 1] * x[:, 2]
    return fit_predictor(x * top, accuracies)


@pytest.mark.parametrize("left", [[[0], [0, 1, 3], [0, 1, 2, 3], [0]], [[0], [3, 1], [2, 0, 3], [0]]])
def test_a_choice_adds_to_the_predicted_loss_what_it_does_on_average(
    left: list[list[int]], stitcher: Stitcher
) -> None:
    """Main effects: means over all architectures of the choices that are left, up to a constant a part."""
    quality = Quality(stitcher, "nsr", curved_predictor(stitcher))
    everything = {choices: quality.loss(choices) for choices in product(*left)}
    for part, found in enumerate(quality.part_losses(left)):
        means = [
            np.mean([loss for choices, loss in everything.items() if choices[part] == choice])
            for choice in left[part]
        ]
        np.testing.assert_allclose(found - found.mean(), means - np.mean(means), atol=1e-12)
        assert len(left[part]) == 1 or np.ptp(means) > 0.01


def test_products_make_what_a_choice_adds_depend_on_the_other_choices(stitcher: Stitcher) -> None:
    quality = Quality(stitcher, "nsr", curved_predictor(stitcher))
    low, high = sorted(stitcher.choices[2], key=lambda choice: stitcher.part_loss(2, choice, "nsr"))[::3]
    beside_low = quality.part_losses([[0], [0, 1, 3], [low], [0]])[1]
    beside_high = quality.part_losses([[0], [0, 1, 3], [high], [0]])[1]
    assert np.ptp(beside_high) > 1.5 * np.ptp(beside_low)

"""Nearly valid ONNX graphs through every reader and the host: taken, or refused by cause."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import graph_campaign
import odd_graphs
import pytest
import valid_graphs

CASES, FEW = 10_000, 120


def held(first: int, last: int) -> graph_campaign.Outcome:
    outcome = graph_campaign.campaign(first, last)
    assert not outcome.faults, "\n".join(map(str, outcome.faults[:10]))
    assert outcome.taken + outcome.refused + outcome.ended == last - first
    return outcome


def test_a_few_odd_graphs() -> None:
    outcome = held(0, FEW)
    assert outcome.taken > FEW / 5
    assert outcome.refused > FEW / 5


@pytest.mark.parametrize(
    ("first", "last"),
    [
        pytest.param(FEW, FEW + 500, marks=pytest.mark.slow),
        pytest.param(FEW + 500, FEW + CASES, marks=pytest.mark.faults),
    ],
)
def test_many_odd_graphs(first: int, last: int) -> None:
    held(first, last)


def test_cases_are_those_of_their_seeds_and_meet_every_change() -> None:
    cases = [odd_graphs.case(seed) for seed in range(400)]
    assert [odd_graphs.case(seed).content for seed in range(20)] == [case.content for case in cases[:20]]
    met = Counter(change for case in cases for change in case.changes)
    assert set(met) == {*valid_graphs.VALID, *odd_graphs.CHANGES}


FAULTY = """
import os, sys, time
sys.path.insert(0, {folder!r})
import graph_campaign

def count(network, seed):
    if seed == {seed}:
        {fault}

graph_campaign.DOES["count"] = count
graph_campaign.main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].split(","))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ("raise RuntimeError('odd')", "odd"),
        ("os._exit(7)", "exit code 7"),
        ("time.sleep(600)", "hangs"),
    ],
)
def test_the_campaign_finds_what_it_looks_for(fault: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that raises, ends its process, or hangs at one case; the others are taken all the same."""
    whole = graph_campaign.campaign(0, 6, ("count",))
    seed = next(seed for seed in range(6) if graph_campaign.campaign(seed, seed + 1, ("count",)).taken)
    folder = str(Path(graph_campaign.__file__).parent)
    script = FAULTY.format(folder=folder, seed=seed, fault=fault)
    monkeypatch.setattr(graph_campaign, "PROGRAM", [sys.executable, "-c", script])
    monkeypatch.setattr(graph_campaign, "HANGS_S", 20.0)
    outcome = graph_campaign.campaign(0, 6, ("count",))
    (found,) = outcome.faults
    assert (found.seed, found.stage) == (seed, "count")
    assert what in found.what
    assert outcome.refused == whole.refused

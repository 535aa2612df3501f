"""A run that is killed goes on and ends with the same library, front and checkpoint, wherever it was hit."""

from __future__ import annotations

import fcntl
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from kill_campaign import STEPS, Campaign, Server, serving

from hwnas.compress.run.cost_log import read_costs


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("kills")
    tiny.furnish(folder)
    with serving(folder) as server:
        yield server


def begin(server: Server, device: str, seed: int) -> Campaign:
    """A campaign, with the run that all others must equal."""
    whole = server.run(*tiny.compress_arguments("whole", device=device))
    assert whole["status"] == 0, server.said()
    for step in STEPS:
        assert any(name.startswith(step) for name, _ in whole["steps"]), step
    return Campaign(server=server, device=device, whole=whole, generator=random.Random(seed))


def check(campaign: Campaign) -> None:
    """Everything that a killed run ended with is what the whole one ended with."""
    whole = campaign.server.folder / "whole"
    expected = tiny.snapshot(whole)
    assert len(expected) >= 3 + 12 + 3 + 4 + 2 + 3
    for ended in campaign.ended:
        assert tiny.snapshot(ended) == expected, ended
        assert [path for path in ended.rglob(".*") if path.name != ".lock"] == []
        spent, at_most = trained(ended), trained(whole)
        assert spent.keys() == at_most.keys()
        assert all(spent[step] <= at_most[step] for step in spent), (spent, at_most)


def trained(run: Path) -> dict[str, int]:
    """Images by step. What was stored just before a kill may be missing, nothing is booked twice."""
    return {spent.step: spent.images for spent in read_costs(run / "account.json")}


@pytest.mark.slow
def test_a_run_killed_five_times_ends_with_the_same_library_front_and_checkpoint(server: Server) -> None:
    campaign = begin(server, tiny.DEVICE, seed=1)
    campaign.at_instants(("train reference", "distill", "finetune"), times=1)
    campaign.at_calls(times=2)
    assert sum(campaign.kills.values()) == 5
    check(campaign)


@pytest.mark.parametrize(
    ("seed", "times"),
    [
        pytest.param(1, 1, marks=pytest.mark.slow),
        *(pytest.param(seed, 5, marks=pytest.mark.faults) for seed in (2, 3)),
    ],
)
def test_kills_at_random_instants_change_nothing_on_a_simulator(
    seed: int, times: int, tmp_path: Path
) -> None:
    tiny.furnish(tmp_path)
    with serving(tmp_path) as server:
        campaign = begin(server, "sim-npu", seed)
        campaign.at_instants(STEPS, times=times)
        campaign.at_calls(times=3 * times)
    print(f"{sum(campaign.kills.values())} kills: {dict(campaign.kills)}; {len(campaign.ended)} runs ended")
    assert sum(campaign.kills.values()) == 10 * times
    assert all(campaign.kills[step or "start"] == times for step in STEPS)
    check(campaign)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with a finished run for two devices."""
    folder = tmp_path_factory.mktemp("devices")
    tiny.furnish(folder)
    done = tiny.run_hwnas(folder, *tiny.compress_arguments("whole"), "--device=picky.toml")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "step",
    [
        "picky: search",
        "steady: block costs",
        "finetune steady",
    ],
)
def test_a_run_for_two_devices_that_is_killed_goes_on_to_the_same(step: str, compared: Path) -> None:
    """In searches side by side, and behind them."""
    out = compared / "".join(filter(str.isalpha, step))
    arguments = [*tiny.compress_arguments(out.name), "--device=picky.toml"]
    assert tiny.run_python(compared, ["killer.py", step, "1", *arguments]).returncode == -9
    with (out / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # its searches hold it until they have ended
    done = tiny.run_hwnas(compared, *arguments)
    assert done.returncode == 0, done.stderr
    assert tiny.snapshot(out) == tiny.snapshot(compared / "whole")
    assert (out / "comparison.json").read_bytes() == (compared / "whole/comparison.json").read_bytes()

"""The account of a run: what is booked, that it goes on, and that damage is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hwnas.compress.emit import cross_device
from hwnas.compress.run import cost_log
from hwnas.compress.run.cost_log import CostLog, read_costs
from hwnas.compress.search import block_costs, record
from hwnas.errors import HwnasError, RunDirectoryError


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that a test sets."""
    now_s = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now_s[0])
    return now_s


def test_laps_add_up_over_processes_and_are_in_the_order_of_the_steps(
    tmp_path: Path, clock: list[float]
) -> None:
    path = tmp_path / "account.json"
    account = CostLog(path)
    clock[0] += 3
    account.record("search", "cpu")
    clock[0] += 2
    account.record("distillation", images=50, of=100, macs=7)
    clock[0] += 10  # what a killed process had not booked is lost
    again = CostLog(path)
    clock[0] += 1
    again.record("distillation", images=50, of=100, macs=9)
    clock[0] += 4
    again.record("search", "npu")
    spent = read_costs(path)
    assert [(s.step, s.device, s.seconds) for s in spent] == [
        ("distillation", None, 3.0),
        ("search", "cpu", 3.0),
        ("search", "npu", 4.0),
    ]
    assert (spent[0].images, spent[0].epochs) == (100, 1.0)
    assert spent[0].training_flops == 3 * 2 * 50 * (7 + 9)


def test_no_account_is_an_empty_one(tmp_path: Path) -> None:
    assert read_costs(tmp_path / "account.json") == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"schema": "hwnas.account/9"}',
        '{"schema": "hwnas.account/1", "spent": [{"step": "sleep"}]}',
    ],
)
def test_a_damaged_account_is_named_before_any_work(tmp_path: Path, text: str) -> None:
    path = tmp_path / "account.json"
    path.write_text(text)
    with pytest.raises(RunDirectoryError, match=r"account\.json") as error:
        CostLog(path)
    assert "remove it" in error.value.fix
    assert path.read_text() == text


def test_it_is_plain_json(tmp_path: Path) -> None:
    CostLog(tmp_path / "account.json").record("finetuning", "cpu", images=4, of=2, macs=5)
    (entry,) = json.loads((tmp_path / "account.json").read_text())["spent"]
    assert entry["epochs"] == 2 and entry["training_flops"] == 120 and entry["seconds"] >= 0


@pytest.mark.parametrize(
    ("file", "schema", "read"),
    [
        ("account.json", cost_log.SCHEMA, lambda run: read_costs(run / "account.json")),
        ("front.json", record.FRONT_SCHEMA, lambda run: record.FrontRecord.read(run, "")),
        ("search.json", record.SEARCH_SCHEMA, lambda run: record.SearchRecord.read(run, "")),
        ("blocks.json", block_costs.BLOCKS_SCHEMA, lambda run: block_costs.BlockCosts.read(run, "")),
        (cross_device.FILE, cross_device.SCHEMA, cross_device.Comparison.read),
    ],
)
def test_a_record_without_its_hash_is_not_what_was_written(
    tmp_path: Path, file: str, schema: str, read: Callable[[Path], object]
) -> None:
    (tmp_path / file).write_text(json.dumps({"schema": schema, "spent": [], "points": []}))
    with pytest.raises(HwnasError, match="is damaged or was changed by hand"):
        read(tmp_path)

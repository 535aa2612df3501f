from __future__ import annotations

from pathlib import Path

import pytest

from hwnas.errors import InputError
from hwnas.files import encode, write_toml
from hwnas.profiles.protocols import QUICK, REPORT, SEARCH, describe, load_protocol, protocol_names


def test_presets_are_found_by_name() -> None:
    assert protocol_names() == ["quick", "search", "report", "adaptive", "once"]
    assert [load_protocol(name).name for name in protocol_names()] == protocol_names()


def test_presets_reach_what_they_promise() -> None:
    assert QUICK.repeats * QUICK.min_runs >= 30
    assert QUICK.repeats * QUICK.min_s >= 0.1
    assert (SEARCH.warmup_s, SEARCH.min_runs, SEARCH.min_s) == (0.5, 50, 1.0)
    assert REPORT.repeats * REPORT.min_runs >= 1024
    assert REPORT.repeats * REPORT.min_s >= 60


def test_a_protocol_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "long.toml"
    write_toml(path, encode(SEARCH) | {"name": "long", "repeats": 5})
    protocol = load_protocol(str(path))
    assert (protocol.name, protocol.repeats) == ("long", 5)
    assert protocol.id != SEARCH.id


@pytest.mark.parametrize(
    ("key", "value"), [("repeats", 0), ("max_repeats", 2), ("min_s", -1.0), ("warmup_s", float("nan"))]
)
def test_a_protocol_that_makes_no_sense_names_the_key(tmp_path: Path, key: str, value: float) -> None:
    path = tmp_path / "wrong.toml"
    write_toml(path, encode(SEARCH) | {key: value})
    with pytest.raises(InputError, match=key):
        load_protocol(str(path))


def test_an_unknown_protocol_gives_the_nearest() -> None:
    with pytest.raises(InputError, match="no protocol 'reports'\n  fix: did you mean report"):
        load_protocol("reports")
    with pytest.raises(InputError) as refusal:
        load_protocol("xyz")
    assert refusal.value.cause == "there is no protocol 'xyz'"


def test_described_in_one_line() -> None:
    assert describe(load_protocol("once")) == "once: one run"
    assert describe(SEARCH) == (
        "search: 0.5 s of warm-up, 3 × at least 50 runs and 1 s, "
        "up to 6 × while they differ by more than 5%; median of the repeats' medians"
    )
    assert "1 s of rest before each" in describe(REPORT)

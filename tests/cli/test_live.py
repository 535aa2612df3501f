"""While a network is measured, what is known so far is told, and an interrupt leaves it there."""

from __future__ import annotations

import os
import re
import signal
from io import StringIO
from pathlib import Path

import pytest
from command_line import Hwnas, OnTerminal
from rich.console import Console

from hwnas import api
from hwnas.cli import output
from hwnas.cli.output import TerminalProgress
from hwnas.devices.base import Device
from hwnas.devices.registry import device_class
from hwnas.ending import Interrupted
from hwnas.measurement import Conditions, Protocol
from hwnas.profiles.live import seconds_left
from hwnas.progress import Progress

NOISY = ("--device", "noisy.toml")
COMMANDS = [
    ("profile", "tinynet:make", "tinynet:seven", *NOISY),
    ("compare", "tinynet:make", "tinynet:seven", *NOISY),
    ("check", "record", "tinynet:make", *NOISY),
    ("check", "run", "tinynet:make", "--baseline", "base.json", *NOISY, "--recorded"),
]


class Listening(Progress):
    def __init__(self) -> None:
        self.known: list[str] = []

    def live(self, text: str) -> None:
        self.known.append(text)


@pytest.fixture
def interrupted(workplace: Path, hwnas: Hwnas, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A device whose user presses the key after some rounds, while its conditions are read."""
    record = ("check", "record", "tinynet:make", *NOISY, "--out", "base.json", "--max-seconds", "1")
    assert hwnas(*record).code == 0
    asked = [0]

    def conditions(self: Device) -> Conditions:
        asked[0] += 1
        if asked[0] == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return Conditions()

    monkeypatch.setattr(device_class("noisy"), "conditions", conditions)
    return workplace


@pytest.mark.parametrize("arguments", COMMANDS)
def test_an_interrupt_shows_what_there_is(
    interrupted: Path, hwnas: Hwnas, arguments: tuple[str, ...]
) -> None:
    done = hwnas(*arguments)
    assert done.code == 130
    assert re.search(r"so far: repeat \d+, \d+ s left at most\ntinynet:\w+.* \d+\.\d+", done.err)
    assert done.err.rstrip().splitlines()[-1].startswith("interrupted")


def test_a_terminal_shows_it_in_one_place(interrupted: Path) -> None:
    done = OnTerminal("profile", "tinynet:make", *NOISY)
    assert done.code == 130
    assert done.err.count("so far: repeat") == 1
    assert "repeat 1," in done.err.split("so far")[0]


def test_a_pipe_is_told_nothing_in_between(hwnas: Hwnas, workplace: Path) -> None:
    done = hwnas("profile", "tinynet:make", *NOISY)
    assert done.code == 0
    assert "repeat 1," not in done.err
    assert "so far" not in done.err


def test_the_last_that_is_told_is_the_result(workplace: Path) -> None:
    progress = Listening()
    models = ["tinynet:make", "tinynet:seven"]
    (rows,) = api.profile_each(models, "noisy.toml", progress=progress, protocol="search")
    *_, last, end = progress.known
    assert end == ""
    for row in rows:
        assert f"{row.model}: {row.to_json()['summary']['latency_ms']['value']:.3f} ms" in last
    progress = Listening()
    result = api.compare("tinynet:make", "tinynet:seven", "noisy.toml", progress=progress)
    *_, last, end = progress.known
    assert end == ""
    assert f"takes {result.ratio.value:.4f} ({result.ratio.low:.4f} … {result.ratio.high:.4f}) of" in last


def test_the_time_left_is_bounded_by_time_and_by_repeats() -> None:
    how = Protocol(
        name="x", warmup_s=0, min_runs=1, min_s=0, repeats=2, max_repeats=10, max_spread=0, max_seconds=60
    )
    assert seconds_left(how, 4, 8.0) == 12.0
    assert seconds_left(how, 4, 50.0) == 10.0
    assert seconds_left(how, 10, 50.0) == 0.0
    assert seconds_left(how, 4, 70.0) == 0.0


def test_a_remark_on_a_bar_is_whole_or_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    shown_at = []
    for width in range(50, 130):
        shown = StringIO()
        terminal = Console(file=shown, force_terminal=True, width=width, legacy_windows=False)
        monkeypatch.setattr(output, "messages", lambda terminal=terminal: terminal)
        with TerminalProgress(moves=False) as progress:
            progress.advance("finetune predictor networks", 3, 4)
            progress.advance("distill", 12345, 67890, "nsr 0.123456")
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.getvalue())
        assert "…" not in text
        assert "12345/67890" in text
        for found in re.findall(r"nsr[^\r\n]*", text):
            assert found.strip() == "nsr 0.123456"
            shown_at.append(width)
    assert 80 < min(shown_at) < 100
    assert set(shown_at) == set(range(min(shown_at), 130))


def test_what_ended_in_order_is_not_told_again(capsys: pytest.CaptureFixture[str]) -> None:
    with TerminalProgress() as progress:
        progress.live("repeat 1")
        progress.live("")
    with pytest.raises(Interrupted), TerminalProgress() as progress:
        raise Interrupted
    assert capsys.readouterr().err == ""

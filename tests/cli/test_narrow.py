"""On a terminal of 80 columns no figure is cut, and none is broken over two lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
import typer
from command_line import Hwnas, OnTerminal
from rich.cells import cell_len

from hwnas.cli.main import app

COLUMNS = 80
MODELLED = ("--device", "steady.toml")
WHOLE = re.compile(r"[^\s()\[\],;:]*\d[^\s()\[\],;:]*")
BEFORE_A_RUN: dict[str, list[tuple[str, ...]]] = {
    "": [()],
    "devices": [()],
    "doctor": [()],
    "devices doctor": [("s20-gpu",)],
    "space": [("tinynet:make",)],
    "partition": [("tinynet:make",)],
    "profile": [
        ("tinynet:make", "tinynet:seven", *MODELLED),
        ("tinynet:make", *MODELLED, "--blocks"),
        ("mobilenetv2_050", "--device", "sim-npu", "--explain"),
    ],
    "compare": [("tinynet:make", "tinynet:seven", *MODELLED)],
    "check record": [("tinynet:make", *MODELLED)],
    "check run": [(), ("--recorded",)],
    "history show": [("tinynet:make",)],
    "history export": [("all.jsonl",)],
    "history import": [("all.jsonl",)],
}
WITH_A_RUN: dict[str, list[tuple[str, ...]]] = {
    "compress": [
        tuple(tiny.compress_arguments("runs/a", "--dry-run")[1:]),
        tuple(tiny.compress_arguments("runs/a")[1:]),
        tuple(tiny.compress_arguments("runs/a", "--device=picky.toml")[1:]),
        tuple(
            tiny.compress_arguments("runs/a", quality="predictor", predictor_networks=4, predictor_epochs=1)[
                1:
            ]
        ),
    ],
    "plan": [tuple(tiny.compress_arguments("runs/a")[1:])],
    "predict": [("runs/a", "0-1-1-0")],
    "evaluate": [("runs/a/reference", "--device=cpu-1", "--data=digits", "--allow-code")],
    "explore": [("runs/a", "--line", "own=own=yes", "--device", "steady")],
    "similarity": [("runs/a", "--device", "steady", "--allow-code")],
    "extend": [("runs/a", "--space", "donna", "--candidates", "1")],
    "status": [("runs/a",)],
    "report": [("runs/a",)],
    "batch": [("plan.toml", "--dry-run")],
}

CUT = re.compile(r"[\d.,]…|…[\d.]")


def commands(command: object, path: str = "") -> Iterator[str]:
    """Every command that shows something."""
    inner = getattr(command, "commands", {})
    if not inner or getattr(command, "invoke_without_command", False):
        yield path
    for name, each in inner.items():
        yield from commands(each, f"{path} {name}".strip())


def test_every_command_is_looked_at() -> None:
    changing = {"devices setup"}  # it downloads and builds
    shown = set(commands(typer.main.get_command(app)))
    assert set(BEFORE_A_RUN) | set(WITH_A_RUN) | changing == shown


def require_whole(text: str) -> None:
    """No ellipsis stands for a part of a figure, and no figure lies across the right edge."""
    for line in text.splitlines():
        assert not CUT.search(line), line
        if cell_len(line) > COLUMNS:
            edges = range(COLUMNS, len(line), COLUMNS)
            assert not any(line[edge - 1].isdigit() and line[edge].isdigit() for edge in edges), line


def require_known(narrow: str, wide: str) -> None:
    """What looks like a figure stands in the same words where there is room for everything."""
    assert set(WHOLE.findall(narrow)) <= set(WHOLE.findall(wide))


def look(hwnas: Hwnas, command: str, arguments: tuple[str, ...], *, repeats: bool) -> None:
    narrow = OnTerminal(*command.split(), *arguments)
    assert narrow.out
    assert "Traceback" not in narrow.err
    require_whole(narrow.out)
    for line in narrow.err.replace("\r", "\n").splitlines():
        assert not CUT.search(line), line
    if repeats:
        require_known(narrow.out, hwnas(*command.split(), *arguments).out)


def test_commands_without_a_run(hwnas: Hwnas, workplace: Path) -> None:
    for command, ways in BEFORE_A_RUN.items():
        for arguments in ways:
            look(hwnas, command, arguments, repeats=command not in ("profile", "history import"))


@pytest.mark.slow
def test_commands_with_a_run(hwnas: Hwnas, workplace: Path) -> None:
    (workplace / "plan.toml").write_text(
        'devices = ["steady.toml"]\noptions = { data = "digits" }\n[[references]]\nmodel = "tinynet:make"\n'
    )
    for command, ways in WITH_A_RUN.items():
        for arguments in ways:
            look(hwnas, command, arguments, repeats=not is_timed(command, arguments))


def is_timed(command: str, arguments: tuple[str, ...]) -> bool:
    """Whether it says what differs from call to call: how fast this machine trains, what was left to do."""
    return command in ("plan", "extend", "evaluate") or "--dry-run" in arguments


def test_a_figure_that_is_cut_is_seen() -> None:
    with pytest.raises(AssertionError):
        require_whole("net  31.…")
    with pytest.raises(AssertionError):
        require_whole("x" * 79 + "12.5")
    with pytest.raises(AssertionError):
        require_known("31.", "31.2 ms")

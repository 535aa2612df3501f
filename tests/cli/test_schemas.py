"""Every JSON document that hwnas prints or writes says what it is, and docs/json.md knows it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import typer
from command_line import Hwnas

from hwnas.cli.main import app

DOCUMENTED = (Path(__file__).parents[2] / "docs" / "json.md").read_text()


def checked(plain: Any) -> None:
    """An object with a documented schema, or a list of such."""
    for document in plain if isinstance(plain, list) else [plain]:
        name = document["schema"]
        assert re.fullmatch(r"hwnas\.[a-z]+/\d+", name)
        assert name.removeprefix("hwnas.") in DOCUMENTED


def commands(command: Any, path: str = "") -> Iterator[str]:
    """Every command with --json."""
    if any("--json" in parameter.opts for parameter in command.params):
        yield path
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{path} {name}".strip())


PLAN = """
devices = ["steady.toml"]
options = { {OPTIONS} }
[[references]]
model = "tinynet:make"
"""


@pytest.mark.slow
def test_every_document_has_a_schema(hwnas: Hwnas, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands in an order in which each finds what it needs; nothing that has --json is left out."""
    from os import pathsep

    monkeypatch.setenv("PYTHONPATH", pathsep.join((str(workplace), str(tiny.ROOT))))
    compress = tiny.compress_arguments("runs/a")[1:]
    options = dict(argument.removeprefix("--").split("=") for argument in compress[1:])
    skipped = ("device", "out")
    written = ", ".join(
        f"{key} = {value}" if value.isdecimal() else f'{key} = "{value}"'
        for key, value in options.items()
        if key not in skipped
    )
    (workplace / "plan.toml").write_text(PLAN.replace("{OPTIONS}", written))
    (workplace / "net.toml").write_text('name = "net"\ndevice = "android"\ndescription = "no phone"\n')
    profile = ("tinynet:make", "--device", "steady.toml")
    calls: dict[str, list[tuple[str, ...]]] = {
        "devices": [()],
        "doctor": [()],
        "devices doctor": [("s20-gpu",)],
        "space": [("tinynet:make",)],
        "partition": [("tinynet:make",)],
        "profile": [profile, ("tinynet:make", "tinynet:seeded", *profile[1:])],
        "compare": [("tinynet:make", "tinynet:seeded", "--device", "steady.toml")],
        "history show": [("tinynet:make",)],
        "history export": [("all.jsonl",)],
        "history import": [("all.jsonl",)],
        "check record": [profile],
        "check run": [()],
        "compress": [
            (*compress, "--dry-run"),
            (*compress, "--device=picky.toml", "--dry-run"),
            (*compress, "--quality=predictor", "--predictor-networks=4", "--predictor-epochs=1"),
            (*compress, "--device=picky.toml"),
        ],
        "plan": [(*compress, "--preset=donna")],
        "similarity": [("runs/a", "--device", "steady", "--allow-code")],
        "explore": [("runs/a", "--line", "own=own=yes", "--device", "steady")],
        "predict": [("runs/a", "0-1-1-0")],
        "evaluate": [("runs/a/reference", "--device=cpu-1", "--data=digits", "--allow-code")],
        "extend": [("runs/a", "--space", "donna", "--candidates", "1")],
        "status": [("runs/a",)],
        "report": [("runs/a",)],
        "batch": [("plan.toml", "--dry-run"), ("plan.toml",)],
    }
    assert set(calls) == set(commands(typer.main.get_command(app)))
    for command, ways in calls.items():
        for arguments in ways:
            done = hwnas(*command.split(), *arguments, "--json")
            assert done.out, (command, arguments, done.err)
            checked(json.loads(done.out))
    for line in (workplace / "all.jsonl").read_text().splitlines():
        checked(json.loads(line))
    files = [file for file in workplace.rglob("*.json") if not file.name.startswith(".")]
    assert len(files) > 12
    for file in files:
        checked(json.loads(file.read_text()))

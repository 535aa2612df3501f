"""A rich run (two devices, a predictor, an extension, checkpoints), and commands on spoilt copies of it."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tiny
from kill_campaign import Server

MORE = """
name = "more"
description = "kernels of 7"
smaller = false
[properties]
kernel = [7]
expand = [1]
depth = [1]
activation = ["hswish"]
se = [false]
layer = ["depthwise"]
width = [1.0]
"""
BOTH = tiny.compress_arguments("case", "--device=picky.toml", "--json")
ONE = tiny.compress_arguments("case", "--json")
BY_PREDICTOR = tiny.compress_arguments(
    "case", "--json", quality="predictor", predictor_networks=5, predictor_epochs=1
)
EXTEND = ["extend", "case", "--space=more.toml", "--json"]
PROFILE = ["profile", "case/checkpoints/steady-knee", "--device=steady.toml", "--json"]
HISTORY = ["history", "case/checkpoints/steady-knee", "--json"]
Answer = dict[str, Any]
"""What a command said and wrote, without what differs from call to call; files by their path in the run."""


@dataclass(frozen=True)
class Command:
    """A command on the run `case` of a furnished folder.

    Attributes:
        answer: made of the folder and of what the command printed on stdout.
    """

    arguments: Sequence[str]
    answer: Callable[[Path, str], Answer]


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


def _printed(_: Path, out: str) -> Answer:
    return {"printed": json.loads(out)}


def _planned(_: Path, out: str) -> Answer:
    """Without this machine's speed."""
    plain = json.loads(out)
    return {"printed": (plain["training"]["steps"], plain["devices"])}


def _measured(_: Path, out: str) -> Answer:
    return {"printed": [(row["summary"], row["measurement"]["network_hash"]) for row in json.loads(out)]}


def _pages(folder: Path, _: str) -> Answer:
    return {str(path): path.read_bytes() for path in sorted((folder / "case").rglob("*.html"))}


def _result(folder: Path, out: str) -> Answer:
    return {"printed": json.loads(out), **tiny.snapshot(folder / "case")}


def _extended(folder: Path, _: str) -> Answer:
    return dict(tiny.snapshot(folder / "case"))


def _baseline(folder: Path, _: str) -> Answer:
    return {"networks": json.loads((folder / "baseline.json").read_text())["networks"]}


def _imported(_: Path, out: str) -> Answer:
    found = json.loads(out)
    return {"there": found["added"] + found["known"]}


COMMANDS = {
    "predict": Command(["predict", "case", "0-1-1-0", "0-0-0-0", "--json"], _printed),
    "report": Command(["report", "case"], _pages),
    "profile": Command(PROFILE, _measured),
    "profile reference": Command(
        ["profile", "case/reference/model.onnx", "--device=steady.toml", "--json"], _measured
    ),
    "plan from checkpoint": Command(
        ["compress", "case/checkpoints/steady-knee", "--data=digits", "--device=steady.toml", "--allow-code",
         "--out=other", "--dry-run", "--json"], _planned
    ),
    "compress": Command(ONE, _result),
    "compress both": Command(BOTH, _result),
    "compress by predictor": Command(BY_PREDICTOR, _result),
    "extend": Command(EXTEND, _extended),
    "history": Command(HISTORY, _printed),
    "import": Command(["history", "import", "export.jsonl", "--json"], _imported),
    "record": Command(
        ["check", "record", "case/checkpoints/steady-knee", "--device=steady.toml", "--out=baseline.json"],
        _baseline,
    ),
}  # fmt: skip


@dataclass
class Rich:
    """A folder with a rich run and the stages on the way to it.

    Attributes:
        answers: of commands on a run that nothing happened to, by command and stage.
    """

    server: Server
    answers: dict[tuple[str, str], Answer] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where everything lies."""
        return self.server.folder

    def make(self) -> None:
        """Make the run, and keep a copy of it after each stage."""
        (self.folder / "more.toml").write_text(MORE)
        for stage, name in (
            ("searched", "compress both"),
            ("predicting", "compress by predictor"),
            ("extended", "extend"),
            ("whole", "compress by predictor"),
            ("whole", "report"),
            ("whole", "profile"),
        ):
            self.done(name)
            shutil.copytree(self.folder / "case", self.folder / stage, dirs_exist_ok=True)
        shutil.copytree(self.folder / "case-home", self.folder / "whole-home")
        done = self.call(["history", "export", "export.jsonl"])
        assert done.code == 0, done.err

    def begin(self, stage: str, home: bool = False) -> None:
        """The run `case` as it was after a stage, with an empty history or the whole one."""
        for name in ("case", "case-home", "other"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        (self.folder / "baseline.json").unlink(missing_ok=True)
        if stage:
            shutil.copytree(self.folder / stage, self.folder / "case")
        if home:
            shutil.copytree(self.folder / "whole-home", self.folder / "case-home")

    def call(self, arguments: Sequence[str], **where: Any) -> Done:
        """A command in a child of the server; `where` says how it is to be killed or limited."""
        out, err = self.folder / "out", self.folder / "err"
        where |= {"out": str(out), "err": str(err)}
        where["environment"] = {"HWNAS_HOME": str(self.folder / "case-home")}
        answer = self.server.run(*arguments, **where)
        return Done(answer["status"], out.read_text(errors="replace"), err.read_text(errors="replace"))

    def done(self, name: str) -> Answer:
        """The answer of a command that must succeed."""
        command = COMMANDS[name]
        done = self.call(command.arguments)
        assert done.code == 0, (name, done.err, done.out[-500:])
        return command.answer(self.folder, done.out)

    def expected(self, name: str, stage: str) -> Answer:
        """The answer of a command where nothing happened."""
        if (name, stage) not in self.answers:
            self.begin(stage, home=name == "history")
            self.answers[name, stage] = self.done(name)
        return self.answers[name, stage]

    def leftovers(self) -> list[Path]:
        """What a process that ended should not have left."""
        hidden = [path for path in (self.folder / "case").rglob(".*") if path.name != ".lock"]
        return hidden + list(self.folder.glob("**/*.part"))


def spoil(path: Path, generator: random.Random) -> str:
    """Change a file as disks do: one bit, a run of zeros, or its end lost. What was done."""
    before = path.read_bytes()
    while True:
        content = bytearray(before)
        place = generator.randrange(len(content))
        kind = generator.choice(["bit", "bit", "zeros", "end"])
        if kind == "bit":
            content[place] ^= 1 << generator.randrange(8)
        elif kind == "zeros":
            content[place : place + 64] = bytes(min(64, len(content) - place))
        else:
            del content[place:]
        if content != before:
            path.write_bytes(content)
            return f"{kind} at {place} of {path}"

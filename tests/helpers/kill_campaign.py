"""Runs that are killed at instants drawn from a seed, again and again, until one ends by itself."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from tiny import compress_arguments, places

STEPS = ("", "check exports", "train reference", "distill", "block costs", "search", "finetune")
"""By which names of steps start; the empty one is the time before the first."""
KILLED = -9


@dataclass
class Server:
    """`kill_server.py`, which runs hwnas in forked processes."""

    folder: Path
    process: subprocess.Popen[str]

    def run(self, *arguments: str, **where: Any) -> dict[str, Any]:
        """One run to its end, or to where it is killed: its exit status, its steps, its seconds."""
        assert self.process.stdin and self.process.stdout
        order = {"arguments": arguments, "out": str(self.folder / "said")} | where
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def said(self) -> str:
        """What the last run printed."""
        return (self.folder / "said").read_text(errors="replace")


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A server in a furnished folder."""
    with subprocess.Popen(
        [sys.executable, "kill_server.py"],
        cwd=folder,
        env=places(folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Server(folder, process)
        finally:
            assert process.stdin
            process.stdin.close()


@dataclass
class Campaign:
    """Kills of one command in run directories of their own.

    Attributes:
        whole: the answer of a run that nobody killed.
        kills: how often each step was hit.
        ended: run directories whose last run ended by itself.
    """

    server: Server
    device: str
    whole: dict[str, Any]
    generator: random.Random
    kills: Counter[str] = field(default_factory=Counter)
    ended: list[Path] = field(default_factory=list)
    name: str = "killed-0"

    def at_instants(self, steps: Sequence[str], times: int) -> None:
        """Kill in each of the steps so many times, at an instant between two of its signs of life."""
        for step in steps:
            before = sum(self.kills.values())
            while sum(self.kills.values()) < before + times:
                # A run that goes on has less to do than a whole one: its first half is always reached.
                nth = self.generator.randint(1, max(1, self._count(step) // 2)) if step else 0
                wait_s = self.generator.random() * self._pause_s(step)
                self._once(step or "start", step=step, nth=nth, wait_s=wait_s)
        self._end()

    def at_calls(self, times: int) -> None:
        """Kill at the nth operation that changes a file, so many times."""
        before = sum(self.kills.values())
        while sum(self.kills.values()) < before + times:
            self._once("an operation on a file", call=self.generator.randint(1, 60))
        self._end()

    def _once(self, hit: str, /, **where: Any) -> None:
        answer = self.server.run(*compress_arguments(self.name, device=self.device), **where)
        if answer["status"] == KILLED:
            self.kills[hit] += 1
            return
        assert answer["status"] == 0, self.server.said()
        self._ended()

    def _end(self) -> None:
        """Let the run that was killed last go to its end."""
        answer = self.server.run(*compress_arguments(self.name, device=self.device))
        assert answer["status"] == 0, self.server.said()
        self._ended()

    def _ended(self) -> None:
        self.ended.append(self.server.folder / self.name)
        self.name = f"killed-{len(self.ended)}"

    def _count(self, step: str) -> int:
        return sum(name.startswith(step) for name, _ in self.whole["steps"])

    def _pause_s(self, step: str) -> float:
        """The longest time from a sign of life of a step to the next one, or to the end."""
        steps = [*self.whole["steps"], ("end", self.whole["seconds"])]
        if not step:
            return float(steps[0][1])
        pauses = [after - at for (name, at), (_, after) in pairwise(steps) if name.startswith(step)]
        return float(max(pauses))

"""Run hwnas and end it with a signal the NTH time that a step whose name starts with STEP advances."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Any

from hwnas.cli.main import main
from hwnas.cli.output import TerminalProgress

step, nth, *arguments = sys.argv[1:]
number = int(os.environ.get("KILLER_SIGNAL", signal.SIGKILL))


class Killer(TerminalProgress):
    calls = 0

    def advance(self, name: str, done: int, total: int, remark: str = "") -> None:
        self.calls += name.startswith(step)
        if name.startswith(step) and self.calls == int(nth):
            os.kill(os.getpid(), number)


command: Any = importlib.import_module("hwnas.cli.compress")
command.TerminalProgress = Killer
sys.argv = ["hwnas", *arguments]
main()

"""Runs of hwnas in forked children, which are ended by SIGKILL at the instants that stdin names.

A line of stdin is JSON: `arguments` of hwnas, `out` (a file for what it prints; `err`, where given, for what
goes to stderr), `environment` (changes of it), `memory` (bytes that it may take besides), and where it ends:
once `step` (a prefix) has advanced `nth` times and `wait_s` more seconds are over, or at the `call`-th
operation on a file. A line of stdout is JSON: the exit status as of `subprocess`, and the steps as
[name, seconds].
Forking saves the import of torch, which takes longer than a whole run of a tiny network.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

import onnxruntime  # noqa: F401 - imported once, for all children
import pymoo.optimize  # noqa: F401
import timm  # noqa: F401
import torch._dynamo
import torch.onnx  # noqa: F401

from hwnas.cli import main as command_line
from hwnas.cli.output import TerminalProgress

for name in ("pipeline", "extend", "report", "emit.emit"):
    if importlib.util.find_spec(f"hwnas.compress.{name}"):
        importlib.import_module(f"hwnas.compress.{name}")
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "sqlite3.connect", "tempfile.mkstemp")


class Counter:
    """Ends the process at the nth operation that changes a file."""

    def __init__(self, nth: int) -> None:
        self.left = nth

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        writes = (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        )
        if writes or event in CHANGES:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def run(order: dict[str, Any], pipe: int) -> None:
    """The child: hwnas, which tells each step to the pipe."""

    class Telling(TerminalProgress):
        def advance(self, name: str, done: int, total: int, remark: str = "") -> None:
            os.write(pipe, f"{name}\n".encode())

    with Path(order["out"]).open("wb") as out, Path(order.get("err") or os.devnull).open("wb") as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno() if "err" in order else out.fileno(), 2)
    os.environ.update(order.get("environment", {}))
    if "memory" in order:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + order["memory"]
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    command: Any = importlib.import_module("hwnas.cli.compress")
    command.TerminalProgress = Telling
    sys.argv = ["hwnas", *order["arguments"]]
    if "call" in order:
        sys.addaudithook(Counter(order["call"]))
    code = 1
    try:
        command_line.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def watch(child: int, pipe: int, order: dict[str, Any]) -> list[tuple[str, float]]:
    """The steps of a child until it ends; it is killed where the order says so."""
    begun_s = time.monotonic()
    steps: list[tuple[str, float]] = []
    kill_s = begun_s + order["wait_s"] if order.get("nth") == 0 else None
    text = b""
    while True:
        left_s = None if kill_s is None else max(0.0, kill_s - time.monotonic())
        ready, _, _ = select.select([pipe], [], [], left_s)
        if not ready:
            os.kill(child, signal.SIGKILL)
            kill_s = None
            continue
        got = os.read(pipe, 4096)
        if not got:
            return steps
        *lines, text = (text + got).split(b"\n")
        steps += [(line.decode(), time.monotonic() - begun_s) for line in lines]
        reached = sum(name.startswith(order.get("step", "")) for name, _ in steps)
        if "nth" in order and kill_s is None and reached >= order["nth"]:
            kill_s = time.monotonic() + order["wait_s"]


for line in sys.stdin:
    order = json.loads(line)
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(readable)
        run(order, writable)
    os.close(writable)
    begun_s = time.monotonic()
    steps = watch(child, readable, order)
    os.close(readable)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps({"status": status, "steps": steps, "seconds": time.monotonic() - begun_s}), flush=True)

"""Code that does not return: where it is imported, builds, within forward(), training, in a task."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, cast

import tinynet  # type: ignore[import-not-found]  # it lies beside this file
import typer
from torch import Tensor, nn

from hwnas.compress.tasks.classification import CLASSIFICATION


class Own(BaseException):
    pass


def exits() -> None:
    sys.exit(143)


def passes() -> None:
    sys.exit(0)


def quits() -> None:
    exit("enough")


def leaves() -> None:
    os._exit(7)


def aborts() -> None:
    os.abort()


def interrupts() -> None:
    raise KeyboardInterrupt


def stops() -> None:
    raise Own("stop")


def alarms() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    signal.pause()


def works() -> None:
    signal.setitimer(signal.ITIMER_PROF, 0.01)
    while True:
        pass


def threads() -> None:
    thread = threading.Thread(target=lambda: os._exit(7))
    thread.start()
    thread.join()
    signal.pause()


def parses() -> None:
    import argparse

    argparse.ArgumentParser().parse_args(["--unknown"])


def forks() -> None:
    child = os.fork()
    if not child:
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def typed() -> None:
    raise typer.Exit(0)


class Rude(nn.Module):
    def __init__(self, way: Callable[[], None], training_only: bool) -> None:
        super().__init__()
        self.way, self.training_only = way, training_only

    def forward(self, x: Tensor) -> Tensor:
        if self.training or not self.training_only:
            self.way()
        return x


def make(way: Callable[[], None], training_only: bool) -> nn.Module:
    module = tinynet.make()
    module.stem = nn.Sequential(module.stem, Rude(way, training_only))
    return cast(nn.Module, module)


def __getattr__(name: str) -> Any:
    place, _, way = name.partition("_")
    way = globals()[way]
    if place == "forward":
        return lambda: make(way, False)
    if place == "training":
        return lambda: make(way, True)
    if place == "building":
        return way
    if place == "importing":
        return way()
    if place == "task":
        from dataclasses import replace

        return replace(CLASSIFICATION, name="rude", agreement=lambda *_: way())
    raise AttributeError(name)

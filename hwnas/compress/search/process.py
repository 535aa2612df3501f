"""One device's search in a process of its own, beside those of other devices.

The process is `python -m hwnas.compress.search.process`. It is sent one line of JSON, and answers with lines
of JSON: how far it is, and at the end `done`, or a failure with its fix. What it finds lies in the
device's folder of the run directory. It ends when its input does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from hwnas import processes
from hwnas.compress.library.device_run import DeviceRun
from hwnas.compress.library.open_run import join_run, open_inputs
from hwnas.compress.quality.model import prepare_quality
from hwnas.compress.search.search import search_device
from hwnas.compress.search.target import target_of
from hwnas.compress.settings import LibrarySettings, SearchSettings
from hwnas.ending import contained, explained
from hwnas.errors import HwnasError
from hwnas.files import decode, encode
from hwnas.measurement import STRICT
from hwnas.progress import Progress
from hwnas.ranges import Count


@dataclass(frozen=True, kw_only=True)
class _Question:
    """The search that is asked for; `lock` is the descriptor of the run directory's lock."""

    __pydantic_config__ = STRICT
    library: LibrarySettings
    search: SearchSettings
    out: str
    lock: Count
    cluster: str
    allow_code: bool


def search_apart(device: DeviceRun, started: Callable[[subprocess.Popen[bytes]], None]) -> HwnasError | None:
    """Search for one device in another process, and return why that failed if it did.

    The run's progress is told how far it is; everything else is said when the search is gone through again.

    Args:
        started: given the process, so that it can be terminated.
    """
    run = device.run
    question = _Question(
        library=run.settings,
        search=device.search,
        out=str(run.directory.path),
        lock=run.directory.lock,
        cluster=device.target.cluster,
        allow_code=run.allow_code,
    )
    answer: dict[str, Any] = {}
    process = processes.start(__name__, inherited=[run.directory.lock])
    started(process)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(encode(question)).encode() + b"\n")
        process.stdin.flush()
        for line in process.stdout:
            answer = json.loads(line)
            if "advance" in answer:
                step, *rest = answer["advance"]
                run.progress.advance(f"{device.name}: {step}", *rest)
    except BrokenPipeError:
        pass
    finally:
        processes.end(process)
    if "failed" in answer:
        return HwnasError(*answer["failed"])
    if "done" in answer:
        return None
    return HwnasError(
        f"its search ended with exit code {process.returncode}",
        "see its messages above, and give the same command again",
    )


class _Reporter(Progress):
    """Tells the process that asked."""

    def __init__(self, answers: BinaryIO) -> None:
        self._answers = answers

    def send(self, **answer: Any) -> None:
        self._answers.write(json.dumps(answer).encode() + b"\n")
        self._answers.flush()

    def advance(self, step: str, done: int, total: int, remark: str = "") -> None:
        self.send(advance=[step, done, total, remark])


def main() -> None:
    """Do what the first line of the input asks for."""
    reporter = _Reporter(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # what a library prints is no answer
    question = decode(_Question, json.loads(sys.stdin.buffer.readline()), "the question")
    with processes.ending_with_parent():
        _answer(question, reporter)


def _answer(question: _Question, reporter: _Reporter) -> None:
    try:
        with contained():
            _search(question, reporter)
    except Exception as error:
        failure = explained(error)
        reporter.send(failed=[failure.cause, failure.fix])
    else:
        reporter.send(done=True)


def _search(question: _Question, reporter: _Reporter) -> None:
    inputs = open_inputs(question.library, Progress(), allow_code=question.allow_code)
    with join_run(inputs, Path(question.out), question.lock, reporter) as run:
        target = target_of(question.search, question.cluster)
        device = DeviceRun(run=run, search=question.search, target=target)
        search_device(device, prepare_quality(device))


if __name__ == "__main__":
    main()

"""The runner on the phone: started once, it takes one job after the other."""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from hwnas.devices.android.adb import Link, LinkLost, Process
from hwnas.errors import DeviceError
from hwnas.files import hwnas_home, sha256

if TYPE_CHECKING:
    import numpy as np

LIFETIME_S = 3600  # after which the phone ends the runner, whatever became of us; it is started anew before
MARKER = "fixed-performance"
SWITCH = "cmd power set-fixed-performance-mode-enabled"
OUTPUTS = "outputs.part"
DSP_PLACES = "/vendor/dsp/cdsp;/vendor/lib/rfsa/adsp;/system/lib/rfsa/adsp"


class RunnerDied(Exception):
    """The runner ended in the middle of a job."""


class JobFailed(Exception):
    """ONNX Runtime refused what a job asked for."""


class Runner:
    """A running runner.

    Attributes:
        version: ONNX Runtime's.
    """

    def __init__(self, link: Link, folder: str) -> None:
        self._link = link
        self._work = f"{folder}/work"
        self._stack = ExitStack()
        self._process: Process | None = None
        self._ends_s = 0.0
        self._jobs = 0
        self.version = ""

    def claim(self) -> None:
        """End a runner that a killed process of this user left behind, before anything is touched.

        Raises:
            DeviceError: another computer uses the phone.
            LinkLost: the phone does not answer.
        """
        busy = "( flock -n 9; test $? = 1 ) 9< runner.lock"
        owner = ""
        for _ in range(5):
            answer = self._link.shell(
                f"cd {shlex.quote(self._work)} && test -e runner.lock && {busy} && cat owner"
            )
            if answer.code != 0:
                return
            owner, _, pid = answer.output.strip().rpartition(" ")
            if owner != _owner() or not pid.isdecimal():
                break
            self._link.shell(f"kill -9 {pid}; sleep 0.2")
        raise DeviceError(
            f"phone {self._link.serial} is in use by hwnas on another computer or account ({owner})",
            "wait until it has ended; its runner ends by itself within the hour",
        )

    def start(
        self, library_folder: str, executable: str, fixed_performance: bool, settings: Sequence[str]
    ) -> None:
        """Start it.

        Args:
            settings: the lines that every graph is loaded with.

        Raises:
            DeviceError: it does not start.
            LinkLost: the phone does not answer.
        """
        if not self._start(library_folder, executable, fixed_performance):
            raise self._refused()
        for line in settings:
            self._sent(line)

    def _start(self, library_folder: str, executable: str, fixed_performance: bool) -> bool:
        """Whether it runs."""
        self.stop()
        variables = {
            "LD_LIBRARY_PATH": library_folder,
            "ADSP_LIBRARY_PATH": f"{library_folder};{DSP_PLACES}",
            "TMPDIR": self._work,
        }
        given = " ".join(f"{key}={shlex.quote(value)}" for key, value in variables.items())
        library = shlex.quote(f"{library_folder}/libonnxruntime.so")
        command = f"{given} timeout -s KILL {LIFETIME_S} {shlex.quote(executable)} {library}"
        if fixed_performance:
            # The shell outlives a lost link and switches the mode off; the marker is for one that does not.
            command = (
                f"trap '' HUP; touch ../{MARKER}; {SWITCH} true >/dev/null; {command}; code=$?; "
                f"{SWITCH} false >/dev/null && rm -f ../{MARKER}; exit $code"
            )
        command = f"cd {shlex.quote(self._work)} && {command}"
        process = self._stack.enter_context(self._link.process(command, LIFETIME_S))
        self._process = process
        self._ends_s = time.monotonic() + LIFETIME_S
        ready = process.line(30)
        if ready is None or not ready.startswith("ready "):
            return False
        _, pid, self.version = ready.split(" ", 2)
        self._link.shell(f"echo {shlex.quote(f'{_owner()} {pid}')} > {self._quoted('owner')}")
        return True

    def stop(self) -> None:
        """End it: it sees the end of its stdin."""
        self._process = None
        self._stack.close()

    def restore_power_mode(self) -> None:
        """Switch fixed-performance mode off where we left it on, however that came about.

        The shell of a runner that has just ended does so itself; if it came late it would switch off what the
        next runner has switched on. So it is waited for, and only then done in its place.

        Raises:
            LinkLost: the phone does not answer.
        """
        marker = f"../{MARKER}"
        wait = f"for turn in 1 2 3 4 5 6 7 8 9 10; do test -e {marker} || break; sleep 0.2; done"
        restore = f"test -e {marker} && {SWITCH} false && rm -f {marker}"
        self._link.shell(f"cd {shlex.quote(self._work)} && {{ {wait}; {restore}; }}")

    @property
    def runs(self) -> bool:
        """Whether it may be asked, and will live for another job."""
        return self._process is not None and time.monotonic() < self._ends_s - LIFETIME_S / 4

    def load(self, slot: int, graph: str, limit_s: float) -> dict[str, Any]:
        """Load a graph file into a slot; `load_ms`, `placement` and more.

        Raises:
            JobFailed, RunnerDied, LinkLost: as they say.
        """
        return self._job(f"load\t{slot}\t{graph}\t{round(limit_s)}", limit_s)

    def run(self, slot: int, runs: int, seconds: float, limit_s: float) -> dict[str, Any]:
        """Run a loaded graph; `samples_ms`. Raises as `load` does."""
        return self._job(f"run\t{slot}\t{runs}\t{seconds:.6f}\t{round(limit_s)}", limit_s)

    def infer(self, slot: int, inputs: str, limit_s: float) -> list[list[np.ndarray[Any, Any]]]:
        """Run a loaded graph on the numbers of a file; the outputs of each run. Raises as `load` does.

        Args:
            inputs: the file's name in the runner's folder: the numbers of all inputs, run by run.
        """
        import numpy as np

        job = f"infer\t{slot}\t{inputs}\t{OUTPUTS}\t{round(limit_s)}"
        told = self._job(job, limit_s)
        shapes = [tuple(shape) for shape in told["shapes"]]
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        numbers = np.frombuffer(self._link.read(f"{self._work}/{OUTPUTS}", limit_s), np.float32)
        if len(numbers) != told["runs"] * ends[-1]:
            raise LinkLost(f"{len(numbers)} numbers came of {told['runs']} runs with outputs of {ends[-1]}")
        return [
            [piece.reshape(shape) for piece, shape in zip(np.split(run, ends[:-1]), shapes, strict=True)]
            for run in numbers.reshape(told["runs"], -1)
        ]

    def release(self, slot: int) -> None:
        """Free a slot. Raises as `load` does."""
        self._done(f"release\t{slot}", 30)

    def _done(self, job: str, limit_s: float) -> str:
        """Do a job; the name of its result, a file on the phone."""
        self._jobs += 1
        name = f"{self._jobs}.json"
        self._sent(f"{job}\t{name}")
        process = self._running
        answer = process.line(limit_s + 10)
        if answer is None:
            self.stop()
            raise RunnerDied(_death(process, limit_s))
        if answer != f"done {name}":
            raise LinkLost(f"the runner answered {answer!r}")
        return name

    def _job(self, job: str, limit_s: float) -> dict[str, Any]:
        name = self._done(job, limit_s)
        path = self._quoted(name)
        file = self._link.shell(f"cat {path} && rm {path}", limit_s=60)
        try:
            result: dict[str, Any] = json.loads(file.output)
        except ValueError:
            raise LinkLost(f"the result {name} is not there: {file.errors}") from None
        if "error" in result:
            raise JobFailed(result["error"])
        return result

    def _sent(self, line: str) -> None:
        self._running.send(f"{line}\n")

    @property
    def _running(self) -> Process:
        if self._process is None:
            raise LinkLost("the runner does not run")
        return self._process

    def _quoted(self, name: str) -> str:
        return shlex.quote(f"{self._work}/{name}")

    def _refused(self) -> DeviceError:
        process = self._process
        self.stop()
        reason = (process.errors if process else "") or "it said nothing"
        return DeviceError(
            f"the runner does not start on phone {self._link.serial}: {reason.splitlines()[-1]}",
            "libraries and runner must be built for this phone: hwnas devices doctor NAME",
        )


def settings_lines(
    threads: int, session: Mapping[str, str], provider: str, plugin: str, options: Mapping[str, str]
) -> list[str]:
    """What a runner is told before the first graph."""
    lines = [f"threads\t{threads}", *(f"session\t{key}\t{value}" for key, value in session.items())]
    if provider:
        lines.append(f"provider\t{provider}\t{plugin}")
        lines += [f"option\t{key}\t{value}" for key, value in options.items()]
    return lines


def _owner() -> str:
    """This user on this computer: whose device locks keep our own processes apart."""
    return f"{socket.gethostname()}-{sha256(str(hwnas_home().resolve()).encode())[:8]}-{os.getuid()}"


def _death(process: Process, limit_s: float) -> str:
    number = process.code - 128
    if number == signal.SIGALRM:
        return f"it took longer than {limit_s:g} s"
    names = {item.value: item.name for item in signal.Signals}
    how = f"signal {names[number]}" if number in names else f"exit code {process.code}"
    last = process.errors.splitlines()[-1:]
    return f"the runner ended by {how}" + (f": {last[0]}" if last else "")

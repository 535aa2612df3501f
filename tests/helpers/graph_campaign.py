"""Runs odd graphs through every reader: a process takes case after case, and is ended where one hangs.

What may crash or hang in native code is, in hwnas, in a process of its own; here it is in this one, which is
faster. So a case that kills or stops the process while it *runs* is given to the real device again, which has
to tell it; one that does so while it is read has found a fault.

`python graph_campaign.py FIRST LAST STEP` is such a process: it writes a line before each stage.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import odd_graphs
import valid_graphs

HANGS_S = 60.0
"""A stage that takes longer hangs. ONNX Runtime is stopped after half a second of a run, where it can be."""

STARTS_S = 600.0  # until the simulator is compiled
RUN_S, RUN = 0.5, "run"
STAGES = ("count", "convert", "simulate", RUN)
PROGRAM = [sys.executable, __file__]
SIMULATED = 10
"""Every so manieth case is simulated as well, and another one converted."""


@dataclass(frozen=True)
class Fault:
    """A case that is neither taken nor refused by cause."""

    seed: int
    stage: str
    what: str

    def __str__(self) -> str:
        return f"seed {self.seed}, {self.stage}: {self.what}"


@dataclass
class Outcome:
    """What a campaign met."""

    faults: list[Fault]
    refused: int = 0  # when they were read
    taken: int = 0  # by every stage, or refused by it
    ended: int = 0  # crashed or hung while they ran, and told by the device


def campaign(first: int, last: int, stages: Sequence[str] = STAGES) -> Outcome:
    """Run the cases of some seeds.

    Args:
        last: is not among them.
    """
    outcome = Outcome([])
    while first < last:
        first = _until_it_ends(first, last, stages, outcome)
    return outcome


def _until_it_ends(first: int, last: int, stages: Sequence[str], outcome: Outcome) -> int:
    """One process; the seed at which the next one begins."""
    seed, stage = first, "start"
    with subprocess.Popen(
        [*PROGRAM, str(first), str(last), ",".join(stages)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        for line in _lines(process):
            if line is None:
                process.kill()
                _ended(seed, stage, "hangs", outcome)
                return seed + 1
            told: dict[str, Any] = json.loads(line)
            seed, stage = told["seed"], told["stage"]
            if "fault" in told:
                outcome.faults.append(Fault(seed, stage, told["fault"]))
            outcome.refused += stage == "refused"
            outcome.taken += stage == "taken"
    if process.returncode:
        _ended(seed, stage, f"exit code {process.returncode}", outcome)
        return seed + 1
    return last


def _ended(seed: int, stage: str, what: str, outcome: Outcome) -> None:
    if stage != RUN:
        outcome.faults.append(Fault(seed, stage, what))
        return
    told = _told_by_the_device(seed)
    if told:
        outcome.faults.append(Fault(seed, "the device", told))
    outcome.ended += 1


def _lines(process: subprocess.Popen[str]) -> Iterator[str | None]:
    """The lines of a process; None when none comes for too long."""
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    limit_s = STARTS_S
    while True:
        try:
            line = lines.get(timeout=limit_s)
        except queue.Empty:
            yield None
            return
        limit_s = HANGS_S
        if not line:
            return
        yield line


def _told_by_the_device(seed: int) -> str:
    """What is wrong with how the real device takes a case that crashes or hangs; empty if it tells it."""
    from hwnas.devices.host.device import HostDevice
    from hwnas.errors import HwnasError
    from hwnas.measurement import DeviceProfile

    options: dict[str, float | int] = {"threads": 1, "deadline_s": 5.0}
    device = HostDevice(DeviceProfile(name="cpu", device="host", description="x", options=options))
    with tempfile.TemporaryDirectory() as folder, device:
        try:
            device.release(device.prepare(_read(odd_graphs.case(seed), Path(folder))))
        except HwnasError as error:
            return _unclear(error)
        except Exception:
            return traceback.format_exc()
    return ""


def _unclear(error: Any) -> str:
    """Why a refusal does not do; empty if it does."""
    texts = (error.cause, error.fix)
    if not all(text.strip() for text in texts) or any(word in str(error) for word in ("Traceback", "Error:")):
        return f"refused without a cause or a fix: {error}"
    return ""


def _read(case: odd_graphs.Case, folder: Path) -> Any:
    from hwnas.network import Network
    from hwnas.networks.find import with_noise

    return with_noise(Network.from_onnx(case.write(folder), case.shape, has_batch=case.has_batch))


def main(first: int, last: int, stages: Sequence[str]) -> None:
    """Take the cases of some seeds, and say before each stage which one it is."""
    from hwnas import processes

    processes.confine(processes.usable_memory_bytes() // 4)
    with tempfile.TemporaryDirectory() as folder:
        if "simulate" in stages:
            _simulate(_read(odd_graphs.Case(valid_graphs.quantized().SerializeToString()), Path(folder)), 0)
        for seed in range(first, last):
            _take(seed, Path(folder), stages)


def _take(seed: int, folder: Path, stages: Sequence[str]) -> None:
    """One case; what is read is `taken` by every stage, each of which may refuse it."""

    def tell(stage: str, **more: str) -> None:
        print(json.dumps({"seed": seed, "stage": stage, **more}), flush=True)

    case = odd_graphs.case(seed)

    def held(stage: str, does: Callable[[], Any]) -> Any:
        from hwnas.errors import HwnasError

        tell(stage)
        try:
            return does()
        except HwnasError as error:
            unclear = _unclear(error)
            if unclear:
                tell(stage, fault=f"{case.changes}: {unclear}")
        except Exception:
            tell(stage, fault=f"{case.changes}: {traceback.format_exc()}")
        return None

    network = held("read", lambda: _read(case, folder))
    if network is None:
        tell("refused")
        return
    for stage in stages:
        held(stage, partial(DOES[stage], network, seed))
    tell("taken")


def _count(network: Any, seed: int) -> None:
    from hwnas.onnx_file import has_external_data, operators_of

    content = network.onnx()
    assert not has_external_data(content)
    assert all(size > 0 for size in network.input_shape)
    assert network.batch_size >= 1
    operators_of(content)
    if seed % SIMULATED == 1:
        network.batched(1 + network.batch_size)


def _convert(network: Any, seed: int) -> None:
    if seed % SIMULATED == 1:
        network.onnx("fp16")


def _simulate(network: Any, seed: int) -> None:
    from hwnas.devices.simulator import read_onnx
    from hwnas.devices.simulator.device import SimulatorDevice
    from hwnas.measurement import DeviceProfile

    read_onnx(network.onnx())
    if seed % SIMULATED:
        return
    profile = DeviceProfile(name="sim-npu", device="simulator", description="x")
    with SimulatorDevice(profile) as device:
        device.prepare(network)


def _run(network: Any, _: int) -> None:
    """As the process of the host's device does, which answers any exception with its first line."""
    from hwnas.devices.host import ort_session

    stop = ort_session.Stop()
    timer = threading.Timer(RUN_S, stop)
    timer.start()
    try:
        loaded = ort_session.load(network.onnx(), ort_session.session_options(1), stop)
        ort_session.sample(loaded, 1, 0.0)
    except Exception as error:
        assert str(error).strip() or type(error).__name__
    finally:
        timer.cancel()


DOES = {"count": _count, "convert": _convert, "simulate": _simulate, RUN: _run}

if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].split(","))

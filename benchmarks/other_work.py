"""How well other work on this machine's CPUs is told: by their counters, and by the load average.

`python benchmarks/other_work.py` — a process that keeps one CPU busy, as a measurement does, beside 0, 1, 2
and 4 others. The truth is the scheduler's record of the run time of every other task; windows in which one of
them ended, and took its record along, are left out.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from hwnas.devices.host import machine
from hwnas.measurement import CpuTimes

WINDOWS_S = (0.2, 1.0, 3.0)
BUSY = "while True: pass"


def run_times_s() -> dict[str, float]:
    """Seconds that each task of another process has run."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/task/*/schedstat"):
        if path.parts[2] != str(os.getpid()):
            with contextlib.suppress(OSError):
                found[path.parts[4]] = int(path.read_text().split()[0]) / 1e9
    return found


def counted() -> CpuTimes:
    found = machine.cpu_times()
    assert found is not None, "this system has no counters of its CPUs"
    return found


def window(seconds: float) -> tuple[float, float] | None:
    """The share of the CPUs that others took, by counters and in truth; None where a task ended."""
    before, tasks = counted(), run_times_s()
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        pass
    after, now = counted(), run_times_s()
    if not tasks.keys() <= now.keys():
        return None
    all_s = (after.clock_s - before.clock_s) * after.cpus
    truth_s = sum(ran_s - tasks.get(task, 0.0) for task, ran_s in now.items())
    return (after.busy_s - before.busy_s - (after.own_s - before.own_s)) / all_s, truth_s / all_s


def main() -> None:
    print("| others | window s | counters | truth | largest error | windows | load average |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for others in (0, 1, 2, 4):
        processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(others)]
        try:
            for seconds in WINDOWS_S:
                taken = [window(seconds) for _ in range(round(10 / seconds**0.5))]
                known = [pair for pair in taken if pair is not None]
                if not known:
                    print(f"| {others} | {seconds} | – | – | – | 0 | {os.getloadavg()[0]:.2f} |")
                    continue
                told, truth = (statistics.median(values) for values in zip(*known, strict=True))
                worst = max(abs(one - other) for one, other in known)
                print(
                    f"| {others} | {seconds} | {told:.1%} | {truth:.1%} | {worst:.1%} | {len(known)} "
                    f"| {os.getloadavg()[0]:.2f} |",
                    flush=True,
                )
        finally:
            for process in processes:
                process.kill()
                process.wait()


if __name__ == "__main__":
    main()

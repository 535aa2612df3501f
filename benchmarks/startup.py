"""How long `hwnas --help` takes, beside an empty Python.

python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 15


def main() -> None:
    """Print medians of fresh processes, the two interleaved."""
    commands = {"python -c pass": ["-c", "pass"], "hwnas --help": ["-m", "hwnas", "--help"]}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(RUNS):
        for name, arguments in commands.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - start)
    for name, values in seconds.items():
        print(f"{statistics.median(values):6.3f} s  {name}   (median of {RUNS}, largest {max(values):.3f} s)")


if __name__ == "__main__":
    main()

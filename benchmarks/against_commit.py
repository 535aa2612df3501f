"""Stitching and searching on the simulator with this code, against those of another commit, in one run.

    python benchmarks/against_commit.py COMMIT [--rounds 9]

EfficientNet-B0 at 224 px, six candidates a block, no training. One process of each commit is given its
parts; then they work by turns, in each round first the one that was last before. "Stitch" is the ONNX graph
of 30 networks that are all different; "search" is NSGA-II by measured latency on `sim-npu`, about 120 new
networks a round. Medians of the rounds, and the ratio this ÷ other within a round with its range; in CPU
seconds, since those of the clock are also of what else a machine does.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SHAPE = (3, 224, 224)
STITCHED = 30
POPULATION, GENERATIONS = 24, 5


def work(folder: Path) -> None:
    """Answer `stitch ROUND` and `search ROUND` on stdin with a line of JSON each."""
    stitcher = make_stitcher(folder)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        what, number = line.split()
        with contextlib.redirect_stdout(io.StringIO()):
            found = {"stitch": stitch, "search": search}[what](stitcher, folder, int(number))
        print(json.dumps(found), file=answers, flush=True)


def make_stitcher(folder: Path) -> Any:
    """The networks of a library whose candidates have weights by chance, each part read once."""
    import timm
    import torch

    from hwnas.compress.library.candidates import find_candidates
    from hwnas.compress.library.distill import Distilled
    from hwnas.compress.library.metrics import BlockMetrics
    from hwnas.compress.library.space import load_space
    from hwnas.compress.library.stitch import Stitcher
    from hwnas.compress.library.store import Library
    from hwnas.network import export_onnx
    from hwnas.networks.build import build_part
    from hwnas.networks.partition import partition

    torch.manual_seed(0)
    torch.set_num_threads(1)
    parts = partition(timm.create_model("efficientnet_b0").eval(), SHAPE)
    library = Library(folder)
    candidates = find_candidates(parts, load_space("compression"), 6)
    library.add(candidates)
    for candidate in candidates:
        module = build_part(parts, candidate.part, candidate.spec).eval()
        loss = candidate.params**-0.5
        metrics = BlockMetrics(nsr=loss, mse=loss, relative_l1=loss)
        done = Distilled(state=module.state_dict(), metrics=metrics, end_slope=0.0, seconds=0.0)
        library.finish(candidate, done, export_onnx(module, (1, *parts.shapes[candidate.part])))
    stitcher = Stitcher(parts, library)
    for choice in range(7):
        stitcher.network(tuple(min(choice, len(of) - 1) for of in stitcher.choices)).onnx()
    return stitcher


def stitch(stitcher: Any, folder: Path, number: int) -> dict[str, float]:
    """CPU milliseconds of one network's graph: the median of some that were not asked for before."""
    generator = random.Random(number)
    taken = []
    for _ in range(STITCHED):
        choices = tuple(generator.choice(of_part) for of_part in stitcher.choices)
        start = time.process_time()
        stitcher.network(choices).onnx()
        taken.append(time.process_time() - start)
    return {"stitch": 1000 * statistics.median(taken)}


def search(stitcher: Any, folder: Path, number: int) -> dict[str, float]:
    """New networks that a search asks for in a second of CPU time, and of the clock."""
    from hwnas.compress.search.costs import MeasuredCosts
    from hwnas.compress.search.nsga2 import search as nsga2
    from hwnas.profiles.catalogue import load_profile, open_device
    from hwnas.profiles.protocols import load_protocol
    from hwnas.profiles.session import Session
    from hwnas.profiles.store import MeasurementStore

    device, protocol = open_device(load_profile("sim-npu")), load_protocol("quick")
    with (
        MeasurementStore(folder / f"search-{number}.db") as store,
        Session(device, protocol, store, anchor=stitcher.reference) as session,
    ):
        cpu, wall = time.process_time(), time.perf_counter()
        points = nsga2(
            stitcher.choices,
            lambda choices: stitcher.loss(choices, "nsr"),
            MeasuredCosts(session, stitcher, ("latency",)),
            population=POPULATION,
            generations=GENERATIONS,
            seed=number,
        )
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"search": len(points) / cpu, "search by the clock": len(points) / wall}


class Worker:
    """A process that works with the code of one commit."""

    def __init__(self, code: Path, folder: Path) -> None:
        folder.mkdir()
        write_entry_points(code, folder)
        environment = os.environ | {"PYTHONPATH": f"{folder}:{code}", "OMP_NUM_THREADS": "1"}
        environment |= {"HWNAS_HOME": str(folder / "home"), "HWNAS_CACHE": str(folder / "cache")}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--work", str(folder)],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._line()

    def ask(self, what: str, number: int) -> dict[str, float]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what} {number}\n")
        self.process.stdin.flush()
        found: dict[str, float] = json.loads(self._line())
        return found

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended with exit code {self.process.wait()}; see above")
        return line


def code_of(commit: str, folder: Path) -> Path:
    """The package of a commit of this repository."""
    content = subprocess.run(
        ["git", "archive", "--format=tar", commit, "hwnas", "pyproject.toml"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def write_entry_points(code: Path, folder: Path) -> None:
    """Let a process find the families, tasks and devices of its own code, not of what is installed."""
    project = tomllib.loads((code / "pyproject.toml").read_text())["project"]
    info = folder / "hwnas-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hwnas\nVersion: 0\n")
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("commit", nargs="?")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work)
        return
    if not options.commit:
        parser.error("name a commit")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        other = Worker(code_of(options.commit, folder / "code"), folder / "other")
        this = Worker(ROOT, folder / "this")
        rounds: list[tuple[dict[str, float], dict[str, float]]] = []
        for number in range(options.rounds + 1):
            of_round: dict[Worker, dict[str, float]] = {this: {}, other: {}}
            for what in ("stitch", "search"):
                for worker in (this, other) if number % 2 else (other, this):
                    of_round[worker] |= worker.ask(what, number)
            rounds.append((of_round[this], of_round[other]))
        this.end()
        other.end()
    print(f"| | {options.commit} | this | this ÷ {options.commit} | in each round |")
    print("|---|---|---|---|---|")
    units: dict[str, Callable[[float], str]] = {
        "stitch": lambda x: f"{x:.2f} ms",
        "search": lambda x: f"{x:.0f} networks/s",
        "search by the clock": lambda x: f"{x:.0f} networks/s",
    }
    for what, shown in units.items():
        new, old = ([each[i][what] for each in rounds[1:]] for i in (0, 1))  # the first one compiles
        ratios = sorted(a / b for a, b in zip(new, old, strict=True))
        print(
            f"| {what} | {shown(statistics.median(old))} | {shown(statistics.median(new))} | "
            f"{statistics.median(ratios):.3f} | {ratios[0]:.2f} … {ratios[-1]:.2f} |"
        )


if __name__ == "__main__":
    main()

"""How many whole networks a seeded search measures until it has what a plain one has after ten times as many.

    python benchmarks/search_latency.py [--device sim-npu] [--plain 5000] [--seeded 500] [--run PATH]
    python benchmarks/search_latency.py --device cpu-1 --plain 1000 --seeded 100 --protocol quick

The library: EfficientNet-B0 at 32 px, space `compression`, its candidates distilled for a few steps on
digits; kept in --run with everything that is measured, so a call that was stopped goes on. Both searches see
the same losses and measure whole graphs. "Plain" is pymoo's NSGA-II with uniform crossover and random resets;
"learned" is hwnas without a seed. "Seeded" starts from the exact front of block costs, which it measures
first, one network a choice; these are told beside it.

Hypervolume is up to a corner 5 % beyond the worst of the best front, as a share of all fronts together. On a
device whose latencies are not modelled the plain front and all that the seeded search measured are measured
again, in one session: of many noisy figures the lowest are too low. A front is then what the search took for
one, at these new latencies.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from plain_search import plain

from hwnas.compress.executor import LocalExecutor
from hwnas.compress.library.build import build_library
from hwnas.compress.library.open_run import open_inputs, run_of
from hwnas.compress.library.operators import check_exports
from hwnas.compress.library.stitch import Choices, Stitcher
from hwnas.compress.library.store import Library
from hwnas.compress.quality.model import Quality
from hwnas.compress.run.directory import RunDirectory
from hwnas.compress.search.block_costs import measured_block_costs
from hwnas.compress.search.costs import MeasuredCosts
from hwnas.compress.search.initial_tables import block_tables
from hwnas.compress.search.nsga2 import search
from hwnas.compress.search.pareto import corner_beyond, hypervolume, non_dominated
from hwnas.compress.search.points import Point
from hwnas.compress.settings import LibrarySettings
from hwnas.compress.training import loop
from hwnas.measurement import Measurement, Protocol
from hwnas.profiles.catalogue import load_profile, open_device
from hwnas.profiles.protocols import load_protocol
from hwnas.profiles.session import Session
from hwnas.profiles.store import MeasurementStore
from hwnas.progress import Progress

SETTINGS = LibrarySettings(
    model="efficientnet_b0",
    weights="none",
    data="digits",
    cuts=(),
    space="compression",
    per_block=0,
    loss="nsr",
    train_epochs=2,
    epochs=1,
    steps=20,
    batch_size=64,
    slice_size=10,
    seed=0,
    threads=1,
)
SEEDED_POPULATION = 25


class _Lines(Progress):
    def say(self, text: str) -> None:
        print(text, flush=True)


def make_stitcher(path: Path, candidates: int) -> Stitcher:
    """The networks of the library in a run directory, which is made or gone on with."""
    inputs = open_inputs(replace(SETTINGS, per_block=candidates), _Lines())
    loop.tune_allocator()
    torch.set_num_threads(SETTINGS.threads)
    with RunDirectory.open(path, inputs.settings, inputs.hashes) as directory:
        library = Library(directory.library)
        library.add(inputs.candidates)
        check_exports(library, inputs.parts, Progress())
        run = run_of(inputs, directory, library, Progress(), LocalExecutor())
        build_library(replace(run, progress=_Lines()))
    return Stitcher(inputs.parts, library)


class Bench:
    """Both searches of one device.

    Args:
        session: opened; it remembers what was measured.
    """

    def __init__(self, session: Session, stitcher: Stitcher) -> None:
        self.session = session
        self.stitcher = stitcher
        self.quality = Quality(stitcher, "nsr")
        self.costs = MeasuredCosts(session, stitcher, ("latency",))

    def plain(self, evaluations: int, seed: int) -> list[Point]:
        """What NSGA-II without anything learned sees."""
        choices, points = self.stitcher.choices, []

        def values(rows: np.ndarray) -> np.ndarray:
            batch = [tuple(of[i] for of, i in zip(choices, row, strict=True)) for row in rows.tolist()]
            found = [
                Point(choices=c, loss=self.quality.loss(c), costs=None if isinstance(cost, str) else cost)
                for c, cost in zip(batch, self.costs(batch), strict=True)
            ]
            points.extend(found)
            return np.array([[p.loss, *(p.costs or (9.0,))] for p in found])

        plain([len(of_part) for of_part in choices], values, evaluations, seed)
        return points

    def learned(
        self, evaluations: int, seed: int, prior: list[np.ndarray] | None, population: int
    ) -> list[Point]:
        """What the search of hwnas sees; seeded where there is a prior."""
        return search(
            self.stitcher.choices,
            self.quality.loss,
            self.costs,
            population=population,
            generations=evaluations // population,
            seed=seed,
            initial=prior,
        )

    def prior(self) -> list[np.ndarray]:
        """Block losses, and the latency of each choice on its own."""
        choices = self.stitcher.choices
        blocks = measured_block_costs(
            self.session, self.stitcher, choices, "nsr", ("latency",), 0.1, Progress()
        )
        return block_tables(self.stitcher, self.quality, choices, blocks, ("latency",))


def values_of(points: Sequence[Point]) -> np.ndarray:
    return np.array([[p.loss, *p.costs] for p in points if p.costs is not None])


def front_of(points: Sequence[Point]) -> list[Point]:
    known = [point for point in points if point.costs is not None]
    return [known[i] for i in non_dominated(values_of(known))]


def remeasured(bench: Bench, points: Sequence[Point], protocol: Protocol, path: Path) -> dict[Choices, Point]:
    """Networks at latencies that no search has seen: all of them in one session."""
    losses = {point.choices: point.loss for point in points}
    with (
        MeasurementStore(path) as store,
        Session(
            open_device(bench.session.device.profile), protocol, store, anchor=bench.stitcher.reference
        ) as session,
    ):
        results = session.measure(bench.stitcher.network(choices) for choices in losses)
        return {
            choices: Point(choices=choices, loss=loss, costs=(result.anchor_ratio,))
            for (choices, loss), (_, result) in zip(losses.items(), results, strict=True)
            if isinstance(result, Measurement)
        }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="sim-npu")
    parser.add_argument("--plain", type=int, default=5000)
    parser.add_argument("--seeded", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--protocol", default="quick")
    parser.add_argument("--candidates", type=int, default=0, help="a block; 0: the space's own")
    parser.add_argument("--run", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kept = options.run or Path(folder) / "run"
        stitcher = make_stitcher(kept, options.candidates)
        print(
            f"| seed | plain {options.plain} | learned {options.plain} | seeded {options.seeded} "
            "| networks until the seeded search has the plain one’s | blocks |"
        )
        print("|---|---|---|---|---|---|")
        for seed in range(options.seeds):
            print(_row(options, stitcher, seed, kept), flush=True)


def _row(options: argparse.Namespace, stitcher: Stitcher, seed: int, folder: Path) -> str:
    device, protocol = open_device(load_profile(options.device)), load_protocol(options.protocol)
    modelled = device.kind == "modelled"
    with (
        MeasurementStore(folder / f"search-{device.profile.name}-{seed}.db") as store,
        Session(device, protocol, store, anchor=stitcher.reference) as session,
    ):
        bench = Bench(session, stitcher)
        prior = bench.prior()
        found = plain_points, _, seeded_points = (
            bench.plain(options.plain, seed),
            bench.learned(options.plain, seed, None, min(100, options.plain // 10)) if modelled else [],
            bench.learned(options.seeded, seed, prior, SEEDED_POPULATION),
        )
    if modelled:
        known = {point.choices: point for points in found for point in points}
    else:
        again = front_of(plain_points) + [p for p in seeded_points if p.costs is not None]
        known = remeasured(bench, again, protocol, folder / f"again-{device.profile.name}-{seed}.db")

    def front_values(points: Sequence[Point]) -> np.ndarray:
        """A front, found by the search's latencies and valued by those that count."""
        return values_of([known[p.choices] for p in front_of(points) if p.choices in known])

    fronts = [front_values(points) for points in found if points]
    best = np.concatenate(fronts)
    best = best[non_dominated(best)]
    corner = corner_beyond(best)
    whole = hypervolume(best, corner)
    shares = [
        f"{hypervolume(front_values(points), corner) / whole:.4f}" if points else "–" for points in found
    ]
    wanted = hypervolume(front_values(plain_points), corner)
    until = next(
        (
            n
            for n in range(5, len(seeded_points) + 1, 5)
            if hypervolume(front_values(seeded_points[:n]), corner) >= wanted
        ),
        None,
    )
    blocks = sum(len(of_part) for of_part in stitcher.choices)
    return f"| {seed} | {shares[0]} | {shares[1]} | {shares[2]} | {until or 'not'} | {blocks} |"


if __name__ == "__main__":
    main()

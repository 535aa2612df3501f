"""What the filter removes before a search, and what of the front it costs (DONNAv2: 20 % removed).

    python benchmarks/filter_front.py [--device sim-npu] [--thresholds 0 0.05 0.1 0.2] [--seeds 3]
        [--evaluations 1000] [--space compression] [--steps 0] [--out runs/predictor-quality]

The library is that of seed 0 of `predictor_quality.py`, made where it is missing; another --space gets a
folder of its own beside it, with the same reference and --steps batches a candidate. Every choice is measured
as a network of its own, and filtered as by `hwnas compress --filter-threshold`; the loss is the sum of NSR.

"By block costs" is the exact front where loss and cost are sums over the blocks: of the choices that stay, as
a share of the hypervolume of all. "By whole networks" takes every network that any search has measured, with
a filter and without: the share is that of those networks that hold no removed choice. "Searched" are the
searches with the filter on their own, the mean over the seeds, beside those without. Hypervolume is up to a
corner 5 % beyond the worst of the best front. On a device that is no simulator all of it holds the noise of
the measurements.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from cifar_subset import Lines, settings_of
from search_latency import front_of, values_of

from hwnas.compress.library.open_run import open_inputs, open_run
from hwnas.compress.library.stitch import Stitcher
from hwnas.compress.quality.model import Quality
from hwnas.compress.run.directory import RunDirectory
from hwnas.compress.search.additive import exact_front
from hwnas.compress.search.block_costs import BlockCosts, measured_block_costs
from hwnas.compress.search.costs import MeasuredCosts
from hwnas.compress.search.initial_tables import block_tables
from hwnas.compress.search.nsga2 import search
from hwnas.compress.search.pareto import corner_beyond, hypervolume
from hwnas.compress.search.points import Point
from hwnas.compress.settings import DEFAULT_THRESHOLD, LibrarySettings
from hwnas.profiles.catalogue import load_profile, open_device
from hwnas.profiles.protocols import load_protocol
from hwnas.profiles.session import Session
from hwnas.profiles.store import MeasurementStore
from hwnas.progress import Progress

PUBLISHED_REMOVED, GOAL_KEPT = 0.2, 0.999
POPULATION = 50
NO_FILTER = float("inf")
REFERENCE = ("model.safetensors", "architecture.json", "reference.json")  # the last one makes it valid


def removed(blocks: BlockCosts) -> tuple[int, int]:
    """Candidates that the filter takes away, and all of them."""
    candidates = [choice for part in blocks.parts for choice in part.choices if choice.choice]
    return sum(not choice.kept for choice in candidates), len(candidates)


def surviving(points: Sequence[Point], choices: Sequence[Sequence[int]]) -> list[Point]:
    """The networks that hold nothing but these choices."""
    return [p for p in points if all(c in of_part for c, of_part in zip(p.choices, choices, strict=True))]


def share_by_blocks(blocks: BlockCosts) -> float:
    """The hypervolume that the exact front of sums of block costs keeps."""
    whole, kept = (
        exact_front(
            [
                np.array([[c.loss, c.cost] for c in part.choices if c.cost is not None and (c.kept or every)])
                for part in blocks.parts
            ]
        )[1]
        for every in (True, False)
    )
    corner = corner_beyond(whole)
    return hypervolume(kept, corner) / hypervolume(whole, corner)


def share(points: Sequence[Point], of: Sequence[Point]) -> float:
    """The hypervolume of some networks' front as a share of others' that hold the best ones."""
    best = values_of(front_of(of))
    corner = corner_beyond(best)
    return hypervolume(values_of(points), corner) / hypervolume(best, corner)


class Bench:
    """Searches of one device, with and without a filter; what was measured once is remembered."""

    def __init__(self, session: Session, stitcher: Stitcher, evaluations: int) -> None:
        self.session, self.stitcher, self.evaluations = session, stitcher, evaluations
        self.quality = Quality(stitcher, "nsr")
        self.costs = MeasuredCosts(session, stitcher, ("latency",))

    def blocks(self, threshold: float) -> BlockCosts:
        return measured_block_costs(
            self.session, self.stitcher, self.stitcher.choices, "nsr", ("latency",), threshold, Progress()
        )

    def search(self, blocks: BlockCosts, seed: int) -> list[Point]:
        choices = blocks.choices
        return search(
            choices,
            self.quality.loss,
            self.costs,
            population=POPULATION,
            generations=max(1, self.evaluations // POPULATION),
            seed=seed,
            initial=block_tables(self.stitcher, self.quality, choices, blocks, ("latency",)),
        )


def compare(bench: Bench, thresholds: Sequence[float], seeds: int) -> str:
    """The table, as Markdown, and whether the goal is met at the threshold that hwnas takes by default."""
    blocks = {threshold: bench.blocks(threshold) for threshold in (NO_FILTER, *thresholds)}
    found = {threshold: [bench.search(of, seed) for seed in range(seeds)] for threshold, of in blocks.items()}
    every = [point for searches in found.values() for points in searches for point in points]
    without = np.mean([share(points, every) for points in found[NO_FILTER]])
    lines = [
        "| threshold | candidates removed | kept by block costs | kept by whole networks "
        "| searched, with the filter | searched, without |",
        "|---|---|---|---|---|---|",
    ]
    text = f"The goal is stated for the threshold {DEFAULT_THRESHOLD:g}, which was not asked for."
    for threshold in thresholds:
        gone, total = removed(blocks[threshold])
        kept = share(surviving(every, blocks[threshold].choices), every)
        searched = np.mean([share(points, every) for points in found[threshold]])
        summed = share_by_blocks(blocks[threshold])
        lines.append(
            f"| {threshold:g} | {gone} of {total}, {gone / total:.1%} | {summed:.4f} | {kept:.4f} "
            f"| {searched:.4f} | {without:.4f} |"
        )
        if threshold == DEFAULT_THRESHOLD:
            text = verdict(threshold, gone / total, kept)
    networks = len({point.choices for point in every})
    return "\n".join([*lines, "", f"{networks} different networks were measured. {text}"])


def verdict(threshold: float, gone: float, kept: float) -> str:
    """Whether the goal is met, from the figures alone."""
    return (
        f"At the threshold {threshold:g} the filter removes {gone:.1%} of the candidates "
        f"({PUBLISHED_REMOVED:.0%} published) and the front keeps {kept:.2%} of its hypervolume; "
        f"at least {GOAL_KEPT:.1%} is {'met' if kept >= GOAL_KEPT else '**missed**'}."
    )


def take_reference(settings: LibrarySettings, out: Path, trained: Path) -> None:
    """Give a run directory of another space the reference of one that differs in nothing else."""
    inputs = open_inputs(settings, Progress())
    with RunDirectory.open(out, settings, inputs.hashes) as directory:
        if not (directory.reference / REFERENCE[-1]).is_file() and (trained / REFERENCE[-1]).is_file():
            for name in REFERENCE:
                shutil.copy(trained / name, directory.reference)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="sim-npu")
    parser.add_argument("--protocol", default="quick")
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.0, 0.05, 0.1, 0.2])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--evaluations", type=int, default=1000)
    parser.add_argument("--space", default="compression")
    parser.add_argument("--steps", type=int, default=0, help="batches a candidate of another space; 0: all")
    parser.add_argument("--out", type=Path, default=Path("runs/predictor-quality"))
    options = parser.parse_args()
    settings, path = settings_of(0), options.out / "seed-0"
    if options.space != settings.space:
        settings = replace(settings, space=options.space, steps=options.steps)
        trained, path = path / "reference", options.out / f"{options.space}-0"
        take_reference(settings, path, trained)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_run(open_inputs(settings, Progress()), [], path, Lines()) as run:
        stitcher = Stitcher(run.reference.parts, run.library)
        device, protocol = open_device(load_profile(options.device)), load_protocol(options.protocol)
        with (
            MeasurementStore(run.directory.path / f"filter-{device.profile.name}.db") as store,
            Session(device, protocol, store, anchor=stitcher.reference) as session,
        ):
            text = compare(Bench(session, stitcher, options.evaluations), options.thresholds, options.seeds)
    print(f"`python benchmarks/filter_front.py --device {options.device} --space {options.space}`:\n\n{text}")


if __name__ == "__main__":
    main()

"""NSGA-II without any knowledge of the blocks, against the exact front of an additive problem of 5 × 384.

    python benchmarks/search_additive.py [--evaluations N] [--seeds N]

Losses and costs of the blocks' choices are drawn at random: costs are lognormal, losses fall with the cost
and scatter. Hypervolume is up to a corner 5 % beyond the exact front's ends. "Plain" is pymoo's NSGA-II
with uniform crossover and a random reset, which is what the learned operators are added to.
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import numpy as np
from plain_search import POPULATION, plain

from hwnas.compress.search.additive import exact_front, sum_of
from hwnas.compress.search.nsga2 import search
from hwnas.compress.search.pareto import hypervolume

BLOCKS, CHOICES = 5, 384


def problem(seed: int) -> list[np.ndarray]:
    """(384, 2) of each block: losses and costs."""
    generator = np.random.default_rng(seed)
    tables = []
    for _ in range(BLOCKS):
        cost = np.exp(generator.normal(-1.0, 0.6, CHOICES))
        scatter = generator.uniform(0.5, 2.0, CHOICES) * np.exp(generator.normal(0.0, 0.3, CHOICES))
        tables.append(np.column_stack([0.05 * scatter * cost**-0.7, cost]))
    return tables


def learned(tables: list[np.ndarray], evaluations: int, seed: int) -> np.ndarray:
    """What the search of hwnas sees, without a prior."""

    def values(choices: tuple[int, ...]) -> np.ndarray:
        total: np.ndarray = sum_of(tables, np.array([choices]))[0]
        return total

    points = search(
        [list(range(CHOICES))] * BLOCKS,
        lambda choices: float(values(choices)[0]),
        lambda batch: [(float(values(choices)[1]),) for choices in batch],
        population=POPULATION,
        generations=evaluations // POPULATION,
        seed=seed,
    )
    return np.array([[point.loss, *(point.costs or ())] for point in points])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--evaluations", type=int, default=5000)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    print("| seed | exact: points, time | random | plain NSGA-II | learned operators, time |")
    print("|---|---|---|---|---|")
    for seed in range(options.seeds):
        tables = problem(seed)
        start_s = time.process_time()
        _, front = exact_front(tables)
        exact_s = time.process_time() - start_s
        corner = front.max(0) * 1.05
        whole = hypervolume(front, corner)
        rows = np.random.default_rng(seed).integers(0, CHOICES, (options.evaluations, BLOCKS))
        start_s = time.process_time()
        found = {"learned": learned(tables, options.evaluations, seed)}
        learned_s = time.process_time() - start_s
        found |= {
            "random": sum_of(tables, rows),
            "plain": plain([CHOICES] * BLOCKS, partial(sum_of, tables), options.evaluations, seed),
        }
        share = {name: hypervolume(seen, corner) / whole for name, seen in found.items()}
        print(
            f"| {seed} | {len(front)}, {exact_s:.2f} s | {share['random']:.3f} | {share['plain']:.3f} "
            f"| {share['learned']:.3f}, {learned_s:.0f} s |",
            flush=True,
        )


if __name__ == "__main__":
    main()

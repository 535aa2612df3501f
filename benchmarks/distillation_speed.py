"""Distilling candidates by hwnas and by the plain way: candidates an hour, share of the machine's peak.

The plain way is what one writes first: for each candidate a loop over the data, the reference's parts before
it run anew for every batch, with torch's defaults for memory format, optimizer and allocator. Both train
the same candidates on the same batches, each in processes of its own, by turns. The third way, bfloat16 by
autocast, is not built in: it is there to show what it would give on this machine. What hwnas needs to keep
the reference's features is in its time; evaluation on held-out data is left out. All run on the GPU where
torch reaches one.

HWNAS_DATA_DIR=FOLDER python benchmarks/distillation_speed.py [--steps 12] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

CASES = (("tf_efficientnet_lite0", "imagenette"), ("efficientnet_b0", "digits"))
WAYS = ("plain", "hwnas", "hwnas, bf16")
BATCH, SLICE = 64, 10
EPOCH = 2_700  # images that a candidate is said to be trained on, for candidates an hour
LEARNING_RATE = 1e-3
FLOPS_A_MAC = 6  # two forward, four backward


def main() -> None:
    """Print one table a case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=12, help="as many as the data have at most")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        way, model, data = options.one
        print(json.dumps(measured(way, model, data, options.steps)))
        return
    for model, data in CASES:
        print(f"{model} on {data}: {SLICE} candidates, batches of {BATCH} images")
        found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
        for _ in range(options.rounds):
            for way in WAYS:
                found[way].append(run(way, model, data, options.steps))
                print(f"  {way}: {found[way][-1]['seconds']:.1f} s", flush=True)
        plain_s = median(row["seconds"] for row in found["plain"])
        print(f"{'way':<14}{'candidates/h, one epoch of 2,700':>34}{'GFLOP/s':>10}{'of peak':>9}{'times':>7}")
        for way, rows in found.items():
            seconds = median(row["seconds"] for row in rows)
            peak = median(row["peak"] for row in rows)
            rate = median(row["flops"] for row in rows) / seconds
            an_hour = 3600 * SLICE * rows[0]["images"] / EPOCH / seconds
            print(f"{way:<14}{an_hour:>34.0f}{rate / 1e9:>10.1f}{rate / peak:>9.1%}{plain_s / seconds:>7.2f}")
        ratios = [p["seconds"] / h["seconds"] for p, h in zip(found["plain"], found["hwnas"], strict=True)]
        print(f"hwnas / plain, round by round: {', '.join(f'{ratio:.2f}' for ratio in ratios)}\n")


def run(way: str, model: str, data: str, steps: int) -> dict[str, Any]:
    """A measurement in a process of its own."""
    command = [sys.executable, __file__, "--steps", str(steps), "--one", way, model, data]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def measured(way: str, model: str, name: str, steps: int) -> dict[str, float]:
    """Seconds of a whole slice, the arithmetic of its candidates, and the machine's peak a second."""
    if way != "plain":
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import timm
    import torch

    from hwnas.compress.data import load_data
    from hwnas.compress.library.candidates import find_candidates
    from hwnas.compress.library.space import load_space
    from hwnas.compress.training import loop
    from hwnas.compress.training.placement import find_place
    from hwnas.networks.partition import partition

    torch.manual_seed(0)
    place = find_place()
    data = replace(load_data(name), place=place)
    parts = partition(timm.create_model(model, num_classes=10).eval(), data.image_shape)
    candidates = sorted(
        find_candidates(parts, load_space("compression"), 6), key=lambda c: (c.choice, c.part)
    )
    candidates = [c for c in candidates if 0 < c.part < len(parts.modules) - 1][:SLICE]
    train = replace(data.train, pixels=data.train.pixels[: BATCH * steps], labels=None)
    val = replace(data.val, pixels=data.val.pixels[:8], labels=None)
    data = replace(data, train=train, val=val, test=val)
    if way != "plain":
        loop.tune_allocator()
        for module in parts.modules:
            module.to(memory_format=torch.channels_last)
    for module in parts.modules:
        module.to(place)
    train_slice = plain_way if way == "plain" else partial(hwnas_way, bf16=way.endswith("bf16"))
    short = replace(data, train=replace(train, pixels=train.pixels[:BATCH]))
    train_slice(parts, short, candidates)  # warms up
    finish(place)
    start = time.perf_counter()
    train_slice(parts, data, candidates)
    finish(place)
    seconds = time.perf_counter() - start
    images = len(train.pixels) // BATCH * BATCH
    flops = FLOPS_A_MAC * sum(c.macs for c in candidates) * images
    return {"seconds": seconds, "images": images, "flops": flops, "peak": peak_flops(place)}


def hwnas_way(parts: Any, data: Any, candidates: Sequence[Any], *, bf16: bool) -> None:
    """As `hwnas compress` does it."""
    import torch

    from hwnas.compress.library.distill import (
        DistillSettings,
        distill,
        positions_of,
        targets_of,
        teacher_statistics,
    )
    from hwnas.compress.library.teacher import Teacher, keep_features

    how = DistillSettings(loss="nsr", epochs=1, steps=None, batch_size=BATCH, seed=0)
    teacher = Teacher(parts, data, {})
    with tempfile.TemporaryDirectory() as folder:
        kept = keep_features(
            teacher, Path(folder) / "features", positions_of(parts, candidates), BATCH, print
        )
        teacher = Teacher(parts, data, kept)
        statistics = teacher_statistics(teacher, targets_of(parts, candidates), BATCH)
        with torch.autocast(data.place, torch.bfloat16, enabled=bf16, cache_enabled=False):
            distill(candidates, teacher, statistics, how)


def plain_way(parts: Any, data: Any, candidates: Sequence[Any]) -> None:
    """Candidate by candidate."""
    import torch

    from hwnas.networks.build import build_part

    for candidate in candidates:
        student = build_part(parts, candidate.part, candidate.spec).to(data.place).train()
        optimizer = torch.optim.AdamW(student.parameters(), lr=LEARNING_RATE)
        for images, _ in data.train_batches(BATCH, 0, 0, augment=False):
            with torch.no_grad():
                x = torch.nn.Sequential(*parts.modules[: candidate.part])(images.contiguous())
                target = parts.modules[candidate.part](x)
            loss = ((student(x) - target) ** 2 / target.var((0, 2, 3), keepdim=True)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def finish(place: str) -> None:
    """Wait for what a GPU still has to do."""
    import torch

    if place == "cuda":
        torch.cuda.synchronize()


def peak_flops(place: str) -> float:
    """Of the best of five large fp32 matrix products, a second."""
    import torch

    size = 2048 if place == "cpu" else 8192
    a, b = torch.randn(2, size, size, device=place)
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        a @ b
        finish(place)
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


if __name__ == "__main__":
    main()

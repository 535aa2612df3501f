"""How fast images come, beside how fast a slice of candidates takes them, and what a start costs.

HWNAS_DATA_DIR=FOLDER python benchmarks/data_loading.py
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import timm
import torch

from hwnas.compress.data import Data, Images, load_data
from hwnas.compress.library.candidates import find_candidates
from hwnas.compress.library.distill import DistillSettings, distill, teacher_statistics
from hwnas.compress.library.space import load_space
from hwnas.compress.library.teacher import Teacher
from hwnas.compress.training import loop
from hwnas.networks.partition import partition

MODEL = "tf_efficientnet_lite0"
SETS = (("cifar10", 32), ("imagenette", 160))
BATCH = 64
SLICE = 10
STEPS = 3
EPOCH_IMAGES = 20_000


def main() -> None:
    """Print one row a data set."""
    loop.tune_allocator()
    print(f"{MODEL}, {SLICE} candidates a slice, batches of {BATCH}, {torch.get_num_threads()} threads")
    print(
        f"{'data':<12}{'side':>5}{'first start s':>15}{'second s':>10}{'MB':>6}"
        f"{'loaded/s':>10}{'distilled/s':>13}{'finetuned/s':>13}{'loading is':>12}"
    )
    with own_cache():
        for name, side in SETS:
            first_s, data = timed_load(name)
            second_s, data = timed_load(name)
            megabytes = sum(part.pixels.nbytes for part in (data.train, data.val, data.test)) / 1e6
            loaded = loading_rate(data)
            distilled, finetuned = distilling_rate(data), finetuning_rate(data)
            share = finetuned / (loaded + finetuned)
            print(
                f"{name:<12}{side:>5}{first_s:>15.1f}{second_s:>10.2f}{megabytes:>6.0f}"
                f"{loaded:>10.0f}{distilled:>13.0f}{finetuned:>13.0f}{share:>11.1%}"
            )
    print("loaded: train_batches with augmentation and normalisation; loading is: its share of finetuning")


@contextmanager
def own_cache() -> Iterator[None]:
    """Decode anew: without what earlier starts left."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HWNAS_CACHE"] = folder
        yield


def timed_load(name: str) -> tuple[float, Data]:
    """Seconds and data of a start."""
    start = time.perf_counter()
    data = load_data(name)
    return time.perf_counter() - start, data


def loading_rate(data: Data) -> float:
    """Images a second of `train_batches`, nothing done with them."""
    images, start = 0, time.perf_counter()
    for x, _ in data.train_batches(BATCH, 0, 0, augment=True):
        images += len(x)
        if images >= EPOCH_IMAGES:
            break
    return images / (time.perf_counter() - start)


def distilling_rate(data: Data) -> float:
    """Images a second that a slice of candidates is distilled with; what surrounds the steps is left out."""
    parts = partition(timm.create_model(MODEL, num_classes=10).eval(), data.image_shape)
    few = replace(data, train=_head(data.train, BATCH * (STEPS + 1)), val=_head(data.val, 8))
    teacher = Teacher(parts, few, {})
    statistics = teacher_statistics(teacher, range(len(parts.modules)), BATCH)
    how = DistillSettings(loss="nsr", epochs=1, steps=STEPS + 1, batch_size=BATCH, seed=0)
    times = []
    distill(
        find_candidates(parts, load_space("compression"), 2)[:SLICE],
        teacher,
        statistics,
        how,
        lambda step, loss: times.append(time.perf_counter()),
    )
    return STEPS * BATCH / (times[-1] - times[0])


def finetuning_rate(data: Data) -> float:
    """Images a second of a network that is finetuned against the reference's logits."""
    student, teacher = (timm.create_model(MODEL, num_classes=10) for _ in range(2))
    student.train().to(memory_format=torch.channels_last)
    loss = loop.distillation_loss(teacher.eval().to(memory_format=torch.channels_last))
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, fused=True)
    batches = data.train_batches(BATCH, 0, 0, augment=False)
    start = 0.0
    for step, (x, labels) in zip(range(STEPS + 1), batches, strict=False):
        optimizer.zero_grad()
        loss(student(x), loop.Batch(step, x, labels)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step == 0:
            start = time.perf_counter()
    return STEPS * BATCH / (time.perf_counter() - start)


def _head(images: Images, count: int) -> Images:
    labels = None if images.labels is None else images.labels[:count]
    return Images(pixels=images.pixels[:count], labels=labels)


if __name__ == "__main__":
    main()

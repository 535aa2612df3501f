"""10,000 images of CIFAR-10 and a small MobileNetV2 for them: what studies of many trainings are made on.

No script: `predictor_quality.py` and `filter_front.py` use it. CIFAR-10 is taken from HWNAS_DATA_DIR, from
`../shared/data` beside the repository, or as `hwnas compress --data cifar10` finds it.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import timm
import torch
from torch import nn

from hwnas.compress.data import Data, Images, load_data
from hwnas.compress.settings import LibrarySettings
from hwnas.progress import Progress

IMAGES = 10_000
SEEDS = (0, 1, 2)
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
TELL_AFTER_S = 60.0


def settings_of(seed: int) -> LibrarySettings:
    """The library of one seed: its images, the reference's weights, the order of the batches, all weights."""
    return LibrarySettings(
        model="cifar_subset:mobilenet",
        weights="none",
        data=f"cifar_subset:subset_{seed}",
        cuts=("blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4", "blocks.6"),
        space="compression",
        per_block=0,
        loss="nsr",
        train_epochs=30,
        epochs=1,
        steps=0,
        batch_size=64,
        slice_size=10,
        seed=seed,
        threads=1,
    )


def mobilenet() -> nn.Module:
    """MobileNetV2 of half width whose stem keeps the map: 32, 16, 8, 4 and 2 px behind its stages."""
    model: nn.Module = timm.create_model("mobilenetv2_050", num_classes=10)
    stem = model.conv_stem
    assert isinstance(stem, nn.Conv2d)
    stem.stride = (1, 1)
    return model


def _subset(seed: int) -> Data:
    """Training images drawn by the seed; `val` (5,000) and `test` (10,000) are the same for all seeds."""
    if SHARED.is_dir():
        os.environ.setdefault("HWNAS_DATA_DIR", str(SHARED))
    data = load_data("cifar10")
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed))[:IMAGES]
    assert data.train.labels is not None
    train = Images(pixels=data.train.pixels[order], labels=data.train.labels[order])
    return replace(data, train=train, digest=None)


subset_0, subset_1, subset_2 = (partial(_subset, seed) for seed in SEEDS)


class Lines(Progress):
    """Prints what stays, and now and then how far a step is, to stderr."""

    def __init__(self) -> None:
        self.told_s = time.monotonic()

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def advance(self, step: str, done: int, total: int, remark: str = "") -> None:
        if time.monotonic() - self.told_s >= TELL_AFTER_S:
            self.told_s = time.monotonic()
            self.say(f"{time.strftime('%H:%M:%S')} {step}: {done} of {total} {remark}")

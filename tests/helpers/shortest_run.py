"""Settings of the shortest whole run on the simulator: two steps of distillation, twelve networks."""

from __future__ import annotations

from hwnas.compress.settings import LibrarySettings, SearchSettings

LIBRARY = LibrarySettings(
    model="",
    weights="none",
    data="folder:photos",
    image_size=32,
    cuts=(),
    space="mixed",
    per_block=4,
    loss="nsr",
    train_epochs=1,
    epochs=1,
    steps=2,
    batch_size=16,
    slice_size=40,
    seed=0,
    threads=1,
)
SEARCH = SearchSettings(
    device="sim-npu",
    objectives=("latency",),
    filter="macs",
    filter_threshold=0.1,
    protocol="quick",
    population=6,
    generations=2,
    finetune_epochs=1,
    picks=("knee",),
)

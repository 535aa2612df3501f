"""Training on an NVIDIA GPU: `pytest -m hardware tests/hardware/test_cuda_training.py`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from spoilt_runs import LIBRARY, SEARCH
from workplace import tinynet

from hwnas.compress.library.candidates import find_candidates
from hwnas.compress.library.distill import (
    Distilled,
    DistillSettings,
    distill,
    positions_of,
    teacher_statistics,
)
from hwnas.compress.library.space import load_space
from hwnas.compress.library.teacher import Teacher, keep_features
from hwnas.compress.settings import Place
from hwnas.compress.tasks.classification import CLASSIFICATION
from hwnas.compress.training import loop
from hwnas.networks.partition import partition
from hwnas.progress import Progress

pytestmark = [
    pytest.mark.hardware,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU that torch can reach"),
]

HOW = DistillSettings(loss="nsr", epochs=2, steps=None, batch_size=16, seed=0)


def distilled(place: Place, folder: Path) -> list[Distilled]:
    parts, data = partition(tinynet.seeded(), (3, 32, 32)), replace(tiny.make_data(), place=place)
    candidates = find_candidates(parts, load_space("compression"), 3)
    teacher = Teacher(parts, data, {})
    kept = keep_features(teacher, folder / place, positions_of(parts, candidates), HOW.batch_size, print)
    statistics = teacher_statistics(teacher, {c.part for c in candidates}, HOW.batch_size)
    return distill(candidates, Teacher(parts, data, kept), statistics, HOW)


def test_candidates_learn_what_they_learn_on_the_cpu(tmp_path: Path) -> None:
    for on_cpu, on_gpu in zip(distilled("cpu", tmp_path), distilled("cuda", tmp_path), strict=True):
        assert on_cpu.metrics is not None
        assert on_gpu.metrics is not None
        assert on_gpu.metrics.nsr == pytest.approx(on_cpu.metrics.nsr, rel=0.05)
        assert {value.device.type for value in on_gpu.state.values()} == {"cpu"}


def test_a_killed_training_goes_on(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(epoch: int, loss: float) -> None:
        raise Killed

    model, data = tinynet.seeded(), replace(tiny.make_data(), place="cuda")
    how: dict[str, Any] = {
        "epochs": 6,
        "batch_size": 16,
        "learning_rate": 1e-2,
        "seed": 0,
        "state_file": tmp_path / "state",
    }
    loss = loop.target_loss(CLASSIFICATION)
    with pytest.raises(Killed):
        loop.fit(model, data, loss, progress=kill, **how)
    told: dict[int, float] = {}
    loop.fit(model, data, loss, progress=told.__setitem__, **how)
    assert list(told) == [2, 3, 4, 5, 6]
    at_once: dict[int, float] = {}
    whole = {**how, "state_file": tmp_path / "whole"}
    loop.fit(tinynet.seeded(), data, loss, progress=at_once.__setitem__, **whole)
    assert told[6] == pytest.approx(at_once[6], rel=0.05)
    assert {value.device.type for value in model.state_dict().values()} == {"cpu"}
    scores = loop.scores(model, data)
    assert scores is not None
    assert len(scores) == len(data.test)


def test_a_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    library = replace(LIBRARY, train_on="cuda")
    result = tiny.run_job(library, SEARCH, tmp_path / "run", "hwnas", Progress())
    assert result["checkpoints"]

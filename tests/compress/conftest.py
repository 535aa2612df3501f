"""What the tests of this room share: tiny data, a tiny reference, and one thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
import torch
from torch import nn
from workplace import tinynet

from hwnas.compress.data import Data
from hwnas.compress.library.candidates import find_candidates
from hwnas.compress.library.distill import DistillSettings, distill, teacher_statistics
from hwnas.compress.library.space import load_space
from hwnas.compress.library.store import Library
from hwnas.compress.library.teacher import Teacher
from hwnas.network import export_onnx
from hwnas.networks.build import build_part
from hwnas.networks.partition import Partition, partition


@pytest.fixture(autouse=True)
def repeatable() -> Iterator[None]:
    """The same random numbers and number of threads for each test, whichever ran before."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def data() -> Data:
    return tiny.make_data()


@pytest.fixture
def model() -> nn.Module:
    return tinynet.seeded()


@pytest.fixture
def parts(model: nn.Module) -> Partition:
    return partition(model, (3, 32, 32))


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the tiny network and the steady device, as the current one and importable."""
    tiny.furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


@pytest.fixture
def library(parts: Partition, data: Data, tmp_path: Path) -> Iterator[Library]:
    """Three candidates a block, distilled for two steps; the second one of block 1 has failed."""
    candidates = find_candidates(parts, load_space("compression"), 3)
    how = DistillSettings(loss="nsr", epochs=1, steps=2, batch_size=16, seed=0)
    library = Library(tmp_path / "library")
    library.add(candidates)
    teacher = Teacher(parts, data, {})
    statistics = teacher_statistics(teacher, range(len(parts.modules)), 16)
    results = distill(candidates, teacher, statistics, how)
    for candidate, result in zip(candidates, results, strict=True):
        if (candidate.part, candidate.choice) == (1, 2):
            library.fail(candidate, "it became nan")
            continue
        module = build_part(parts, candidate.part, candidate.spec)
        module.load_state_dict(result.state)
        library.finish(candidate, result, export_onnx(module, (1, *parts.shapes[candidate.part])))
    yield library
    library.close()

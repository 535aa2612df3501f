"""`--quality output`: a choice counts by what the output feels where it stands alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from shortest_run import LIBRARY, SEARCH
from tiny import run_job
from torch import nn
from workplace import tinynet

import hwnas
from hwnas.compress.data import Data
from hwnas.compress.library.stitch import Stitcher
from hwnas.compress.library.store import Library
from hwnas.compress.quality import output
from hwnas.compress.quality.kinds import quality_kind
from hwnas.compress.reference.prepare import Reference
from hwnas.compress.search.record import FrontRecord
from hwnas.compress.training import loop
from hwnas.networks.architecture import ReferenceSpec
from hwnas.networks.partition import Partition
from hwnas.progress import Progress


@pytest.fixture
def device(parts: Partition, data: Data, library: Library, tmp_path: Path) -> Any:
    spec = ReferenceSpec(source="function", name="tinynet:make")
    reference = Reference(spec=spec, parts=parts, data=data)
    directory = SimpleNamespace(library=tmp_path)
    settings = SimpleNamespace(loss="nsr")
    run = SimpleNamespace(
        reference=reference, directory=directory, settings=settings, progress=Progress(), library=library
    )
    return SimpleNamespace(run=run, stitcher=Stitcher(parts, library))


@torch.no_grad()
def divergence(student: nn.Module, teacher: nn.Module, data: Data) -> float:
    """Mean KL divergence of the student's classes from the teacher's, in nats, over `val`."""
    x = data.normalize(data.val.pixels)
    wanted, given = teacher(x).double().log_softmax(1), student(x).double().log_softmax(1)
    return float((wanted.exp() * (wanted - given)).sum(1).mean())


def test_a_choice_adds_the_divergence_that_it_alone_makes(device: Any, data: Data) -> None:
    model = quality_kind("output")(device)
    stitcher, parts = device.stitcher, device.run.reference.parts
    ones = [(part, choice) for part, of in enumerate(stitcher.choices) for choice in of if choice]
    assert ones
    for part, choice in ones:
        alone = tuple(choice if n == part else 0 for n in range(len(parts.modules)))
        expected = divergence(stitcher.module(alone), device.run.reference.module(), data)
        assert model.loss(alone) == pytest.approx(expected, abs=1e-5)
    all_last = tuple(of[-1] for of in stitcher.choices)
    tables = model.part_losses(stitcher.choices)
    assert model.loss(all_last) == pytest.approx(sum(table[-1] for table in tables))
    assert model.loss((0,) * len(parts.modules)) == 0
    assert model.predicted(all_last) is None


def test_the_network_is_asked_once_and_again_where_the_file_is_damaged(
    device: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = quality_kind("output")(device)
    asked: list[int] = []
    real: Any = loop.distance_on_val

    def counted(*given: Any) -> float:
        asked.append(1)
        return real(*given)  # type: ignore[no-any-return]

    monkeypatch.setattr(loop, "distance_on_val", counted)
    again = quality_kind("output")(device)
    assert not asked
    (tmp_path / output.FILE).write_text("{")
    mended = quality_kind("output")(device)
    assert len(asked) == len(device.stitcher.entries) + 1
    choices = device.stitcher.choices
    for other in (again, mended):
        for table, same in zip(first.part_losses(choices), other.part_losses(choices), strict=True):
            assert np.array_equal(table, same)


def test_an_output_that_is_no_number_is_the_worst(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = next(iter(device.stitcher.entries.values()))
    part, choice = entry.candidate.part, entry.candidate.choice
    broken = tinynet.seeded()
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    real: Any = device.stitcher.module

    def module(choices: tuple[int, ...]) -> nn.Module:
        return broken if choices[part] == choice else real(choices)

    monkeypatch.setattr(device.stitcher, "module", module)
    model = quality_kind("output")(device)
    alone = tuple(choice if n == part else 0 for n in range(len(device.run.reference.parts.modules)))
    assert model.loss(alone) == output.WORST


@pytest.mark.slow
def test_a_whole_run_by_it(workplace: Path) -> None:
    library = replace(LIBRARY, model="tinynet:make", data="digits")
    search = replace(SEARCH, quality="output")
    result = run_job(library, search, workplace / "run", "hwnas compress …", Progress(), allow_code=True)
    (checkpoint,) = result["checkpoints"]
    found = FrontRecord.read(workplace / "run" / "devices" / "sim-npu", "-output")
    assert found.quality == "output"
    assert tuple(checkpoint["choices"]) in {row.choices for row in found.front}
    assert (workplace / "run" / "library" / "output.json").is_file()
    (device,) = hwnas.open_run(workplace / "run").status().devices
    assert [each.name for each in device.checkpoints] == ["sim-npu-output-knee"]

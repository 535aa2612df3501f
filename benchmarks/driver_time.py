"""The driver's own time: a whole run whose candidates are trained already, and the history of a network.

python benchmarks/driver_time.py [CANDIDATES ...]

Candidates get random weights and metrics, and so does the reference, so nothing is distilled. Seconds are
of the CPU, which other processes hardly change; at rising sizes their ratio shows whether they grow linearly.
"""

from __future__ import annotations

import io
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from hwnas.cli.main import app
from hwnas.compress.library.distill import Distilled
from hwnas.compress.library.metrics import BlockMetrics
from hwnas.compress.library.open_run import Inputs, open_inputs
from hwnas.compress.library.store import Library
from hwnas.compress.pipeline import compress
from hwnas.compress.run.directory import RunDirectory
from hwnas.compress.search.target import target_of
from hwnas.compress.settings import LibrarySettings, SearchSettings
from hwnas.measurement import Conditions, Fingerprint, Measurement
from hwnas.network import export_onnx
from hwnas.networks.architecture import Candidate
from hwnas.networks.build import build_part
from hwnas.onnx_file import operators_of
from hwnas.profiles.protocols import QUICK
from hwnas.profiles.store import open_history
from hwnas.progress import Progress

CANDIDATES = (480, 960, 1920)
ROWS = (2_500, 5_000, 10_000)
MODEL = "driver_time:network"


def network() -> nn.Module:
    """Five blocks of a few channels: DONNA's space has 384 candidates for each."""

    def layer(c_in: int, c_out: int, stride: int = 1) -> nn.Sequential:
        conv = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(c_out), nn.ReLU())

    model = nn.Sequential()
    model.stem = layer(3, 8, 2)
    model.stages = nn.Sequential(layer(8, 8), layer(8, 16, 2), layer(16, 16), layer(16, 24, 2), layer(24, 24))
    model.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10))
    model.input_shape = (3, 32, 32)  # type: ignore[assignment]
    return model


SETTINGS = LibrarySettings(
    model=MODEL,
    weights="given",
    data="digits",
    cuts=("stem", *(f"stages.{number}" for number in range(5))),
    space="donna",
    per_block=0,
    loss="nsr",
    train_epochs=1,
    epochs=1,
    steps=1,
    batch_size=256,
    slice_size=16,
    seed=0,
    threads=1,
)
SEARCH = SearchSettings(
    device="sim-npu",
    objectives=("latency",),
    protocol="once",
    population=20,
    generations=10,
    finetune_epochs=1,
    picks=("knee",),
    filter="none",
    filter_threshold=0.1,
)
Made = dict[str, tuple[dict[str, torch.Tensor], bytes]]


def make(inputs: Inputs, candidate: Candidate, made: Made) -> tuple[dict[str, torch.Tensor], bytes]:
    """A candidate's fresh weights and its graph, exported once for all sizes of library."""
    if candidate.name not in made:
        module = build_part(inputs.parts, candidate.part, candidate.spec)
        graph = export_onnx(module, (1, *inputs.parts.shapes[candidate.part]))
        made[candidate.name] = {key: value.clone() for key, value in module.state_dict().items()}, graph
    return made[candidate.name]


def fill(inputs: Inputs, out: Path, made: Made) -> None:
    """A run directory in which every candidate is done."""
    draw = random.Random(0)
    with (
        RunDirectory.open(out, inputs.settings, inputs.hashes) as directory,
        Library(directory.library) as library,
    ):
        library.add(inputs.candidates)
        for candidate in inputs.candidates:
            state, graph = make(inputs, candidate, made)
            loss = draw.random()
            metrics = BlockMetrics(nsr=loss, mse=loss, relative_l1=loss)
            library.store_operators([(candidate, operators_of(graph))])
            library.finish(
                candidate, Distilled(state=state, metrics=metrics, end_slope=0.0, seconds=1.0), graph
            )


def time_run(out: Path, per_block: int, made: Made) -> tuple[float, ...]:
    """How many candidates, and the CPU seconds of the command's first call and of the next one."""
    settings = replace(SETTINGS, per_block=per_block)
    torch.manual_seed(0)
    fill(open_inputs(settings, Progress()), out, made)
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        start = time.process_time()
        inputs = open_inputs(settings, Progress())
        wanted = [(SEARCH, target_of(SEARCH))]
        compress(inputs, wanted, out, "hwnas compress …", Progress()).require_all()
        found.append(time.process_time() - start)
    return len(inputs.candidates), found[0], found[1]


def remember(rows: int) -> None:
    """Fill the history with measurements of one network, of 30 samples each."""
    fingerprint = Fingerprint(
        chip="c", os_build="o", driver="d", runtime="r", precision="fp32", power_mode="default"
    )
    draw = random.Random(0)
    measurements = [
        Measurement(
            network_hash="n" * 64,
            network_name="net",
            device_name="cpu",
            kind="measured",
            fingerprint=fingerprint,
            protocol=QUICK,
            repeats_ms=tuple(tuple(5 + draw.random() for _ in range(10)) for _ in range(3)),
            anchor_ms=(),
            warmup_ms=(),
            metrics={},
            placement={"CPUExecutionProvider": {"Conv": 50}},
            started_at=f"2026-01-01T{row // 3600:02}:{row // 60 % 60:02}:{row % 60:02}+00:00",
            conditions=(Conditions(), Conditions()),
        )
        for row in range(rows)
    ]
    with open_history() as store:
        store.add_new(measurements)


def seconds(*options: str) -> float:
    """The CPU seconds of `hwnas history net`, in this process."""
    start = time.process_time()
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        app(["history", "net", *options], standalone_mode=False)
    return time.process_time() - start


@contextmanager
def a_home() -> Iterator[Path]:
    """A folder of its own, with an empty history."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HWNAS_HOME"] = folder
        yield Path(folder)


def main() -> None:
    """Print seconds at each size, and how they compare with the size before."""
    sizes = [int(text) for text in sys.argv[1:]] or CANDIDATES
    torch.set_num_threads(1)
    made: Made = {}
    with a_home() as folder:
        time_run(folder / "run", 1, made)  # everything is imported and built once
    print(
        "a whole run, its candidates trained already: s of the first call (with one epoch of finetuning and"
    )
    print("the checkpoint), and of the same command again")
    last: tuple[float, ...] = ()
    for size in sizes:
        with a_home() as folder:
            last = tell(time_run(folder / "run", size // 5, made), last)
    print("hwnas history of a network: s of the table, --json and --html")
    last = ()
    for rows in ROWS:
        with a_home() as folder:
            remember(rows)
            options = ((), ("--json",), ("--html", str(folder / "page.html")))
            found = [seconds(*each) for each in options]
            last = tell((rows, *found), last)


def tell(row: tuple[float, ...], last: tuple[float, ...]) -> tuple[float, ...]:
    """Print a size and its seconds, each with its ratio to the row before."""
    size, *times = row
    before = last or row
    cells = [f"{size:7}"] + [f"{value:7.2f} s" for value in times]
    ratios = [f" ({value / old:4.2f} x)" if last else "" for value, old in zip(row, before, strict=True)]
    print("  ".join(map("".join, zip(cells, ratios, strict=True))), flush=True)
    return row


if __name__ == "__main__":
    main()

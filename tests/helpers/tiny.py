"""A workplace for whole runs that take seconds: a tiny network of one's own and a device that never errs.

The device is a real plugin (a module and its entry point), so that subprocesses find it as well.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from hwnas.compress.data import Data, Images
from hwnas.compress.library.open_run import open_inputs
from hwnas.compress.pipeline import compress
from hwnas.compress.search.target import target_of
from hwnas.compress.settings import LibrarySettings, SearchSettings
from hwnas.files import write_signed
from hwnas.networks.blocks.inverted_bottleneck import InvertedBottleneckSpec
from hwnas.networks.intact import REFERENCE_SCHEMA
from hwnas.progress import Progress

ROOT = Path(__file__).parents[2]
MODEL = "tinynet:make"
DEVICE = "steady.toml"


def run_job(
    library: LibrarySettings,
    search: SearchSettings,
    out: Path,
    command: str,
    progress: Progress,
    *,
    allow_code: bool = False,
) -> dict[str, Any]:
    """What `hwnas compress` does with these settings, and prints of its one device."""
    target = target_of(search)
    inputs = open_inputs(library, progress, allow_code=allow_code)
    result = compress(inputs, [(search, target)], out, command, progress)
    result.require_all()
    return of_one_device(json.loads(json.dumps(result.to_json())))


def of_one_device(result: dict[str, Any]) -> dict[str, Any]:
    """The JSON of `hwnas compress` for one device, what it says of that beside the rest."""
    (device,) = result["devices"].values()
    return {**result, **device}


def write_record(folder: Path) -> None:
    """Write a record of a run's reference that knows no hashes and no answer, as early versions did."""
    write_signed(folder / "reference.json", {"schema": REFERENCE_SCHEMA})


def furnish(folder: Path) -> None:
    """Write the network, the device plugin, its profiles and the killer into a folder."""
    for file in Path(__file__).with_name("workplace").glob("*.py"):
        shutil.copy(file, folder)
    info = folder / "steady_device-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: steady-device\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[hwnas.devices]\nsteady = steady_device:Steady\nmodelled = steady_device:Modelled\n"
        "functional = steady_device:Functional\nliar = steady_device:Liar\n"
        "fickle = fickle_device:Fickle\nnoisy = noisy_device:Noisy\n"
    )
    for device in ("modelled", "functional", "noisy"):
        (folder / f"{device}.toml").write_text(
            f'name = "{device}"\ndevice = "{device}"\ndescription = "a plugin"\n'
        )
    (folder / "steady.toml").write_text('name = "steady"\ndevice = "modelled"\ndescription = "a plugin"\n')
    (folder / "picky.toml").write_text(
        'name = "picky"\ndevice = "modelled"\ndescription = "a plugin"\n[options]\nrefuses = 4\n'
    )


def compress_arguments(out: str, *more: str, **changed: object) -> list[str]:
    """The arguments of a `hwnas compress` of the tiny network that takes seconds."""
    options: dict[str, object] = {
        "device": DEVICE,
        "data": "digits",
        "preset": "quick",
        "weights": "none",
        "candidates": 3,
        "train-epochs": 2,
        "epochs": 1,
        "steps": 4,
        "batch-size": 256,
        "slice-size": 2,
        "threads": 1,
        "population": 6,
        "generations": 3,
        "finetune-epochs": 2,
        "out": out,
    }
    options |= {key.replace("_", "-"): value for key, value in changed.items()}
    return ["compress", MODEL, *(f"--{key}={value}" for key, value in options.items()), *more]


def places(folder: Path) -> dict[str, str]:
    """The environment of a process in a furnished folder: places of its own, and no network."""
    return os.environ | {
        "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT))),
        "HWNAS_HOME": str(folder / "home"),
        "HWNAS_CONFIG": str(folder / "config"),
        "HWNAS_CACHE": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
    }


def run_command(folder: Path, command: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Any command in a furnished folder."""
    return subprocess.run(
        command,
        cwd=folder,
        env=places(folder) | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def run_python(
    folder: Path, arguments: Sequence[str], **environment: str
) -> subprocess.CompletedProcess[str]:
    """A fresh process in a furnished folder, with places of its own and without network."""
    return run_command(folder, [sys.executable, *arguments], **environment)


def start_python(folder: Path, arguments: Sequence[str], **environment: str) -> subprocess.Popen[bytes]:
    """The same, going on beside the test; what it says is lost."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env=places(folder) | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def run_hwnas(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line in a fresh process."""
    return run_python(folder, ["-m", "hwnas", *arguments], **environment)


def make_data(train: int = 72, val: int = 20, test: int = 20, labels: bool = True) -> Data:
    generator = torch.Generator().manual_seed(1)

    def images(count: int) -> Images:
        pixels = torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
        classes = torch.randint(0, 10, (count,), generator=generator)
        return Images(pixels=pixels, labels=classes if labels else None)

    return Data(
        name="noise",
        class_names=tuple("0123456789") if labels else (),
        train=images(train),
        val=images(val),
        test=images(test),
        mean=(0.5, 0.4, 0.6),
        std=(0.3, 0.2, 0.25),
        shift_px=2,
        flip=True,
    )


def make_spec(**changed: Any) -> InvertedBottleneckSpec:
    """Two depthwise layers of kernel 3 with ReLU, changed as given."""
    values: dict[str, Any] = {
        "kernel": 3,
        "expand": 3,
        "depth": 2,
        "activation": "relu",
        "se": False,
        "layer": "depthwise",
        "width": 1.0,
    }
    return InvertedBottleneckSpec(**(values | changed))


def tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file with its content and time of change, SQLite's auxiliary files apart."""
    files = (
        path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    )
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def snapshot(run: Path) -> dict[str, str]:
    """Hashes of what must not depend on whether a run was killed: files, and the library's rows."""
    patterns = (
        "reference/*.safetensors",
        "reference/*.onnx",
        "reference/*.json",
        "library/blocks/*",
        "architectures/*",
        "devices/*/*.json",
        "checkpoints/*/model.*",
        "checkpoints/*/architecture.json",
    )
    files = (path for pattern in patterns for path in run.glob(pattern))
    found = {str(p.relative_to(run)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    with contextlib.closing(sqlite3.connect(run / "library" / "library.db")) as connection:
        connection.row_factory = sqlite3.Row
        for row in connection.execute("SELECT * FROM candidates"):
            known = {key: row[key] for key in row.keys() if key != "seconds"}  # noqa: SIM118
            found[f"row {row['part']} {row['choice']}"] = repr(known)
    return found

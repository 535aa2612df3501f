"""The run directory: everything a run knows, and all that resuming needs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Self

from hwnas.compress.run.cost_log import CostLog
from hwnas.compress.settings import LibrarySettings
from hwnas.errors import InputError, RunDirectoryError
from hwnas.files import (
    check_schema,
    check_signature,
    decode,
    encode,
    read_toml,
    safe_name,
    signed,
    write_toml,
)
from hwnas.locks import take_lock
from hwnas.measurement import STRICT
from hwnas.temporary import LEFTOVER
from hwnas.version import __version__

SCHEMA = "hwnas.run/3"
RECORD = "run.toml"
LOCK = ".lock"
LOCK_WAIT_S = 0.3
"""Longer than anybody needs who only asks whether the lock is held."""


@dataclass(frozen=True)
class RunDirectory:
    """Paths inside of a run directory, which one process at a time may write to."""

    path: Path
    lock: int
    cost_log: CostLog

    @staticmethod
    def open(path: Path, settings: LibrarySettings, hashes: dict[str, str]) -> RunDirectory:
        """Make a run directory, or go on in one that was made with the very same settings.

        Args:
            hashes: content hashes that the library depends on, by what they are of.

        Raises:
            RunDirectoryError: it holds something else, belongs to other settings, versions or contents, or
                another process works in it.
        """
        record = RunRecord(settings=settings, versions=versions(), hashes=hashes)
        file = path / RECORD
        try:
            if not file.exists() and path.exists() and any(_is_foreign(item) for item in path.iterdir()):
                raise RunDirectoryError(
                    f"{path} is not empty and not a run directory", "choose another with --out PATH"
                )
            path.mkdir(parents=True, exist_ok=True)
            lock = take_lock(path / LOCK, LOCK_WAIT_S)
        except BlockingIOError:
            raise RunDirectoryError(
                f"another hwnas process works in {path}",
                "wait for it, or choose another place with --out PATH",
            ) from None
        except OSError as error:
            raise RunDirectoryError(
                f"cannot write to {path}: {error.strerror}", "choose another place with --out PATH"
            ) from None
        try:
            if not file.exists():
                record.write(path)
            _require_same(path, RunRecord.read(path), record)
            run = RunDirectory(path, lock, CostLog(path / "account.json"))
            refuse_links(path)
            run.reference.mkdir(exist_ok=True)
            _clean(path)
        except BaseException:
            os.close(lock)
            raise
        return run

    @staticmethod
    def join(path: Path, lock: int) -> RunDirectory:
        """The directory in a process of whoever opened it.

        Args:
            lock: the descriptor of the lock, inherited: held until the last of these processes has ended.
        """
        return RunDirectory(path, lock, CostLog(path / "account.json"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.lock)

    @property
    def reference(self) -> Path:
        """What is compressed: weights, graph, architecture."""
        return self.path / "reference"

    @property
    def library(self) -> Path:
        """The block library."""
        return self.path / "library"

    @property
    def architectures(self) -> Path:
        """Networks that were finetuned, and the predictor fitted to them; made when it is asked for."""
        folder = self.path / "architectures"
        folder.mkdir(exist_ok=True)
        return folder

    def device(self, name: str) -> Path:
        """What is known about one device; made when it is asked for."""
        folder = self.path / "devices" / safe_name(name)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def checkpoints(self) -> Path:
        """Emitted networks; made when it is asked for."""
        folder = self.path / "checkpoints"
        folder.mkdir(exist_ok=True)
        return folder


def refuse_links(path: Path) -> None:
    """Refuse a run directory from which a link leads outside: nothing is read or written elsewhere.

    Raises:
        RunDirectoryError: names the link.
    """
    inside = path.resolve()
    for item in _links(path):
        if not item.resolve().is_relative_to(inside):
            raise RunDirectoryError(
                f"{item} is a link that leads out of the run directory",
                "put the files themselves there, or choose another place with --out PATH",
            )


def _links(folder: Path) -> Iterator[Path]:
    """Every link below a folder; a folder that goes meanwhile has none."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                yield Path(entry)
            elif entry.is_dir():
                yield from _links(Path(entry))


def _is_foreign(item: Path) -> bool:
    """Whether something is not what a run leaves behind that was killed before `run.toml` was written."""
    return item.name != LOCK and not (item.name.startswith(".run.toml.") and item.name.endswith(LEFTOVER))


def _clean(path: Path) -> None:
    """Remove what a killed process had not finished; the lock is held, so nobody is writing."""
    for item in list(path.rglob(f".*{LEFTOVER}")):
        if item.is_dir():
            shutil.rmtree(item)
        else:
            item.unlink(missing_ok=True)  # it may have been in a folder that is gone by now
    for state in path.glob("architectures/.*.safetensors"):  # of trainings
        if state.with_name(state.name.removeprefix(".")).with_suffix(".json").is_file():  # that are done
            state.unlink()


def versions() -> dict[str, str]:
    """Of the packages that results depend on."""
    return {"hwnas": __version__, **{name: metadata.version(name) for name in ("torch", "timm", "onnx")}}


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """`run.toml`: what a run directory was made with.

    Attributes:
        versions: of the packages that results depend on.
        hashes: of the contents that the library depends on, by what they are of.
    """

    __pydantic_config__ = STRICT
    settings: LibrarySettings
    versions: dict[str, str]
    hashes: dict[str, str]

    @staticmethod
    def read(run: Path) -> RunRecord:
        """Read `run.toml` of a run directory. Raises InputError: it is not what was written."""
        file = run / RECORD
        plain = check_signature(check_schema(read_toml(file), SCHEMA, file), file)
        return decode(RunRecord, plain, file)

    def write(self, run: Path) -> None:
        """Write `run.toml` into a run directory."""
        write_toml(run / RECORD, {"schema": SCHEMA, **signed(encode(self))})


def _require_same(run: Path, found: RunRecord, wanted: RunRecord) -> None:
    for section in ("settings", "versions", "hashes"):
        was = encode(getattr(found, section))
        for key, value in encode(getattr(wanted, section)).items():
            if was.get(key) != value:
                raise RunDirectoryError(
                    f"{run} was made with {key} = {was.get(key)!r}, now it is {value!r}",
                    "choose another place with --out PATH, or give what it was made with",
                )


def is_run(path: Path) -> bool:
    """Whether a path is a run directory."""
    return (path / RECORD).is_file()


def not_a_run(path: Path) -> InputError:
    """What to say of a path that is none."""
    return InputError(
        f"{path} is not a run directory: it has no {RECORD}",
        "give the directory that `hwnas compress --out` named, such as runs/demo",
    )


def recorded_settings(run: Path) -> LibrarySettings | None:
    """Return what a run directory was made with; None where there is no run yet."""
    return RunRecord.read(run).settings if is_run(run) else None

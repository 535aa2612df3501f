"""What a compression left: `open_run`, `load`, runs and checkpoints."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.api.arguments import checked_path
from hwnas.errors import InputError
from hwnas.global_state import torch_as_before
from hwnas.progress import Progress

if TYPE_CHECKING:
    from torch import nn

    from hwnas.compress.emit.status import RunStatus
    from hwnas.compress.emit.summary import Summary
    from hwnas.compress.extend import Extension
    from hwnas.compress.quality.predict import Prediction
    from hwnas.compress.quality.predictor import Predictor
    from hwnas.compress.report.explore import Exploration
    from hwnas.compress.report.layers import SimilarityRecord
    from hwnas.compress.search.record import FrontRecord


def open_run(path: str | os.PathLike[str]) -> Run:
    """Open a run directory to look at what it holds.

    Raises:
        InputError: it is none, or has not searched yet.

    >>> import hwnas
    >>> hwnas.open_run("runs/a").devices
    ['steady']
    """
    from hwnas.compress.report.stored import device_folders

    folder = checked_path("path", path)
    device_folders(folder)
    return Run(folder)


def load(path: str | os.PathLike[str], *, allow_code: bool = False) -> nn.Module:
    """Read an emitted checkpoint directory back as a torch module in eval mode.

    Args:
        path: the checkpoint directory, holding `architecture.json` and `model.safetensors`.
        allow_code: import and call the `module:function` that a checkpoint of one's own network names.

    Raises:
        InputError: a file is missing, damaged, or names code that is not allowed or cannot be imported.

    >>> import hwnas
    >>> hwnas.load("runs/a/checkpoints/steady-knee", allow_code=True).training
    False
    """
    from hwnas.networks.serialize import load_module

    return load_module(checked_path("path", path), allow_code=allow_code)


@dataclass(frozen=True)
class Checkpoint:
    """An emitted network.

    Attributes:
        path: its folder.
        summary: what it amounts to: latency, accuracy and sizes, beside the reference's.

    >>> import hwnas
    >>> checkpoint = hwnas.open_run("runs/a").checkpoint("steady")
    >>> checkpoint.path.name, checkpoint.summary.pick
    ('steady-knee', 'knee')
    """

    path: Path
    summary: Summary

    def module(self, *, allow_code: bool = False) -> nn.Module:
        """Return the network with its weights, in eval mode; see `load`.

        >>> checkpoint.module(allow_code=True).training
        False
        """
        return load(self.path, allow_code=allow_code)


@dataclass(frozen=True)
class Run:
    """A run directory: fronts, checkpoints and reports of its devices.

    >>> import hwnas
    >>> run = hwnas.open_run("runs/a")
    >>> front = run.front("steady").front
    >>> front[0].cost_ratios["latency"] <= front[-1].cost_ratios["latency"]
    True
    """

    path: Path

    @property
    def devices(self) -> list[str]:
        """The devices that have a front.

        >>> run.devices
        ['steady']
        """
        from hwnas.compress.report.stored import device_folders

        return [folder.name for folder in device_folders(self.path)]

    def front(self, device: str, kind: str = "") -> FrontRecord:
        """Return the front of a device.

        Args:
            kind: of the search; empty for NSGA-II by loss and latency, otherwise as in the file's name, such
                as `latency-params`.

        Raises:
            InputError: there is no such front, with those that are there, or its file is damaged.

        >>> run.front("steady").device
        'steady'
        """
        from hwnas.compress.report.stored import device_folder
        from hwnas.compress.search.record import FrontRecord

        return FrontRecord.read(device_folder(self.path, device), f"-{kind}" if kind else "")

    def checkpoint(self, device: str, pick: str = "knee") -> Checkpoint:
        """Return the network that was picked for a device, by `knee`, `speedup-1.5` or `latency-ms-2`.

        Raises:
            InputError: there is none, with those that are there.

        >>> run.checkpoint("steady").summary.pick
        'knee'
        """
        found = self.checkpoints()
        name = f"{device}-{pick.replace('=', '-')}"
        for each in found:
            if each.path.name == name:
                return each
        names = ", ".join(each.path.name for each in found) or "none"
        raise InputError(f"{self.path} has no checkpoint {name}", f"it has {names}")

    def checkpoints(self) -> list[Checkpoint]:
        """Return all emitted networks, by name.

        >>> [checkpoint.path.name for checkpoint in run.checkpoints()]
        ['steady-knee']
        """
        from hwnas.compress.emit.summary import CheckpointRecord

        folders = sorted(self.path.glob("checkpoints/[!.]*"))
        return [Checkpoint(folder, CheckpointRecord.read(folder).summary) for folder in folders]

    def status(self) -> RunStatus:
        """Return how far the run is; a process may work on it meanwhile, and nothing is changed.

        Raises:
            InputError: it is no run directory. RunDirectoryError: a file of it is damaged.

        >>> hwnas.open_run("runs/a").status().is_running
        False
        """
        from hwnas.compress.emit.status import read_status

        return read_status(self.path)

    def report(self, device: str | None = None) -> list[Path]:
        """Make the reports of a device again, or those of all and their comparison, and return their files.

        Raises:
            InputError: no such device. RunDirectoryError: a file of the run is damaged.

        >>> [path.name for path in run.report()]
        ['report.html']
        """
        from hwnas.compress.emit import cross_device
        from hwnas.compress.report import write_reports
        from hwnas.compress.report.cross_device import write_comparison

        paths = write_reports(self.path, device)
        if device is None and (self.path / cross_device.FILE).is_file():
            paths.append(write_comparison(self.path))
        return paths

    def extend(
        self,
        space: str,
        *,
        candidates: int = 0,
        allow_code: bool = False,
        progress: Progress | None = None,
    ) -> Extension:
        """Distil the candidates of another space into the library; what is there stays as it is.

        Args:
            space: its name, or a `.toml` file.
            candidates: new ones of a block at most; 0 leaves it to the space.
            allow_code: let a checkpoint import the `module:function` that it names.

        Raises:
            HwnasError: there is no run, or nothing of the space fits; what was distilled is kept.

        >>> run.extend("compression", candidates=1).added
        0
        """
        from hwnas.compress.extend import extend

        with torch_as_before():
            return extend(self.path, space, candidates, progress or Progress(), allow_code=allow_code)

    def predict(self, *architectures: str) -> tuple[Predictor, list[Prediction]]:
        """Predict the accuracy that networks will have once they are finetuned, and return by what.

        Args:
            architectures: a choice for each part, 0 the reference's own: `0-3-1-2-0`.

        Raises:
            InputError: no predictor, or no such network. RunDirectoryError: a file of the run is damaged.

        >>> run.predict("0-0-0-0")  # it was made by `quality="loss"`
        Traceback (most recent call last):
            ...
        hwnas.errors.InputError: runs/a has no accuracy predictor yet
          fix: give its `hwnas compress` command with --quality predictor
        """
        from hwnas.compress.quality.predict import predict_networks

        return predict_networks(self.path, architectures)

    def similarity(
        self, device: str | None = None, *, allow_code: bool = False, progress: Progress | None = None
    ) -> SimilarityRecord:
        """Compare the layers of the reference, the checkpoints and the front's networks (linear CKA).

        What is found is stored beside the front; `report` shows it.

        Args:
            device: that has a front; None for the only one.
            allow_code: let a checkpoint import the `module:function` that it names.

        Raises:
            InputError: no such device, several of them and none named, or what the run was made from changed.
            RunDirectoryError: a file of the run is damaged.

        >>> found = run.similarity(allow_code=True)
        >>> [network.name for network in found.networks]
        ['reference', 'steady-knee']
        """
        from hwnas.compress.report.similarity import compare_layers

        folder = self._device_folder(device)
        with torch_as_before():
            return compare_layers(self.path, folder, progress or Progress(), allow_code=allow_code)

    def explore(self, *lines: str, device: str | None = None) -> tuple[Exploration, Path]:
        """Find the fronts of parts of the library, and write them to a page; nothing is trained or measured.

        Args:
            lines: `NAME=FILTER`: conditions on properties of candidates, with commas between, all of which
                have to hold; `+` stands between values of which one suffices: `small=kernel=3+5,width<1`.
            device: that has a front; None for the only one.

        Returns:
            The fronts, that of the whole library first, and the page.

        Raises:
            InputError: no such device, several of them and none named, or a line that is none.
            RunDirectoryError: a file of the run is damaged.

        >>> found, page = run.explore("shallow=depth=1")
        >>> [line.name for line in found.lines], page.name
        (['all', 'shallow'], 'explore.html')
        """
        from hwnas.compress.report.explore import explore, parse_line
        from hwnas.compress.report.explore_page import write_exploration
        from hwnas.compress.report.stored import read_run
        from hwnas.compress.run.directory import refuse_links

        asked = [parse_line(line) for line in lines]
        folder = self._device_folder(device)
        refuse_links(self.path)
        stored = read_run(self.path, folder)
        found = explore(stored, stored.searches[0], asked)
        return found, write_exploration(folder, stored.settings.model, found)

    def _device_folder(self, device: str | None) -> Path:
        """The folder of a device that has a front, of the only one where none is named. Raises InputError."""
        from hwnas.compress.report.stored import device_folder

        names = self.devices
        if device is None and len(names) > 1:
            raise InputError(
                f"{self.path} has fronts of {', '.join(names)}", f"name one: --device {names[0]}"
            )
        return device_folder(self.path, device or names[0])

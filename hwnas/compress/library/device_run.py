"""One device of an open run: its networks, its folder, and the sessions in which they are measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hwnas.compress.library.operators import find_refused
from hwnas.compress.library.run import Run
from hwnas.compress.library.stitch import Stitcher
from hwnas.compress.library.target import Target, calibration_images
from hwnas.compress.settings import SearchSettings
from hwnas.measurement import Protocol
from hwnas.profiles.catalogue import open_device
from hwnas.profiles.queue import watch_queue
from hwnas.profiles.session import Session
from hwnas.profiles.store import MeasurementStore


@dataclass(frozen=True, kw_only=True)
class DeviceRun:
    """A run on one of its devices."""

    run: Run
    search: SearchSettings
    target: Target

    @property
    def name(self) -> str:
        """The device profile's."""
        return self.target.profile.name

    @property
    def folder(self) -> Path:
        """What the run directory knows about the device; made when it is asked for."""
        return self.run.directory.device(self.name)

    @cached_property
    def stitcher(self) -> Stitcher:
        """The networks of the library that the device accepts."""
        run, forbidden = self.run, self.target.profile.forbidden_operators
        reference, library = run.reference, run.library
        refused = find_refused(reference.measured, library.entries(), forbidden) if forbidden else {}
        calibration = calibration_images(reference.data, reference.measured.image_shape)
        return Stitcher(
            reference.parts, library, calibration, refused, run.settings.loss, measured=reference.measured
        )

    @contextmanager
    def session(self, protocol: Protocol) -> Iterator[Session]:
        """Open a session beside the anchor; what it measures is kept in the device's folder.

        At the end it is said what stands against the measurements. What is measured by the search's protocol
        is bounded by `max_measurements`.

        Raises:
            HwnasError: as `Session`.
        """
        bound = self.search.max_measurements if protocol == self.target.protocol else None
        with (
            MeasurementStore(self._measurements_file) as store,
            Session(
                open_device(self.target.profile, self.target.cluster),
                protocol,
                store,
                anchor=self.stitcher.network(self.stitcher.anchor),
                max_measurements=bound,
                watch=watch_queue(self.run.progress),
            ) as session,
        ):
            yield session
            for text in session.judgement:
                self.run.progress.say(text)

    @property
    def _measurements_file(self) -> Path:
        """Those beside another anchor are ratios to something else."""
        anchor = self.stitcher.anchor
        return self.folder / f"measurements{'-' + '-'.join(map(str, anchor)) if any(anchor) else ''}.db"

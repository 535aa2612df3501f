"""What a run directory says of its reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hwnas.compress.tasks.task import ACCURACY, Metric
from hwnas.errors import InputError, RunDirectoryError
from hwnas.files import decode, encode, read_signed, write_signed
from hwnas.measurement import Interval
from hwnas.networks.architecture import Candidate, Places
from hwnas.networks.intact import REFERENCE_RECORD, REFERENCE_SCHEMA
from hwnas.networks.partition import Shared, counted_again
from hwnas.ranges import Count, Figure


@dataclass(frozen=True, kw_only=True)
class ReferenceRecord:
    """`reference.json`. Hashes are empty where an earlier version did not write them.

    Attributes:
        answer: what it gives for inputs that are always the same; None where it was not asked.
        trained_epochs: 0 where it brought its weights.
        accuracy: on the test part, by `metric`; None without labels.
        parts: their names.
        macs, params: of each part with a number.
        joints: MACs and parameters of the parts between them.
        shared: weights that several parts hold, in the params of each of them.
        regions: the values between which each block stands, in each of its places.
        partition_max_abs_difference: between the composed parts and the whole network.
    """

    weights_sha256: str = ""
    architecture_sha256: str = ""
    onnx_sha256: str = ""
    answer: tuple[Figure, ...] | None = None
    trained_epochs: Count
    metric: Metric = ACCURACY
    accuracy: Interval | None
    parts: tuple[str, ...]
    macs: tuple[Count, ...]
    params: tuple[Count, ...]
    shared: tuple[Shared, ...] = ()
    joints: tuple[Count, Count] = (0, 0)
    regions: tuple[Places, ...] = ()
    partition_max_abs_difference: Figure = 0.0

    @staticmethod
    def read(folder: Path) -> ReferenceRecord:
        """Read the record in a run's `reference/`. Raises RunDirectoryError: it is not what was written."""
        path = folder / REFERENCE_RECORD
        try:
            return decode(ReferenceRecord, read_signed(path, REFERENCE_SCHEMA), path)
        except InputError as error:
            raise RunDirectoryError(error.cause, f"restore {path}, or start anew with --out PATH") from None

    def write(self, folder: Path) -> None:
        """Write the record into a run's `reference/`."""
        write_signed(folder / REFERENCE_RECORD, {"schema": REFERENCE_SCHEMA, **encode(self)})

    def counts(self, candidates: Sequence[Candidate | None]) -> tuple[int, int]:
        """Return MACs and parameters of an architecture.

        Args:
            candidates: chosen for each part; None is the reference's own.
        """
        macs = [c.macs if c else own for c, own in zip(candidates, self.macs, strict=True)]
        params = [c.params if c else own for c, own in zip(candidates, self.params, strict=True)]
        choices = [c.choice if c else 0 for c in candidates]
        fixed_macs, fixed_params = self.joints
        return fixed_macs + sum(macs), fixed_params + sum(params) - counted_again(self.shared, choices)

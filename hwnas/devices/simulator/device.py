"""A depth-first processor that exists only as a model: exact, deterministic, without hardware."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from hwnas.devices.base import Device, Handle
from hwnas.devices.options import check_options
from hwnas.errors import DeviceError, InputError, PreparationError
from hwnas.files import sha256_of_plain
from hwnas.measurement import DeviceProfile, Fingerprint, Kind
from hwnas.network import Network, Part
from hwnas.version import __version__

if TYPE_CHECKING:
    from hwnas.devices.simulator import Piece, Result, Scheduler, Table

REVISION = 3
"""Raised whenever a network's figures change, so that those of before and after are never mixed."""
COMPARED = ("layer-by-layer", "single-layer")
FREE = "best"
"""The mode in which the dynamic program chooses."""


class SimulatorDevice(Device):
    """The best schedule of a network on an accelerator, found by the simulator's dynamic program.

    Each part's graph is parsed once; nothing is stitched. The accelerator fixes the width of operands, so
    networks are taken in fp32 whatever the precision.

    Options of the profile:
        accelerator: the name of a shipped accelerator, or the path of a TOML file.
        objective: what the schedule minimises: `latency` (default), `energy` or `dram`.
        mode: `best` (default), or force `layer-by-layer`, `single-layer`, `fully-cached`,
            `h-cached-v-recompute`, `fully-recompute`.
        tile: force the output tile of every stack, `COLUMNSxROWS`.
        stacks: force stacks: positions of their last layers, `3,7,12`.
        batch: images an inference; 0 takes the accelerator's, `--batch` sets it.
        allow_unknown: charge an operator that the model does not know as a copy through memory.

    Raises:
        DeviceError: an unknown option or one of the wrong type.
    """

    kind: Kind = "modelled"
    has_schedules = True

    def __init__(self, profile: DeviceProfile) -> None:
        super().__init__(profile)
        self._options = check_options(
            profile,
            "the simulator",
            accelerator="sim-npu",
            objective=("latency", "energy", "dram"),
            mode=(FREE, *COMPARED, "fully-cached", "h-cached-v-recompute", "fully-recompute"),
            tile="",
            stacks="",
            batch=0,
            allow_unknown=False,
        )
        if int(self._options["batch"]) < 0:
            raise DeviceError(f"profile {profile.name}: batch is {self._options['batch']}", "take 1 or more")
        self._tables: dict[str, Table] = {}
        self._pieces: dict[str, Piece] = {}

    @property
    def lock_name(self) -> None:
        """No hardware: any number of processes may simulate."""
        return None

    def open_impl(self) -> None:
        self._scheduler.accelerator  # noqa: B018 - a broken accelerator file is refused when it is opened
        self._forced  # noqa: B018

    def fingerprint(self) -> Fingerprint:
        accelerator = self._scheduler.accelerator
        # What the description says counts, not where it lies or whether a default is spelled out.
        options = {key: value for key, value in self._options.items() if key not in ("accelerator", "batch")}
        settings = {"accelerator": repr(accelerator), "options": options}
        return Fingerprint(
            chip=f"{accelerator.name} ({sha256_of_plain(settings)[:8]})",
            os_build="none",
            driver="none",
            runtime=f"hwnas {__version__} depth-first simulator, {self._scheduler.model} model {REVISION}",
            precision=self.profile.precision,
            power_mode=f"{accelerator.clock_mhz:g} MHz",
        )

    def prepare_impl(self, network: Network) -> Handle:
        mode, tile, stacks = self._forced
        try:
            tables = self._tables_of(network)
            figures = self._scheduler.figures(tables, mode=mode, tile=tile, cuts=stacks)
            alone = self._scheduler.figures(tables, mode="single-layer")
        except InputError as error:
            raise PreparationError(error.cause, error.fix) from None
        return Handle(
            network_hash=network.hash,
            state=figures.latency_ms,
            metrics={
                "batch_size": float(self._scheduler.accelerator.batch),
                "latency_cycles": figures.latency_cycles,
                "energy_mj": figures.energy_mj,
                "dram_read_bytes": float(figures.dram_read_bytes),
                "dram_write_bytes": float(figures.dram_write_bytes),
                "macs": float(figures.macs),
                # What adding up layers that were timed one by one would say.
                "single_layers_ms": alone.latency_ms,
            },
        )

    def sample_impl(self, handle: Handle, runs: int, seconds: float) -> list[float]:
        """One answer, however many runs are asked for: it never changes."""
        return [handle.state]

    def explain(self, network: Network) -> dict[str, Result]:
        """Schedules of a network with all their rows: `chosen`, `layer-by-layer` and `single-layer`.

        Raises:
            InputError: an operator that is not known, or something forced that does not fit the network.
        """
        from hwnas.devices.simulator import read_onnx

        read = read_onnx(network.onnx(), allow_unknown=self._allow_unknown)
        layers = replace(read, name=network.name)
        mode, tile, stacks = self._forced
        chosen = self._scheduler.schedule(layers, mode=mode, tile=tile, cuts=stacks)
        others = {mode: self._scheduler.schedule(layers, mode=mode) for mode in COMPARED}
        return {"chosen": chosen, **others}

    def _tables_of(self, network: Network) -> list[Table]:
        """The tables of a chain's parts, or one of the whole network."""
        if network.wiring.is_chain:
            return [self._table(part) for part in network.parts]
        from hwnas.devices.simulator import join_pieces

        pieces = [self._piece(part) for part in network.parts]
        return [self._scheduler.part(join_pieces(pieces, network.wiring, network.name))]

    def _piece(self, part: Part) -> Piece:
        if part.hash not in self._pieces:
            from hwnas.devices.simulator import read_piece

            self._pieces[part.hash] = read_piece(part.onnx, allow_unknown=self._allow_unknown)
        return self._pieces[part.hash]

    def _table(self, part: Part) -> Table:
        if part.hash not in self._tables:
            from hwnas.devices.simulator import read_onnx

            layers = read_onnx(part.onnx, allow_unknown=self._allow_unknown)
            self._tables[part.hash] = self._scheduler.part(layers)
        return self._tables[part.hash]

    @property
    def _allow_unknown(self) -> bool:
        return bool(self._options["allow_unknown"])

    @cached_property
    def _scheduler(self) -> Scheduler:
        from hwnas.devices.simulator import Scheduler, load_accelerator

        accelerator = load_accelerator(str(self._options["accelerator"]))
        if self._options["batch"]:
            accelerator = replace(accelerator, batch=int(self._options["batch"]))
        return Scheduler(accelerator, str(self._options["objective"]))

    @cached_property
    def _forced(self) -> tuple[str | None, tuple[int, int] | None, tuple[int, ...] | None]:
        mode, tile, stacks = (str(self._options[key]) for key in ("mode", "tile", "stacks"))
        columns_rows = _numbers("tile", tile, "x") if tile else ()
        if tile and len(columns_rows) != 2:
            raise InputError(f"tile is {tile!r}", "give columns and rows, such as 56x4")
        return (
            None if mode == FREE else mode,
            (columns_rows[0], columns_rows[1]) if tile else None,
            _numbers("stacks", stacks, ",") if stacks else None,
        )


def _numbers(key: str, text: str, separator: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(separator))
    except ValueError:
        example = {"tile": "56x4", "stacks": "3,7,12"}[key]
        raise InputError(f"{key} is {text!r}", f"give it as {example}") from None

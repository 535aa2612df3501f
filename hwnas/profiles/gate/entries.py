"""What `hwnas check run --baseline` means: a baseline file, the baseline network, or a git revision."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from hwnas.errors import HwnasError, InputError
from hwnas.measurement import Fingerprint, Option
from hwnas.network import Network
from hwnas.networks.find import find_network
from hwnas.networks.git_revision import Revision, checked_out, network_at
from hwnas.profiles.catalogue import option_texts
from hwnas.profiles.gate.baseline import Baseline, Recorded, read_baseline
from hwnas.profiles.gate.check import Entry

DEVICE = "cpu"
"""On which networks are checked where neither the user nor the baseline names a device."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the user says of inputs and of the device; what is left open is up to the baseline file.

    Attributes:
        shape: of the inputs; None for the network's own.
        batch: images a run; None leaves it to the device's profile.
        device_options: over those of the profile.
    """

    shape: tuple[int, ...] | None = None
    batch: int | None = None
    device_options: Mapping[str, Option] = field(default_factory=dict)

    def over(self, baseline: Baseline, known: Recorded, device: str) -> Asked:
        """This, and where nothing is said what was asked for a recorded network."""
        recorded = baseline.device_options if device == baseline.device else {}
        return Asked(
            shape=self.shape or known.input_shape or None,
            batch=self.batch or baseline.batch or None,
            device_options={**recorded, **self.device_options},
        )

    def find(self, model: str) -> Network:
        """The network of that name with inputs of that shape."""
        return find_network(model, self.shape, has_batch=self.batch is not None).named(model)

    def at(self, revision: Revision, model: str) -> Network:
        """The same as it was at a revision."""
        return network_at(revision, model, self.shape, has_batch=self.batch is not None)

    @property
    def options(self) -> str:
        """As options of a command."""
        shape = f" --input-shape {'x'.join(map(str, self.shape))}" if self.shape else ""
        batch = f" --batch {self.batch}" if self.batch else ""
        texts = option_texts(self.device_options)
        return shape + batch + "".join(f" --device-option {shlex.quote(text)}" for text in texts)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What is to be checked.

    Attributes:
        accept: how what is measured now becomes the baseline, as a command.
        asked: what is said of the device, by the user or the baseline file.
    """

    device: str
    entries: list[Entry]
    accept: str
    asked: Asked
    recorded_on: Fingerprint | None = None


def find_entries(
    models: Sequence[str],
    baseline: str,
    device: str | None,
    asked: Asked,
    *,
    recorded: bool,
    held: ExitStack,
) -> Found:
    """Find the networks and what each is compared with.

    Args:
        device: a profile; None for that of the baseline file, or `DEVICE` where the baseline is none.
        recorded: take recorded samples even where the baseline network is at hand.
        held: keeps what the baseline networks are read from until the check is over.

    Raises:
        InputError: no such baseline or network, or the options do not go together.
    """
    if baseline.endswith(".json"):
        return _from_file(models, Path(baseline), device, asked, recorded=recorded, held=held)
    if recorded:
        raise InputError(f"--recorded needs a baseline file, {baseline} is none", "--baseline FILE.json")
    device = device or DEVICE
    if not models:
        raise InputError(
            f"with --baseline {baseline}, the networks to check must be given",
            f"hwnas check run MODEL … --baseline {shlex.quote(baseline)} --device {shlex.quote(device)}",
        )
    path = Path(baseline)
    if path.suffix == ".onnx" or path.is_dir() or ":" in baseline:
        entries = [_only(models, baseline, asked)]
        accept = f"put it in the place of {baseline}"
        return Found(device=device, entries=entries, accept=accept, asked=asked)
    return _from_revision(models, baseline, device, asked, held)


def _from_file(
    models: Sequence[str],
    path: Path,
    device: str | None,
    asked: Asked,
    *,
    recorded: bool,
    held: ExitStack,
) -> Found:
    if not path.exists():
        raise InputError(
            f"there is no baseline file {path}",
            f"hwnas check record MODEL … --device {device or 'NAME'} --out {shlex.quote(str(path))}",
        )
    baseline = read_baseline(path)
    chosen = [baseline.find(model) for model in models] or list(baseline.networks)
    device = device or baseline.device
    entries = [
        _recorded_entry(known, asked.over(baseline, known, device), recorded=recorded, held=held)
        for known in chosen
    ]
    asked = asked.over(baseline, chosen[0], device)
    names = shlex.join([known.model for known in baseline.networks])
    accept = f"hwnas check record {names} --device {shlex.quote(device)} --out {shlex.quote(str(path))}"
    return Found(
        device=device,
        entries=entries,
        accept=accept + asked.options,
        asked=asked,
        recorded_on=baseline.fingerprint,
    )


def _recorded_entry(known: Recorded, asked: Asked, *, recorded: bool, held: ExitStack) -> Entry:
    network = asked.find(known.model)
    old = None
    if not recorded:
        old = network if known.network_hash == network.hash else _committed(known, asked, held)
    return Entry(model=known.model, network=network, baseline=old, recorded=known)


def _committed(known: Recorded, asked: Asked, held: ExitStack) -> Network | None:
    """The recorded network out of the repository's history; None where that does not have it."""
    if not known.commit:
        return None
    try:
        network = asked.at(held.enter_context(checked_out(known.commit)), known.model)
    except HwnasError:
        return None
    return network if network.hash == known.network_hash else None


def _from_revision(models: Sequence[str], revision: str, device: str, asked: Asked, held: ExitStack) -> Found:
    networks = [asked.find(model) for model in models]
    try:
        then = held.enter_context(checked_out(revision))
    except InputError as error:
        raise InputError(f"--baseline {revision}: no file, and {error.cause}", error.fix) from None
    entries = [
        Entry(model=model, network=network, baseline=asked.at(then, model))
        for model, network in zip(models, networks, strict=True)
    ]
    accept = "commit it, and check against that commit"
    return Found(device=device, entries=entries, accept=accept, asked=asked)


def _only(models: Sequence[str], baseline: str, asked: Asked) -> Entry:
    if len(models) != 1:
        raise InputError(
            f"--baseline {baseline} is one network, {len(models)} are to be checked", "check one at a time"
        )
    return Entry(model=models[0], network=asked.find(models[0]), baseline=asked.find(baseline))

"""Measuring: `profile`, `compare`, `check`, `record`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.api.arguments import (
    DeviceOptions,
    checked_batch,
    checked_device,
    checked_devices,
    checked_seconds,
    checked_shape,
    checked_share,
    device_options,
    is_module,
    known_options,
    some,
)
from hwnas.api.models import Model, find_model, name_of
from hwnas.errors import HwnasError, InputError
from hwnas.profiles.options import CheckOptions, CompareOptions, ProfileOptions, RecordOptions
from hwnas.progress import Progress

if TYPE_CHECKING:
    from hwnas.measurement import DeviceProfile, Measurement
    from hwnas.profiles.comparison import Comparison
    from hwnas.profiles.gate.baseline import Baseline, Recorded
    from hwnas.profiles.gate.report import Checked, Report
    from hwnas.profiles.profile_rows import Profiled


def profile(
    model: Model,
    device: str = "cpu",
    *,
    protocol: str = "",
    input_shape: Sequence[int] | None = None,
    batch: int | None = None,
    device_option: DeviceOptions = (),
    progress: Progress | None = None,
) -> Measurement:
    """Measure how long a whole network takes on a device; the measurement goes into the history as well.

    Args:
        model: as `Model`.
        device: a profile's name, or the path of a profile.
        protocol: adaptive, quick, search, report, or a `.toml` file; empty for the profile's, or adaptive.
        input_shape: (C, H, W); needed for a torch module that does not say what it takes.
        batch: images a run; None for the profile's.
        device_option: over the device profile's options: `any_gpu=true`, several of such, or a mapping.
        progress: hears what is known so far, and how far a device with a queue is.

    Raises:
        HwnasError: the network or the device is unknown, or it could not be measured.

    >>> import hwnas
    >>> from torch import nn
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    >>> measurement = hwnas.profile(network, "sim-npu", input_shape=(3, 32, 32))
    >>> measurement.latency_ms > 0
    True
    """
    from hwnas.measurement import Measurement

    (rows,) = profile_each(
        [model],
        [device],
        protocol=protocol,
        input_shape=input_shape,
        batch=batch,
        device_option=device_option,
        progress=progress,
    )
    result = rows[0].result
    if not isinstance(result, Measurement):
        raise HwnasError(f"{rows[0].model} could not be measured: {result.reason}", "see the reason")
    return result


def profile_each(
    models: Model | Sequence[Model],
    devices: str | Sequence[str],
    *,
    progress: Progress | None = None,
    **options: Any,
) -> Iterator[list[Profiled]]:
    """Measure networks on devices, on each of them interleaved in one session.

    Args:
        models: as `Model`.
        devices: names or paths of device profiles.
        progress: hears what is known so far, and how far a device with a queue is.
        options: by the names of `hwnas profile`'s options, such as `blocks=True` or `precision=0.01`;
            `hwnas profile --help` lists them.

    Yields:
        The networks on each device in turn; one that cannot be measured is a row with the reason.

    Raises:
        HwnasError: a network, a device or an option is unknown, or a device cannot be used.

    >>> import hwnas.api
    >>> from torch import nn
    >>> small, large = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 64, 3)
    >>> (rows,) = hwnas.api.profile_each([small, large], ["sim-npu"], input_shape=(3, 32, 32))
    >>> [row.device for row in rows]
    ['sim-npu', 'sim-npu']
    """
    from hwnas.compress.options import parse_cuts
    from hwnas.files import decode
    from hwnas.networks.find import block_networks
    from hwnas.profiles.catalogue import open_device
    from hwnas.profiles.forbidden import require_accepted
    from hwnas.profiles.measure import profile_networks
    from hwnas.profiles.protocols import protocol_until

    given = known_options(ProfileOptions, options, "profile")
    if given.get("precision") is not None:
        checked_share("precision", given["precision"])
    checked_seconds("max_seconds", given.get("max_seconds"))
    checked_batch(given.get("batch"))
    asked = decode(ProfileOptions, given, "hwnas.profile")
    models = some("network", models, 'name one: models=["mobilenetv2_100"]')
    profiles = [
        device_profile(device, asked.batch, asked.device_option) for device in checked_devices(devices)
    ]
    protocols = [
        protocol_until(asked.protocol or profile.protocol or "adaptive", asked.precision, asked.max_seconds)
        for profile in profiles
    ]
    opened = [open_device(profile) for profile in profiles]
    for device in opened if asked.explain else ():
        if not device.has_schedules:
            name = device.profile.name
            raise InputError(f"--explain needs a simulated device, {name} is none", "take --device sim-npu")
    has_batch = asked.batch is not None
    networks = [find_model(model, asked.input_shape, has_batch=has_batch) for model in models]
    for profile in profiles:
        require_accepted(profile, networks)
    cuts = parse_cuts(asked.cut) or None
    parts = [block_networks(network, cuts) for network in networks] if asked.blocks else ()
    for device, how in zip(opened, protocols, strict=True):
        yield profile_networks(device, how, networks, asked, progress or Progress(), parts)


def compare(
    first: Model,
    second: Model,
    device: str = "cpu",
    *,
    precision: float = CompareOptions.precision,
    max_seconds: float = CompareOptions.max_seconds,
    input_shape: Sequence[int] | None = None,
    batch: int | None = None,
    device_option: DeviceOptions = (),
    progress: Progress | None = None,
) -> Comparison:
    """Interleave two networks in one session, and return the ratio of their latencies with its interval.

    Args:
        first, second: as `Model`; the ratio is second over first.
        precision: repeats go on until half of the ratio's 95 % interval is at most this.
        max_seconds: longest time.
        device, input_shape, batch, device_option: as for `profile`.
        progress: hears the ratio so far.

    Raises:
        HwnasError: a network or the device is unknown, or something could not be measured.

    >>> import hwnas
    >>> from torch import nn
    >>> small, large = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 64, 3)
    >>> hwnas.compare(small, large, "sim-npu", input_shape=(3, 32, 32)).ratio.value > 1
    True
    """
    from hwnas.profiles import comparison
    from hwnas.profiles.catalogue import open_device
    from hwnas.profiles.live import live_ratio
    from hwnas.profiles.protocols import SIDE_BY_SIDE
    from hwnas.profiles.session import Session
    from hwnas.profiles.store import open_history

    checked_share("precision", precision)
    checked_seconds("max_seconds", max_seconds)
    networks = [find_model(model, input_shape, has_batch=batch is not None) for model in (first, second)]
    protocol = replace(SIDE_BY_SIDE, max_repeats=1000, max_seconds=max_seconds)
    progress = progress or Progress()
    with open_history() as store:
        opened, on_round = open_device(device_profile(device, batch, device_option)), live_ratio(progress)
        session = Session(opened, protocol, store, recall=False, on_round=on_round)
        result = comparison.compare(session, *networks, precision=precision)
    progress.live("")
    return result


def check(
    *models: Model,
    baseline: Model,
    device: str | None = None,
    threshold: float = CheckOptions.threshold,
    max_seconds: float = CheckOptions.max_seconds,
    input_shape: Sequence[int] | None = None,
    batch: int | None = None,
    device_option: DeviceOptions = (),
    recorded: bool = False,
    on_result: Callable[[Checked], None] = lambda checked: None,
    progress: Progress | None = None,
) -> Report:
    """Decide whether networks became slower than their baseline by more than a threshold.

    Args:
        models: as `Model`; none of them for all of a baseline file.
        baseline: the network to compare with, as `Model`; or a file of `record`, or a git revision.
        device: a profile's name, or the path of a profile; None for that of the baseline file, or the CPU's
            where the baseline is none.
        threshold: the fraction by which a network may be slower.
        max_seconds: longest time for each network.
        input_shape, batch, device_option: as for `profile`.
        recorded: compare with the recorded samples even where the baseline's network is at hand.
        on_result: called with each network as soon as it is decided.
        progress: hears the ratio so far.

    Returns:
        The report; its `exit_code` is what `hwnas check run` ends with: 0 where nothing is slower, 1 for a
        regression, 2 where something could not be measured, 3 where it cannot be told.

    Raises:
        HwnasError: a network, the baseline or the device is unknown, or the device's latencies mean nothing.

    >>> import hwnas
    >>> from torch import nn
    >>> old, new = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 64, 3)
    >>> report = hwnas.check(new, baseline=old, device="sim-npu", input_shape=(3, 32, 32))
    >>> report.exit_code, report.networks[0].verdict
    (1, 'regression')
    """
    from hwnas.profiles.catalogue import open_device, option_texts, parse_options
    from hwnas.profiles.gate.check import Entry, Terms
    from hwnas.profiles.gate.check import check as run_check
    from hwnas.profiles.gate.entries import DEVICE, Asked, Found, find_entries
    from hwnas.profiles.live import live_ratio
    from hwnas.profiles.protocols import SIDE_BY_SIDE
    from hwnas.profiles.session import Session
    from hwnas.profiles.store import open_history

    progress = progress or Progress()
    checked_share("threshold", threshold)
    checked_seconds("max_seconds", max_seconds)
    shape = checked_shape(input_shape)
    asked = Asked(shape=shape, batch=batch, device_options=parse_options(device_options(device_option)))
    with ExitStack() as held:
        if any(map(is_module, (*models, baseline))):
            if not models:
                raise InputError("no network is to be checked", "name one, or a file of hwnas check record")
            old = find_model(baseline, shape, has_batch=batch is not None)
            new = [find_model(each, shape, has_batch=batch is not None) for each in models]
            entries = [Entry(model=each.name, network=each, baseline=old) for each in new]
            accept = "make it the baseline"
            found = Found(device=device or DEVICE, entries=entries, accept=accept, asked=asked)
            named = old.name
        else:
            names, named = [name_of(each) for each in models], name_of(baseline)
            found = find_entries(names, named, device, asked, recorded=recorded, held=held)
        terms = Terms(threshold=threshold, baseline=named, accept=found.accept, recorded_on=found.recorded_on)
        options = option_texts(found.asked.device_options)
        opened = open_device(device_profile(found.device, found.asked.batch, options))
        store = held.enter_context(open_history())
        how = replace(SIDE_BY_SIDE, max_seconds=max_seconds)
        session = Session(opened, how, store, recall=False, on_round=live_ratio(progress))

        def tell(checked: Checked) -> None:
            progress.live("")
            on_result(checked)

        return run_check(session, found.entries, terms, tell)


def record(
    *models: Model,
    device: str = "cpu",
    max_seconds: float = RecordOptions.max_seconds,
    input_shape: Sequence[int] | None = None,
    batch: int | None = None,
    device_option: DeviceOptions = (),
    on_result: Callable[[Recorded], None] = lambda recorded: None,
    progress: Progress | None = None,
) -> Baseline:
    """Measure networks for later checks; `hwnas check record` writes what it returns into a file.

    Args:
        models: as `Model`, by names under which they are found again.
        device, max_seconds, input_shape, batch, device_option: as for `check`.
        on_result: called with each network as soon as it is measured.
        progress: hears the latency so far.

    Raises:
        HwnasError: a network or the device is unknown, could not be measured, or has no latencies of meaning.

    >>> import hwnas
    >>> hwnas.api.record("mobilenetv2_050", device="sim-npu").networks[0].model
    'mobilenetv2_050'
    """
    from datetime import UTC, datetime

    from hwnas.networks.git_revision import committed_in
    from hwnas.profiles.catalogue import open_device, parse_options
    from hwnas.profiles.gate import check as checks
    from hwnas.profiles.gate.baseline import Baseline
    from hwnas.profiles.live import live_ratio
    from hwnas.profiles.protocols import SIDE_BY_SIDE
    from hwnas.profiles.session import Session, require_kind
    from hwnas.profiles.store import open_history
    from hwnas.version import __version__

    checked_seconds("max_seconds", max_seconds)
    shape = checked_shape(input_shape)
    some("network", models, 'name one: hwnas.api.record("mobilenetv2_100")')
    names = [name_of(model) for model in models]
    if len(set(names)) != len(names):
        raise InputError("a network is named twice", "name each network once")
    opened = open_device(device_profile(device, batch, device_option))
    require_kind(opened, {"measured", "modelled"}, "a check")
    networks = [
        (find_model(name, shape, has_batch=batch is not None), committed_in(Path(name))) for name in names
    ]
    how = replace(SIDE_BY_SIDE, max_repeats=checks.RECORDED_REPEATS, max_seconds=max_seconds)
    progress = progress or Progress()

    def tell(recorded: Recorded) -> None:
        progress.live("")
        on_result(recorded)

    with (
        open_history() as store,
        Session(opened, how, store, recall=False, on_round=live_ratio(progress)) as session,
    ):
        return Baseline(
            device=os.fspath(device),
            fingerprint=session.fingerprint,
            recorded_at=datetime.now(UTC).isoformat(timespec="seconds"),
            hwnas_version=__version__,
            networks=tuple(checks.record(session, networks, shape or (), tell)),
            batch=batch or 0,
            device_options=parse_options(device_options(device_option)),
        )


def device_profile(device: str, batch: int | None, device_option: DeviceOptions) -> DeviceProfile:
    """Return a device's profile, these options over its own. Raises InputError: there is none."""
    from hwnas.profiles.catalogue import load_profile, parse_options, with_options

    profile = load_profile(checked_device(device))
    profile = with_options(profile, **parse_options(device_options(device_option)))
    return with_options(profile, batch=checked_batch(batch))

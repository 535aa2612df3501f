"""The public functions. They say nothing unless a `Progress` is given, and work in notebooks and threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.errors import InputError
from hwnas.progress import Progress

if TYPE_CHECKING:
    from torch import nn

    from hwnas.compress.budget import Plan
    from hwnas.compress.emit.summary import Summary
    from hwnas.compress.library.open_run import Inputs
    from hwnas.compress.library.target import Target
    from hwnas.compress.options import CompressOptions
    from hwnas.compress.pipeline import Result
    from hwnas.compress.search.record import FrontRecord
    from hwnas.compress.settings import SearchSettings
    from hwnas.measurement import DeviceProfile, Measurement
    from hwnas.network import Network
    from hwnas.networks.partition import Partition
    from hwnas.profiles.comparison import Comparison
    from hwnas.profiles.gate.report import Report

Model = Any
"""A torch module, an ONNX file, a checkpoint, a timm name, `module:function`, or a function of a module."""


def devices() -> list[DeviceProfile]:
    """Return the device profiles, those that come with hwnas and the user's own.

    >>> import hwnas
    >>> "cpu" in [profile.name for profile in hwnas.devices()]
    True
    """
    from hwnas.profiles.catalogue import load_profile, profile_names

    return [load_profile(name) for name in profile_names()]


def profile(
    model: Model,
    device: str = "cpu",
    *,
    protocol: str = "",
    input_shape: Sequence[int] | None = None,
    batch: int | None = None,
    device_option: Sequence[str] = (),
    progress: Progress | None = None,
) -> Measurement:
    """Measure how long a whole network takes on a device; the measurement goes into the history as well.

    Args:
        model: as `Model`.
        device: a profile's name, or the path of a profile.
        protocol: adaptive, quick, search, report, or a `.toml` file; empty for the profile's, or adaptive.
        input_shape: (C, H, W); needed for a torch module that does not say what it takes.
        batch: images a run; None for the profile's.
        device_option: `KEY=VALUE` over the device profile's options, such as `any_gpu=true`.
        progress: hears how far a device with a queue is.

    Raises:
        HwnasError: the network or the device is unknown, or it could not be measured.

    >>> import hwnas
    >>> from torch import nn
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    >>> measurement = hwnas.profile(network, "sim-npu", input_shape=(3, 32, 32))
    >>> measurement.latency_ms > 0
    True
    """
    from hwnas.profiles.measure import measure_networks

    network = find_model(model, input_shape, has_batch=batch is not None)
    (result,) = measure_networks(
        [network], _profile(device, batch, device_option), protocol, progress or Progress()
    )
    return result


def compare(
    first: Model,
    second: Model,
    device: str = "cpu",
    *,
    precision: float = 0.01,
    max_seconds: float = 45.0,
    input_shape: Sequence[int] | None = None,
    batch: int | None = None,
    device_option: Sequence[str] = (),
) -> Comparison:
    """Interleave two networks in one session, and return the ratio of their latencies with its interval.

    Args:
        first, second: as `Model`; the ratio is second over first.
        precision: repeats go on until half of the ratio's 95 % interval is at most this.
        max_seconds: longest time.
        device, input_shape, batch, device_option: as for `profile`.

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
    from hwnas.profiles.protocols import SIDE_BY_SIDE
    from hwnas.profiles.session import Session
    from hwnas.profiles.store import open_history

    networks = [find_model(model, input_shape, has_batch=batch is not None) for model in (first, second)]
    protocol = replace(SIDE_BY_SIDE, max_repeats=1000, max_seconds=max_seconds)
    with open_history() as store:
        session = Session(open_device(_profile(device, batch, device_option)), protocol, store, recall=False)
        return comparison.compare(session, *networks, precision=precision)


def check(
    model: Model,
    *,
    baseline: Model,
    device: str = "cpu",
    threshold: float = 0.05,
    max_seconds: float = 45.0,
    input_shape: Sequence[int] | None = None,
    batch: int | None = None,
    device_option: Sequence[str] = (),
) -> Report:
    """Decide whether a network became slower than its baseline by more than a threshold.

    Args:
        model, baseline: as `Model`.
        threshold: the fraction by which the network may be slower.
        max_seconds: longest time.
        device, input_shape, batch, device_option: as for `profile`.

    Returns:
        The report; its `exit_code` is what `hwnas check run` ends with: 0 where nothing is slower, 1 for a
        regression, 2 where something could not be measured, 3 where it cannot be told.

    Raises:
        HwnasError: a network or the device is unknown, or the device's latencies mean nothing.

    >>> import hwnas
    >>> from torch import nn
    >>> old, new = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 64, 3)
    >>> report = hwnas.check(new, baseline=old, device="sim-npu", input_shape=(3, 32, 32))
    >>> report.exit_code, report.networks[0].verdict
    (1, 'regression')
    """
    from hwnas.profiles.catalogue import open_device
    from hwnas.profiles.gate.check import Entry, Terms
    from hwnas.profiles.gate.check import check as run_check
    from hwnas.profiles.protocols import SIDE_BY_SIDE
    from hwnas.profiles.session import Session
    from hwnas.profiles.store import open_history

    new, old = (find_model(each, input_shape, has_batch=batch is not None) for each in (model, baseline))
    terms = Terms(threshold=threshold, baseline=old.name, accept=f"make {new.name} the baseline")
    with open_history() as store:
        protocol = replace(SIDE_BY_SIDE, max_seconds=max_seconds)
        session = Session(open_device(_profile(device, batch, device_option)), protocol, store, recall=False)
        return run_check(session, [Entry(model=new.name, network=new, baseline=old)], terms)


def partition(model: Model, *, cut: str = "", image_size: int = 0, allow_code: bool = False) -> Partition:
    """Cut a network into stem, blocks and head, at places where exactly one tensor passes.

    Args:
        model: a checkpoint, a timm name, `module:function`, or a function of a module.
        cut: modules behind which to cut, `NAME,NAME`; empty for the stages.
        image_size: side in pixels; 0 for the model's own.
        allow_code: let a checkpoint import the `module:function` that it names.

    Raises:
        InputError: it cannot be cut there, or not at all.

    >>> import hwnas
    >>> hwnas.partition("mobilenetv2_050", image_size=32).names
    ['stem', 'block1', 'block2', 'block3', 'block4', 'block5', 'head']
    """
    from hwnas.compress.options import parse_cuts
    from hwnas.networks.find import open_model
    from hwnas.networks.partition import partition as cut_up

    module, shape = open_model(name_of(model), image_size, allow_code=allow_code)
    return cut_up(module, shape, parse_cuts(cut) or None)


def compress(
    model: Model,
    *,
    data: Any,
    devices: str | Sequence[str],
    out: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Run:
    """Compress a network for devices, going on from whatever the run directory already holds.

    Args:
        model: a checkpoint, a timm name, `module:function`, or a function of a module that builds it.
        data: a name as `--data` takes it, a `hwnas.Data`, a torch `Dataset` of (image, class), or a pair of
            arrays (pixels, classes).
        devices: names or paths of device profiles.
        out: the run directory; None for `runs/MODEL`.
        progress: hears how far it is.
        options: by the names of `hwnas compress`'s options, such as `preset="quick"` or `speedup=[1.5]`.

    Raises:
        HwnasError: any failure that a user meets; what was finished stays in the run directory.

    See `hwnas compress --help` for the options, and docs/api.md for a whole example.
    """
    from hwnas.compress.options import CompressOptions
    from hwnas.files import decode

    given = {"data": _data_name(data), **options}
    tuples = {each.name for each in fields(CompressOptions) if isinstance(each.default, tuple)}
    for key in tuples & given.keys():
        value = given[key]
        given[key] = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    known = [each.name for each in fields(CompressOptions)]
    for key in given:
        if key not in known:
            raise InputError(f"compress has no option {key!r}", f"known are {', '.join(known)}")
    names = [devices] if isinstance(devices, str) else list(devices)
    asked, progress = decode(CompressOptions, given, "hwnas.compress"), progress or Progress()
    compression = plan_compression(asked, name_of(model), names, out, progress)
    compression.require_consent(lambda question: False)
    compression.run("hwnas.compress", progress).require_all()
    return open_run(compression.out)


def open_run(path: str | os.PathLike[str]) -> Run:
    """Open a run directory to look at what it holds.

    Raises:
        InputError: it is none, or has not searched yet.
    """
    from hwnas.compress.report.stored import device_folders

    device_folders(Path(path))
    return Run(Path(path))


def load(path: str | os.PathLike[str], *, allow_code: bool = False) -> nn.Module:
    """Read an emitted checkpoint directory back as a torch module in eval mode.

    Args:
        path: the checkpoint directory, holding `architecture.json` and `model.safetensors`.
        allow_code: import and call the `module:function` that a checkpoint of one's own network names.

    Raises:
        InputError: a file is missing, damaged, or names code that is not allowed or cannot be imported.
    """
    from hwnas.networks.serialize import load_module

    return load_module(path, allow_code=allow_code)


@dataclass(frozen=True)
class Checkpoint:
    """An emitted network.

    Attributes:
        path: its folder.
        summary: what it amounts to: latency, accuracy and sizes, beside the reference's.
    """

    path: Path
    summary: Summary

    def module(self, *, allow_code: bool = False) -> nn.Module:
        """Return the network with its weights, in eval mode; see `load`."""
        return load(self.path, allow_code=allow_code)


@dataclass(frozen=True)
class Run:
    """A run directory: fronts, checkpoints and reports of its devices."""

    path: Path

    @property
    def devices(self) -> list[str]:
        """The devices that have a front."""
        from hwnas.compress.report.stored import device_folders

        return [folder.name for folder in device_folders(self.path)]

    def front(self, device: str, kind: str = "") -> FrontRecord:
        """Return the front of a device.

        Args:
            kind: of the search; empty for NSGA-II by loss and latency, otherwise as in the file's name, such
                as `latency-params`.

        Raises:
            InputError: there is no such front, or its file is damaged.
        """
        from hwnas.compress.search.record import FrontRecord
        from hwnas.files import safe_name

        return FrontRecord.read(self.path / "devices" / safe_name(device), f"-{kind}" if kind else "")

    def checkpoint(self, device: str, pick: str = "knee") -> Checkpoint:
        """Return the network that was picked for a device, by `knee`, `speedup-1.5` or `latency-ms-2`.

        Raises:
            InputError: there is none, with those that are there.
        """
        found = self.checkpoints()
        name = f"{device}-{pick.replace('=', '-')}"
        for each in found:
            if each.path.name == name:
                return each
        names = ", ".join(each.path.name for each in found) or "none"
        raise InputError(f"{self.path} has no checkpoint {name}", f"it has {names}")

    def checkpoints(self) -> list[Checkpoint]:
        """Return all emitted networks, by name."""
        from hwnas.compress.emit.summary import read_summary

        folders = sorted(self.path.glob("checkpoints/[!.]*"))
        return [Checkpoint(folder, read_summary(folder)) for folder in folders]

    def report(self, device: str | None = None) -> list[Path]:
        """Make the reports of a device, or of all, again, and return their files.

        Raises:
            InputError: no such device. RunDirectoryError: a file of the run is damaged.
        """
        from hwnas.compress.report import write_reports

        return write_reports(self.path, device)


@dataclass(frozen=True, kw_only=True)
class Compression:
    """A compression that is ready to run: everything was found and checked, nothing was trained or measured.

    Attributes:
        out: the run directory.
        plans: what each device will be asked at most.
    """

    out: Path
    options: CompressOptions
    inputs: Inputs
    wanted: Sequence[tuple[SearchSettings, Target]]
    plans: Sequence[Plan]

    def require_consent(self, ask: Callable[[str], bool]) -> None:
        """Let nobody pay for many measurements by surprise; `ask` puts a question to the user.

        Raises:
            InputError: nobody agreed.
        """
        from hwnas.compress.budget import require_consent

        for plan in self.plans:
            require_consent(plan, ask)

    def run(self, command: str, progress: Progress) -> Result:
        """Run it, and return its `Result`.

        Args:
            command: that the user gave, for the model cards.
        """
        from hwnas.compress.executor import executor_at
        from hwnas.compress.pipeline import compress as run_compress

        with executor_at(self.options.cluster) as executor:
            return run_compress(self.inputs, self.wanted, self.out, command, progress, executor)


def plan_compression(
    options: CompressOptions,
    model: str,
    devices: Sequence[str],
    out: str | os.PathLike[str] | None,
    progress: Progress,
    *,
    dry_run: bool = False,
) -> Compression:
    """Find and check everything that a compression needs.

    Args:
        dry_run: ask no device whether it is there.

    Raises:
        HwnasError: something is missing, unknown, or does not fit.
    """
    from hwnas.compress.budget import plan_of
    from hwnas.compress.library.open_run import open_inputs
    from hwnas.compress.library.store import added_candidates
    from hwnas.compress.options import resolve
    from hwnas.compress.run.device_check import check_devices
    from hwnas.compress.search.target import target_of

    path = Path(out) if out is not None else Path("runs") / Path(model.replace(":", "-")).name
    library, searches = resolve(options, model, devices, path)
    wanted = [(search, target_of(search, options.cluster)) for search in searches]
    if not (dry_run or options.no_device_check):
        check_devices([(target.profile, target.cluster) for _, target in wanted], progress)
    inputs = open_inputs(library, progress, allow_code=options.allow_code)
    choices = inputs.choice_count + len(added_candidates(path))
    plans = [plan_of(search, target, choices, len(wanted) - 1) for search, target in wanted]
    return Compression(out=path, options=options, inputs=inputs, wanted=wanted, plans=plans)


def find_model(model: Model, input_shape: Sequence[int] | None = None, *, has_batch: bool = False) -> Network:
    """Find a network that can be measured.

    Raises:
        InputError: nothing of that name; a torch module that does not say what it takes.
    """
    from torch import nn

    from hwnas.networks.find import find_network, network_of_module

    shape = None if input_shape is None else tuple(input_shape)
    if isinstance(model, nn.Module):
        return network_of_module(model, shape)
    name = name_of(model)
    return find_network(name, shape, has_batch=has_batch).named(name)


def name_of(model: Model) -> str:
    """Return how a model is named: a function of a module as `module:function`.

    Raises:
        InputError: it has no name by which another process could find it.
    """
    if isinstance(model, str | os.PathLike):
        return os.fspath(model)
    name = getattr(model, "__qualname__", "")
    if callable(model) and name.isidentifier() and getattr(model, "__module__", "__main__") != "__main__":
        return f"{model.__module__}:{name}"
    raise InputError(
        f"a {type(model).__name__} cannot be built again by another process",
        "give a function of a module of yours that builds and returns it, or its name, module:function",
    )


def _profile(device: str, batch: int | None, device_option: Sequence[str]) -> DeviceProfile:
    from hwnas.profiles.catalogue import load_profile, parse_options, with_options

    return with_options(load_profile(device), **parse_options(device_option), batch=batch)


def _data_name(data: Any) -> str:
    if isinstance(data, str):
        return data
    from hwnas.compress.data.stored import as_data, store_data

    return store_data(as_data(data))

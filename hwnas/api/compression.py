"""Compressing: `compress`, and what the command line runs in its steps."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.api.arguments import checked_devices, checked_path, known_options
from hwnas.api.models import Model, name_of
from hwnas.api.run import Run, open_run
from hwnas.global_state import torch_as_before
from hwnas.progress import Progress

if TYPE_CHECKING:
    from hwnas.compress.budget import Plan, TrainingPlan
    from hwnas.compress.library.open_run import Inputs
    from hwnas.compress.library.target import Target
    from hwnas.compress.options import CompressOptions
    from hwnas.compress.pipeline import Result
    from hwnas.compress.settings import SearchSettings


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
        model: a checkpoint, a timm or torchvision name, `module:function`, or a function of a module that
            builds it.
        data: a name as `--data` takes it, a `hwnas.Data`, a torch `Dataset` of (image, class), or a pair of
            arrays (pixels, classes).
        devices: names or paths of device profiles.
        out: the run directory; None for `runs/MODEL`.
        progress: hears how far it is.
        options: by the names of `hwnas compress`'s options, such as `preset="quick"` or `speedup=[1.5]`.

    Raises:
        HwnasError: any failure that a user meets; what was finished stays in the run directory.

    See `hwnas compress --help` for the options.

    >>> import hwnas
    >>> run = hwnas.compress(
    ...     "tinynet:make",
    ...     data="digits",
    ...     devices="steady.toml",
    ...     out="runs/a",
    ...     weights="none",
    ...     candidates=2,
    ...     train_epochs=1,
    ...     epochs=1,
    ...     steps=2,
    ...     population=4,
    ...     generations=2,
    ...     finetune_epochs=1,
    ...     protocol="quick",
    ... )
    >>> run.devices
    ['steady']
    """
    from hwnas.compress.options import CompressOptions
    from hwnas.files import decode

    given = known_options(CompressOptions, {"data": data_name(data), **options}, "compress")
    names = checked_devices(devices)
    asked, progress = decode(CompressOptions, given, "hwnas.compress"), progress or Progress()
    with torch_as_before():
        compression = plan_compression(asked, name_of(model), names, out, progress)
        compression.require_consent(lambda question: False)
        compression.run("hwnas.compress", progress).require_all()
    return open_run(compression.out)


@dataclass(frozen=True, kw_only=True)
class Compression:
    """A compression that is ready to run: everything was found and checked, nothing was trained or measured.

    Attributes:
        out: the run directory.
        plans: what each device will be asked at most.

    >>> import hwnas.api
    >>> from hwnas.compress.options import CompressOptions
    >>> options = CompressOptions(
    ...     data="digits", weights="none", candidates=2, train_epochs=1, epochs=1, steps=2,
    ...     population=4, generations=2, finetune_epochs=1, protocol="quick",
    ... )
    >>> found = hwnas.api.plan_compression(
    ...     options, "tinynet:make", ["steady.toml"], "runs/a", hwnas.Progress()
    ... )
    >>> found.out.as_posix(), len(found.plans)
    ('runs/a', 1)
    """

    out: Path
    options: CompressOptions
    inputs: Inputs
    wanted: Sequence[tuple[SearchSettings, Target]]
    plans: Sequence[Plan]

    def training(self) -> TrainingPlan:
        """Return what would be trained, in epochs and hours; a few steps measure this machine's speed.

        >>> plan = found.training()
        >>> [step.step for step in plan.steps], plan.hours(8) <= plan.hours()
        (['reference training', 'distillation', 'predictor networks', 'finetuning'], True)
        """
        from hwnas.compress.budget import training_plan

        with torch_as_before():
            return training_plan(self.inputs, [search for search, _ in self.wanted])

    def require_consent(self, ask: Callable[[str], bool]) -> None:
        """Let nobody pay for many measurements by surprise; `ask` puts a question to the user.

        Raises:
            InputError: nobody agreed.

        >>> found.require_consent(lambda question: False)  # nothing here costs anything
        """
        from hwnas.compress.budget import require_consent

        for plan in self.plans:
            require_consent(plan, ask)

    def run(self, command: str, progress: Progress) -> Result:
        """Run it, and return its `Result`.

        Args:
            command: that the user gave, for the model cards.

        >>> found.run("mine", hwnas.Progress()).require_all()
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

    >>> import hwnas
    >>> from hwnas.compress.options import CompressOptions
    >>> options = CompressOptions(data="digits", weights="none", preset="quick")
    >>> found = hwnas.api.plan_compression(
    ...     options, "mobilenetv2_050", ["sim-npu"], "runs/b", hwnas.Progress(), dry_run=True
    ... )
    >>> found.inputs.parts.names[0]
    'stem'
    """
    from hwnas.compress.budget import plan_of
    from hwnas.compress.library.open_run import open_inputs
    from hwnas.compress.library.store import added_candidates
    from hwnas.compress.pipeline import require_suited
    from hwnas.compress.presets import resolve
    from hwnas.compress.run.device_check import check_devices
    from hwnas.compress.search.target import target_of

    devices = checked_devices(devices)
    path = checked_path("out", out) if out is not None else Path("runs") / Path(model.replace(":", "-")).name
    library, searches = resolve(options, model, devices, path)
    is_later = options.no_device_check
    wanted = [(search, target_of(search, options.cluster, is_later=is_later)) for search in searches]
    if not (dry_run or options.no_device_check):
        check_devices([(target.profile, target.cluster) for _, target in wanted], progress)
    inputs = open_inputs(library, progress, allow_code=options.allow_code)
    require_suited(inputs, searches)
    choices = inputs.choice_count + len(added_candidates(path))
    plans = [plan_of(search, target, choices, len(wanted) - 1) for search, target in wanted]
    return Compression(out=path, options=options, inputs=inputs, wanted=wanted, plans=plans)


def data_name(data: Any) -> str:
    """Return data by a name as `--data` takes it; objects are kept in the cache under theirs."""
    if isinstance(data, str):
        return data
    from hwnas.compress.data.given import as_data
    from hwnas.compress.data.stored import store_data

    return store_data(as_data(data))

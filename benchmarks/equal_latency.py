"""Accuracy at equal measured latency: hwnas, torch-pruning, uniform scaling, random search; and the cost.

    python benchmarks/equal_latency.py run [--out runs/equal_latency]

Run it in the repository's root. Imagenette at 160 px, tf_efficientnet_lite0 with its ImageNet weights, both
from ../shared/data. All methods get the same data, reference, bounds, and epochs, loss and seed of
finetuning; hwnas, scaling and random search also the same library and learning rate, and as many networks to
measure at most. torch-pruning is tried in eight ways at the bound in the middle, finetuned briefly, then with
three learning rates, and what is best on `val` counts. A bound is an upper limit: each method is asked for
--margin less, since what is picked by noisy latencies is slower than it seemed. At the end all finalists are
measured in one session by the protocol `report`; `test` is looked at only then. Stopped, it goes on by the
same command.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from finalists import BOUNDS, PEER, Bench, Finalist, measured, note, pruned, records, searched
from result_tables import OWN, Row, accuracy_table, cost_table, verdicts

from hwnas.cli.output import TerminalProgress
from hwnas.compress.library.device_run import DeviceRun
from hwnas.compress.library.open_run import open_inputs, open_run
from hwnas.compress.run.cost_log import Cost, read_costs
from hwnas.compress.run.directory import recorded_settings
from hwnas.compress.search.target import target_of
from hwnas.compress.settings import LibrarySettings, SearchSettings
from hwnas.compress.training import loop
from hwnas.devices.host.machine import usable_cores
from hwnas.errors import HwnasError, InputError
from hwnas.files import decode, read_json, write_json
from hwnas.profiles.protocols import SEARCH, load_protocol
from hwnas.progress import Progress

SHARED = "../shared/data"
STRATEGIES: Mapping[str, str] = {OWN: "nsga2", "uniform scaling": "scale", "random search": "random"}
LIBRARY = "library, once for all devices"
PROTOCOL = replace(SEARCH, name="equal latency", warmup_s=0.2, min_s=0.4)
"""Of searches and of torch-pruning's bisection."""


def run(options: argparse.Namespace, progress: Progress) -> str:
    """The whole benchmark; its tables."""
    library, search = settings_of(options)
    target = replace(target_of(search), protocol=PROTOCOL)
    second = replace(search, device=options.second_device)
    second_target = replace(target_of(second), protocol=PROTOCOL)
    inputs = open_inputs(library, progress)
    keep_options(options)
    with open_run(inputs, [(search, target)], options.out / "run", progress) as opened:
        device = DeviceRun(run=opened, search=search, target=target)
        bench = Bench(out=options.out, device=device, margin=options.margin)
        if not records(options.out):
            note(options.out, 0, LIBRARY, opened.directory.cost_log.path)
        finalists: list[Finalist] = []
        for number, (name, strategy) in enumerate(STRATEGIES.items(), 1):
            by_strategy = replace(device, search=replace(search, strategy=strategy))
            finalists += searched(replace(bench, device=by_strategy), number, name, BOUNDS)
        on_second = replace(bench, device=DeviceRun(run=opened, search=second, target=second_target))
        searched(on_second, len(STRATEGIES) + 1, second_name(options), BOUNDS[1:2])
        finalists += pruned(bench, options.choose_epochs)
        finalists.sort(key=lambda finalist: -finalist[0].bound)
        rows = measured(bench, finalists, load_protocol(options.report))
        reference = opened.reference
        scores = loop.scores(reference.module(), reference.data, reference.task)
        assert scores is not None
        return report(options, rows, accuracy_table(rows, scores), len(inputs.candidates))


def keep_options(options: argparse.Namespace) -> None:
    """Refuse to go on in a folder that was begun with other options."""
    path = options.out / "options.json"
    given = {key: str(value) for key, value in vars(options).items()}
    options.out.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        write_json(path, given)
    if read_json(path) != given:
        raise InputError(f"{path} holds other options", "give the same ones, or another --out")


def second_name(options: argparse.Namespace) -> str:
    """How the tables call hwnas on the second device."""
    return f"hwnas, second device {options.second_device}"


def report(options: argparse.Namespace, rows: Sequence[Row], accuracies: str, candidates: int) -> str:
    """All tables with what follows from them."""
    kept = [read_json(path) for path in records(options.out)]
    costs = {each["name"]: decode(list[Cost], each["spent"], options.out) for each in kept}
    again = sum(s.epochs for s in costs[second_name(options)] if s.step == "distillation")
    costs[PEER] = read_costs(options.out / "pruning" / "account.json")
    tuned, distilled = options.finetune_epochs, options.epochs
    measured_by = ", ".join(f"{each['name']} {each['networks']}" for each in kept if "networks" in each)
    return "\n".join(
        [
            f"{options.model}, {options.data}, {options.device}, {tuned} epochs of finetuning each\n",
            accuracies,
            "",
            *verdicts(rows),
            "",
            cost_table(costs),
            "",
            f"- Goal, no distillation for a second device: {again:g} epochs, {'missed' if again else 'met'}.",
            f"- As the papers count: {candidates} candidates × {distilled} epochs + {len(BOUNDS)} networks × "
            f"{tuned} = {candidates * distilled + len(BOUNDS) * tuned} epochs for one device of hwnas; an "
            "epoch of a candidate is that of one block. The teacher's forward passes are not in the FLOPs.",
            f"- Networks measured: {measured_by}.",
        ]
    )


def settings_of(options: argparse.Namespace) -> tuple[LibrarySettings, SearchSettings]:
    """What the command line asks for."""
    known = recorded_settings(options.out / "run")
    library = LibrarySettings(
        model=options.model,
        weights=options.weights,
        data=options.data,
        cuts=(),
        space=options.space,
        per_block=options.candidates,
        loss="nsr",
        train_epochs=options.train_epochs,
        epochs=options.epochs,
        steps=options.steps,
        batch_size=64,
        slice_size=10,
        seed=0,
        threads=known.threads if known else usable_cores(),
    )
    search = SearchSettings(
        device=options.device,
        objectives=("latency",),
        protocol="search",
        population=options.population,
        generations=options.generations,
        finetune_epochs=options.finetune_epochs,
        picks=(),
        filter="device",
        filter_threshold=0.1,
    )
    return library, search


def make_parser() -> argparse.ArgumentParser:
    """The options; those of model and data are for tests and for networks of one's own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add: Callable[..., Any] = parser.add_argument
    add("command", nargs="?", choices=["run"])
    add("--out", type=Path, default=Path("runs/equal_latency"))
    add("--model", default="tf_efficientnet_lite0")
    add("--weights", default=f"{SHARED}/tf_efficientnet_lite0.safetensors")
    add("--data", default="imagenette")
    add("--device", default="cpu-1")
    add("--second-device", default="sim-npu")
    add("--space", default="benchmarks/lite.toml")
    add("--candidates", type=int, default=0, help="a block; 0: the space's own")
    add("--train-epochs", type=int, default=20, help="of a reference without weights")
    add("--epochs", type=int, default=6, help="of distillation")
    add("--steps", type=int, default=0, help="of distillation at most; 0: no limit")
    add("--population", type=int, default=24)
    add("--generations", type=int, default=8)
    add("--finetune-epochs", type=int, default=5)
    add(
        "--choose-epochs", type=int, default=2, help="by which torch-pruning's way and rate are chosen on val"
    )
    add("--margin", type=float, default=0.02, help="share of the bound that noise may take")
    add("--report", default="report", help="protocol of the finalists")
    return parser


def main() -> None:
    """Parse the command line, and print the tables."""
    options = make_parser().parse_args()
    if not options.command:
        print(__doc__)
        return
    if Path(SHARED).is_dir():
        os.environ.setdefault("HWNAS_DATA_DIR", SHARED)
    try:
        with TerminalProgress() as progress:
            text = run(options, progress)
    except HwnasError as error:
        sys.exit(str(error))
    (options.out / "report.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()

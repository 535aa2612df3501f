"""Is finetuning from the library nine times shorter than training from scratch? Accuracy over epochs.

    python benchmarks/finetune_curves.py run [--out runs/finetune_curves]

Run it in the repository's root. One architecture is trained for E epochs from the library's weights, against
the reference's logits, and for 9 E epochs from random weights against the labels, as a reference is trained;
each with its own learning rate's schedule, on the same images. The reference was trained as long as the
longest training from scratch, on these images too, so nothing knows more data than anything else.

MobileNetV2 on 8,000 images of the CIFAR-10 copy in ../shared/data; the architecture is the one with the
lowest sum of block losses and at most half of the MACs. Stopped, it goes on by the same command.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from curve_tables import LIBRARY, SCRATCH, SHORTER, Curve, budget_table, curve_table, percent, plot
from result_tables import cost_table
from torch import Tensor, nn

from hwnas.cli.output import TerminalProgress
from hwnas.compress.data import Data, Images, load_data
from hwnas.compress.library.device_run import DeviceRun
from hwnas.compress.library.open_run import open_inputs, open_run
from hwnas.compress.library.stitch import Choices
from hwnas.compress.quality.finetune import FINETUNE_LEARNING_RATE
from hwnas.compress.quality.model import prepare_quality
from hwnas.compress.reference.prepare import TRAIN_LEARNING_RATE
from hwnas.compress.run.cost_log import read_costs
from hwnas.compress.run.directory import recorded_settings
from hwnas.compress.search.pick import pick
from hwnas.compress.search.search import search_device
from hwnas.compress.search.target import target_of
from hwnas.compress.settings import LibrarySettings, SearchSettings
from hwnas.compress.training import loop
from hwnas.compress.training.intervals import mean_score
from hwnas.compress.training.placement import placed
from hwnas.devices.host.machine import usable_cores
from hwnas.errors import HwnasError
from hwnas.files import read_json, write_json
from hwnas.measurement import Interval
from hwnas.networks.build import build_module
from hwnas.networks.serialize import save_state
from hwnas.networks.weights import read_state
from hwnas.progress import Progress

SHARED = "../shared/data"
TRAIN, VAL, TEST = 8000, 1000, 4000
SEARCH = SearchSettings(
    device="cpu",  # which is not asked
    objectives=("macs",),
    protocol="search",
    population=24,
    generations=8,
    finetune_epochs=1,
    picks=(),
    filter="macs",
    filter_threshold=0.1,
)


def some_of_cifar10() -> Data:
    """As many images of each class, the first ones of each part."""
    data = load_data("cifar10")

    def first(images: Images, amount: int) -> Images:
        assert images.labels is not None
        each = amount // len(data.class_names)
        rows = torch.cat(
            [(images.labels == label).nonzero()[:each, 0] for label in range(len(data.class_names))]
        )
        return Images(pixels=images.pixels[rows].clone(), labels=images.labels[rows].clone())

    train, val, test = first(data.train, TRAIN), first(data.val, VAL), first(data.test, TEST)
    return replace(data, digest=None, train=train, val=val, test=test)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Trains one architecture in both ways."""

    out: Path
    device: DeviceRun
    choices: Choices

    def train(self, start: str, epochs: int) -> tuple[Curve, Tensor]:
        """Accuracy over the epochs of a training; right or wrong on each test image at its end, (N,)."""
        run = self.device.run
        reference, settings = run.reference, run.settings
        data, task = reference.data, reference.task
        name = f"{start}-{epochs}"
        record, weights = self.out / f"{name}.json", self.out / f"{name}.safetensors"
        state_file = self.out / f".{name}.safetensors"
        curve = read_json(record) if record.exists() else {}
        module = self.start(start)

        def after_epoch(done: int, loss: float) -> None:
            found = loop.scores(deepcopy(module), data, task)
            assert found is not None
            interval = mean_score(found)
            curve[str(done)] = [interval.value, interval.low, interval.high]
            write_json(record, curve)
            run.progress.advance(name, done, epochs, f"loss {loss:.3f}, accuracy {interval.value:.1%}")

        if weights.exists():
            module.load_state_dict(read_state(weights))
        else:
            own, teacher = start == LIBRARY, reference.module()
            if own:
                loop.recalibrate(module, data, settings.batch_size)
            with placed(data.place, teacher):
                loop.fit(
                    module,
                    data,
                    loop.distillation_loss(teacher, task) if own else loop.target_loss(task),
                    epochs=epochs,
                    batch_size=settings.batch_size,
                    learning_rate=FINETUNE_LEARNING_RATE if own else TRAIN_LEARNING_RATE,
                    seed=settings.seed,
                    state_file=state_file,
                    progress=after_epoch,
                )
            save_state(module.state_dict(), weights)
            state_file.unlink(missing_ok=True)
        scores = loop.scores(module, data, task)
        assert scores is not None
        intervals = {
            int(done): Interval(value=v, low=low, high=high) for done, (v, low, high) in curve.items()
        }
        return intervals | {epochs: mean_score(scores)}, scores

    def start(self, start: str) -> nn.Module:
        """The architecture with the library's weights, or with random ones."""
        stitcher, run = self.device.stitcher, self.device.run
        if start == LIBRARY:
            return stitcher.module(self.choices)
        torch.manual_seed(run.settings.seed + 1)  # not the weights that the reference began with
        specs = [stitcher.spec(part, choice) for part, choice in enumerate(self.choices)]
        return build_module(run.reference.architecture(specs), allow_code=True)


def run(options: argparse.Namespace, progress: Progress) -> str:
    """The whole benchmark; its tables."""
    settings = settings_of(options)
    target = target_of(SEARCH)
    inputs = open_inputs(settings, progress)
    with open_run(inputs, [(SEARCH, target)], options.out / "run", progress) as opened:
        device = DeviceRun(run=opened, search=SEARCH, target=target)
        searched = search_device(device, prepare_quality(device))
        front = [row.point for row in searched.front]
        point = pick(front, "speedup=2", searched.objectives, searched.anchor_latency_ms)
        bench = Bench(out=options.out, device=device, choices=point.choices)
        found = {
            (start, epochs * times): bench.train(start, epochs * times)
            for epochs in options.epochs
            for start, times in ((LIBRARY, 1), (SCRATCH, SHORTER))
        }
        reference = opened.reference
        scores = loop.scores(reference.module(), reference.data, reference.task)
        assert scores is not None
    longest = max(options.epochs)
    curves = {
        LIBRARY: found[LIBRARY, longest][0],
        SCRATCH: found[SCRATCH, SHORTER * longest][0],
    }
    plot(curves, mean_score(scores).value, options.out / "curves.png")
    return "\n".join(
        [
            f"{settings.model}, {settings.data}, architecture {'-'.join(map(str, point.choices))}; "
            f"reference {percent(mean_score(scores))}\n",
            budget_table({key: scores for key, (_, scores) in found.items()}),
            "",
            curve_table(curves),
            "",
            "What came before, for all networks and devices together:\n",
            cost_table({"library": read_costs(options.out / "run" / "account.json")}),
        ]
    )


def settings_of(options: argparse.Namespace) -> LibrarySettings:
    """What the command line asks for."""
    known = recorded_settings(options.out / "run")
    return LibrarySettings(
        model=options.model,
        weights="none",
        data=options.data,
        cuts=(),
        space="compression",
        per_block=6,
        loss="nsr",
        train_epochs=SHORTER * max(options.epochs),
        epochs=options.distil_epochs,
        steps=0,
        batch_size=options.batch_size,
        slice_size=10,
        seed=0,
        threads=known.threads if known else usable_cores(),
        train_on=options.train_on,
    )


def main() -> None:
    """Parse the command line, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add: Callable[..., Any] = parser.add_argument
    add("command", nargs="?", choices=["run"])
    add("--out", type=Path, default=Path("runs/finetune_curves"))
    add("--model", default="mobilenetv2_100")
    add("--data", default="finetune_curves:some_of_cifar10")
    add(
        "--epochs", type=int, nargs="+", default=[1, 2, 5], help="of finetuning; scratch gets 9 times as many"
    )
    add("--distil-epochs", type=int, default=5)
    add("--batch-size", type=int, default=64)
    add("--train-on", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args()
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

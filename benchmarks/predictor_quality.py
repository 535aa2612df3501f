"""How well the accuracy predictor orders networks that it was not fitted to.

    python benchmarks/predictor_quality.py [--seeds 0 1 2] [--networks 24] [--held-out 16] [--epochs 2]
                                           [--out runs/predictor-quality]

Each seed has a reference, a library, 10,000 training images and networks of its own (`cifar_subset.py`). The
predictor is fitted as by `hwnas compress --quality predictor`. The held-out networks are drawn in the same
way, by another seed, and none of them is fitted; their accuracies are on the 10,000 images of the part
`test`, which nothing was trained on or chosen by. They are finetuned twice, with other batches: Kendall's tau
between the two is the ceiling. It is that of two noisy orders; a perfect prediction may reach more.

Everything is kept under --out: a call that was stopped goes on, and `--seeds 0`, `--networks 8` are pieces of
the whole. Seeds may run side by side. A seed whose networks are all there costs seconds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from cifar_subset import SEEDS, Lines, settings_of
from predictor_tables import Found, table, verdict

from hwnas.compress.data import Images
from hwnas.compress.library.device_run import DeviceRun
from hwnas.compress.library.open_run import Inputs, open_inputs, open_run
from hwnas.compress.library.stitch import Choices, Stitcher
from hwnas.compress.quality.finetune import FINETUNE_LEARNING_RATE, finetune_all, finetuned_networks
from hwnas.compress.quality.finetuned import FinetunedNetworks, block_metrics, metric_rows
from hwnas.compress.quality.model import Quality, dna_scores, prepare_quality
from hwnas.compress.quality.sampling import sample_networks
from hwnas.compress.run.cost_log import read_costs
from hwnas.compress.search.target import target_of
from hwnas.compress.settings import LibrarySettings, SearchSettings
from hwnas.compress.training import loop
from hwnas.networks.count import count as count_cost
from hwnas.progress import Progress

HELD_OUT, AGAIN = "held-out", "held-out-again"
OTHER_SEED = 1000
TIMED_BATCHES = 10


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How many networks are finetuned for one seed, and for how many epochs; the held-out ones twice."""

    networks: int
    held_out: int
    epochs: int

    @property
    def trainings(self) -> int:
        return self.networks + 2 * self.held_out


def study(settings: LibrarySettings, plan: Plan, out: Path, progress: Progress) -> Found:
    """Train what is missing for one seed, and say what came out.

    Args:
        out: the run directory; the held-out networks have folders of their own in it.
    """
    inputs = open_inputs(settings, progress)
    folders = (out, out / HELD_OUT, out / AGAIN)
    stored = sum(len(FinetunedNetworks(path / "architectures").networks(plan.epochs)) for path in folders)
    missing = plan.trainings - stored
    if missing > 0:
        epoch_s, before_s = estimate(inputs)
        progress.say(
            f"seed {settings.seed}: a finetune epoch of the reference takes {epoch_s:.0f} s of CPU time, "
            f"that of a smaller network less; {missing} trainings of {plan.epochs} epochs are missing, "
            f"{missing * plan.epochs * epoch_s / 60:.0f} min at most; reference and library, where they are "
            f"missing, {before_s / 60:.0f} min"
        )
    search = _search(plan)
    with open_run(inputs, [], out, progress) as run:
        device = DeviceRun(run=run, search=search, target=target_of(search))
        stitcher, quality = device.stitcher, prepare_quality(device)
        fitted = finetuned_networks(run).networks(plan.epochs)
        networks = held_out(stitcher, [network.choices for network in fitted], plan.held_out, settings.seed)
        first, again = (
            finetuned(device, networks, plan.epochs, folder, seed)
            for folder, seed in ((HELD_OUT, settings.seed), (AGAIN, settings.seed + OTHER_SEED))
        )
        assert isinstance(quality, Quality)
        assert quality.predictor is not None
        rows = metric_rows(block_metrics(run.library.entries()), networks)
        return Found(
            seed=settings.seed,
            accuracies=first,
            again=again,
            predicted=quality.predictor.predict(rows),
            extrapolated=int(quality.predictor.extrapolates(rows).sum()),
            errors=errors(stitcher, networks),
            fitted_accuracies=np.array([network.target for network in fitted]),
            fitted_errors=errors(stitcher, [network.choices for network in fitted]),
            reference=None if run.accuracy is None else run.accuracy.value,
        )


def _search(plan: Plan) -> SearchSettings:
    """What prepares the predictor; nothing is searched."""
    return SearchSettings(
        device="cpu",
        objectives=("latency",),
        protocol="quick",
        population=1,
        generations=1,
        finetune_epochs=plan.epochs,
        picks=(),
        filter="none",
        filter_threshold=0.1,
        quality="predictor",
        predictor_networks=plan.networks,
        predictor_epochs=plan.epochs,
    )


def held_out(stitcher: Stitcher, fitted: Sequence[Choices], amount: int, seed: int) -> list[Choices]:
    """Networks over the whole range of the DNA score that are not fitted; the ends of the range are."""
    drawn = sample_networks(dna_scores(stitcher), len(fitted) + amount + 2, seed + OTHER_SEED)
    return [network for network in drawn[2:] if network not in fitted][:amount]


def finetuned(
    device: DeviceRun, networks: Sequence[Choices], epochs: int, folder: str, seed: int
) -> np.ndarray:
    """Accuracies (S,) on the part `test` of networks that are finetuned where they are not there yet."""
    run, data = device.run, device.run.reference.data
    directory = replace(run.directory, path=run.directory.path / folder)
    directory.path.mkdir(exist_ok=True)
    apart = replace(
        run,
        directory=directory,
        reference=replace(run.reference, data=replace(data, val=data.test)),
        settings=replace(run.settings, seed=seed),
    )
    known = {network.choices: network.target for network in finetuned_networks(apart).networks(epochs)}
    missing = [choices for choices in networks if choices not in known]

    def tell(choices: Choices, done: int, loss: float) -> None:
        place = f"network {missing.index(choices) + 1} of {len(missing)}, loss {loss:.3f}"
        run.progress.advance(folder, done, epochs, place)

    held = replace(device, run=apart)
    made = finetune_all(held, missing, epochs, "predictor networks", tell, run.executor)
    known |= {network.choices: network.target for network in made}
    return np.array([known[choices] for choices in networks])


def errors(stitcher: Stitcher, networks: Sequence[Choices]) -> dict[str, np.ndarray]:
    """By what networks can be ranked without training any: (S,) each; the lower, the better it should be."""
    costs = np.array([stitcher.cost(choices) for choices in networks], dtype=float)
    sums = {"sum of NSR": "nsr", "sum of MSE": "mse", "DNA score": "relative_l1"}
    found = {name: np.array([stitcher.loss(c, metric) for c in networks]) for name, metric in sums.items()}
    return found | {"MACs": -costs[:, 0] / 1e6, "parameters": -costs[:, 1] / 1e6}


def estimate(inputs: Inputs) -> tuple[float, float]:
    """CPU seconds of one finetune epoch of the reference here, and of training reference and library.

    The reference stands for every network, though most are smaller, and its blocks for their candidates.
    """
    settings, whole = inputs.settings, inputs.data.train
    loop.tune_allocator()
    torch.set_num_threads(settings.threads)
    count = TIMED_BATCHES * settings.batch_size
    few = Images(pixels=whole.pixels[:count], labels=None if whole.labels is None else whole.labels[:count])
    with tempfile.TemporaryDirectory() as folder:
        start_s = time.process_time()
        loop.fit(
            deepcopy(inputs.initial.module),
            replace(inputs.data, train=few),
            loop.distillation_loss(deepcopy(inputs.initial.module).eval(), inputs.initial.task),
            epochs=1,
            batch_size=settings.batch_size,
            learning_rate=FINETUNE_LEARNING_RATE,
            seed=0,
            state_file=Path(folder) / "state",
            progress=lambda *_: None,
        )
        epoch_s = (time.process_time() - start_s) * len(whole) / len(few)
    own, _ = count_cost(inputs.initial.module, inputs.data.image_shape)
    library = settings.epochs * sum(candidate.macs for candidate in inputs.candidates) / own
    return epoch_s, epoch_s * (settings.train_epochs + library)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", choices=SEEDS, default=list(SEEDS))
    parser.add_argument("--networks", type=int, default=24, help="that the predictor is fitted to")
    parser.add_argument("--held-out", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=2, help="of each network's finetuning")
    parser.add_argument("--out", type=Path, default=Path("runs/predictor-quality"))
    options = parser.parse_args()
    plan = Plan(networks=options.networks, held_out=options.held_out, epochs=options.epochs)
    options.out.mkdir(parents=True, exist_ok=True)
    found = [study(settings_of(seed), plan, options.out / f"seed-{seed}", Lines()) for seed in options.seeds]
    seeds = " ".join(map(str, options.seeds))
    command = f"--seeds {seeds} --networks {plan.networks} --held-out {plan.held_out} --epochs {plan.epochs}"
    print(f"`python benchmarks/predictor_quality.py {command}`:\n")
    print(table(found), verdict(found), sep="\n\n")
    minutes = [
        sum(spent.seconds for spent in read_costs(options.out / f"seed-{seed}" / "account.json")) / 60
        for seed in options.seeds
    ]
    print(
        f"\nTook {sum(minutes):.0f} minutes of one thread: {', '.join(f'{m:.0f}' for m in minutes)} a seed."
    )


if __name__ == "__main__":
    main()

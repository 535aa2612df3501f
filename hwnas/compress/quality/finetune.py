"""Finetuning networks that were stitched from the library; each is trained once and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from hwnas.compress.executor import Executor, LocalExecutor, Tell
from hwnas.compress.library.stitch import Choices, Stitcher
from hwnas.compress.library.worker import TeacherBench
from hwnas.compress.quality.finetuned import Architectures, Finetuned, finetuned_name
from hwnas.compress.reference.prepare import Reference
from hwnas.compress.run.cost_log import Step
from hwnas.compress.run.directory import RunDirectory
from hwnas.compress.settings import LibrarySettings
from hwnas.compress.training import loop
from hwnas.compress.training.intervals import mean_score
from hwnas.compress.training.placement import placed
from hwnas.measurement import Interval
from hwnas.networks.architecture import CandidateSpec
from hwnas.networks.build import assemble, build_part
from hwnas.progress import Progress

FINETUNE_LEARNING_RATE = 5e-4  # AdamW, batches of 64; docs/networks.md


@dataclass(frozen=True, kw_only=True)
class Stitched:
    """A network to be finetuned.

    Attributes:
        specs: of each part; None for the reference's own.
        state: the weights of the whole network.
    """

    choices: Choices
    epochs: int
    specs: tuple[CandidateSpec | None, ...]
    state: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """A finetuned network: its weights, and how good it is on the part `val`, as in `Finetuned`."""

    state: dict[str, Tensor]
    accuracy: Interval | None
    agreement: Interval


def finetune_network(bench: TeacherBench, network: Stitched, tell: Tell) -> Tuned:
    """Finetune a network against the reference's output.

    Args:
        tell: told each finished epoch and its loss.

    Raises:
        HwnasError: the loss became NaN or infinite.
    """
    reference, settings = bench.reference, bench.settings
    parts, data, teacher, task = reference.parts, reference.data, reference.module(), reference.task
    # Copied together: weights that several parts share stay shared.
    module = assemble(parts, deepcopy([build_part(parts, n, spec) for n, spec in enumerate(network.specs)]))
    module.load_state_dict(network.state)
    loop.recalibrate(module, data, settings.batch_size)
    scratch = bench.scratch
    with placed(data.place, teacher):
        loop.fit(
            module,
            data,
            loop.distillation_loss(teacher, task),
            epochs=network.epochs,
            batch_size=settings.batch_size,
            learning_rate=FINETUNE_LEARNING_RATE,
            seed=settings.seed,
            state_file=scratch and _state_file(scratch, network.choices, network.epochs),
            progress=tell,
        )
    scores = loop.scores(module, data, task, data.val)
    return Tuned(
        state={key: value.contiguous() for key, value in module.state_dict().items()},
        accuracy=None if scores is None else mean_score(scores),
        agreement=mean_score(loop.agreement(module, teacher, data, task, data.val)),
    )


class Finetuner:
    """Finetunes networks of one run.

    Attributes:
        architectures: what was finetuned so far, by any device and for any purpose.
    """

    def __init__(
        self,
        run: RunDirectory,
        reference: Reference,
        stitcher: Stitcher,
        settings: LibrarySettings,
        progress: Progress,
    ) -> None:
        self.run = run
        self.reference = reference
        self.stitcher = stitcher
        self.settings = settings
        self.progress = progress
        self.architectures = Architectures(run.architectures)

    def finetune(
        self,
        choices: Choices,
        epochs: int,
        step: Step,
        device: str | None,
        tell: Callable[[int, float], None],
    ) -> tuple[nn.Sequential, Finetuned]:
        """A network's finetuned module, in eval mode, and its record; from `architectures/` where it is
        there.

        Args:
            step, device: of the account.
            tell: called after each epoch with its number and the loss.

        Raises:
            HwnasError: the loss became NaN or infinite.
        """
        known = self.architectures.find(choices, epochs)
        if known is None:
            if path := self.architectures.damaged(epochs).get(choices):
                self.progress.say(f"{path} or its weights are damaged; finetuned again")
            (known,) = self.finetune_all(
                [choices], epochs, step, device, lambda _, *what: tell(*what), LocalExecutor()
            )
        module = self.stitcher.module(choices)
        self.architectures.load(known, module)
        # Also the state of a process that was killed before it removed it.
        _state_file(self.run.architectures, choices, epochs).unlink(missing_ok=True)
        return module, known

    def finetune_all(
        self,
        networks: Sequence[Choices],
        epochs: int,
        step: Step,
        device: str | None,
        tell: Callable[[Choices, int, float], None],
        executor: Executor,
    ) -> list[Finetuned]:
        """Finetune networks and keep each as soon as it is done. As `finetune`.

        Args:
            tell: is given the network first.
        """
        bench = TeacherBench(reference=self.reference, settings=self.settings, scratch=self.run.architectures)
        data = self.reference.data
        images = loop.images_per_epoch(data, self.settings.batch_size)

        def after_epoch(network: Stitched, done: int, loss: float) -> None:
            macs, _ = self.stitcher.cost(network.choices)
            self.run.account.lap(step, device, images=images, of=len(data.train), macs=macs)
            tell(network.choices, done, loss)

        tasks = self._stitched(networks, epochs)
        found = []
        for network, tuned in executor.run(finetune_network, bench, tasks, after_epoch):
            found.append(
                self.architectures.store(
                    tuned.state, network.choices, epochs, tuned.accuracy, tuned.agreement
                )
            )
            _state_file(self.run.architectures, network.choices, epochs).unlink(missing_ok=True)
        return found

    def _stitched(self, networks: Sequence[Choices], epochs: int) -> Iterator[Stitched]:
        for choices in networks:
            yield Stitched(
                choices=choices,
                epochs=epochs,
                specs=tuple(self.stitcher.spec(part, choice) for part, choice in enumerate(choices)),
                state=self.stitcher.module(choices).state_dict(),
            )


def _state_file(folder: Path, choices: Choices, epochs: int) -> Path:
    return folder / f".{finetuned_name(choices, epochs)}.safetensors"

"""Finetuning networks that were stitched from the library; each is trained once and kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor, nn

from hwnas.compress import training
from hwnas.compress.account import Step
from hwnas.compress.architectures import Architectures, Finetuned, finetuned_name
from hwnas.compress.prepare import Reference
from hwnas.compress.progress import Progress
from hwnas.compress.run import RunDirectory
from hwnas.compress.settings import LibrarySettings
from hwnas.compress.statistics import accuracy
from hwnas.compress.stitch import Choices, Stitcher

FINETUNE_LEARNING_RATE = 2e-3  # AdamW, batches of 64; chosen on the `val` part of digits


class Finetuner:
    """Finetunes networks of one run against the reference's logits.

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
        module = self.stitcher.module(choices)
        known = self.architectures.find(choices, epochs)
        if known is not None:
            self.architectures.load(known, module)
            return module, known
        data, batch_size = self.reference.data, self.settings.batch_size
        training.recalibrate(module, data, batch_size)
        state_file = self.run.architectures / f".{finetuned_name(choices, epochs)}.safetensors"
        macs, _ = self.stitcher.cost(choices)
        images = training.images_per_epoch(data, batch_size)

        def after_epoch(done: int, loss: float) -> None:
            self.run.account.lap(step, device, images=images, of=len(data.train), macs=macs)
            tell(done, loss)

        training.fit(
            module,
            data,
            training.distillation_loss(self.reference.module()),
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=FINETUNE_LEARNING_RATE,
            seed=self.settings.seed,
            state_file=state_file,
            progress=after_epoch,
        )
        answers, labels = self._answers(module), data.val.labels
        found = self.architectures.store(
            module,
            choices,
            epochs,
            None if labels is None else accuracy(answers == labels),
            accuracy(answers == self._reference_answers),
        )
        state_file.unlink(missing_ok=True)
        return module, found

    @cached_property
    def _reference_answers(self) -> Tensor:
        return self._answers(self.reference.module())

    @torch.no_grad()
    def _answers(self, module: nn.Module) -> Tensor:
        """The class that a network finds most likely for each image of the part `val`, (N,) int64."""
        module.eval().to(memory_format=torch.channels_last)
        data = self.reference.data
        return torch.cat([module(x).argmax(1) for x, _ in data.batches(data.val, 256)])

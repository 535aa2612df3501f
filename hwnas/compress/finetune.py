"""Finetuning networks that were stitched from the library; each is trained once and kept."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from hwnas.compress import training
from hwnas.compress.account import Step
from hwnas.compress.architectures import Architectures, Finetuned, finetuned_name
from hwnas.compress.prepare import Reference
from hwnas.compress.progress import Progress
from hwnas.compress.run import RunDirectory
from hwnas.compress.settings import LibrarySettings
from hwnas.compress.statistics import mean_score
from hwnas.compress.stitch import Choices, Stitcher

FINETUNE_LEARNING_RATE = 1e-3  # AdamW, batches of 64; chosen on `val` of Imagenette and Fashion-MNIST


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
        state_file = self.run.architectures / f".{finetuned_name(choices, epochs)}.safetensors"
        known = self.architectures.find(choices, epochs)
        if known is not None:
            state_file.unlink(missing_ok=True)  # of a process that was killed before it removed it
            self.architectures.load(known, module)
            return module, known
        data, batch_size = self.reference.data, self.settings.batch_size
        training.recalibrate(module, data, batch_size)
        macs, _ = self.stitcher.cost(choices)
        images = training.images_per_epoch(data, batch_size)

        def after_epoch(done: int, loss: float) -> None:
            self.run.account.lap(step, device, images=images, of=len(data.train), macs=macs)
            tell(done, loss)

        training.fit(
            module,
            data,
            training.distillation_loss(self.reference.module(), self.reference.task),
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=FINETUNE_LEARNING_RATE,
            seed=self.settings.seed,
            state_file=state_file,
            progress=after_epoch,
        )
        task, teacher = self.reference.task, self.reference.module()
        scores = training.scores(module, data, task, data.val)
        found = self.architectures.store(
            module,
            choices,
            epochs,
            None if scores is None else mean_score(scores),
            mean_score(training.agreement(module, teacher, data, task, data.val)),
        )
        state_file.unlink(missing_ok=True)
        return module, found

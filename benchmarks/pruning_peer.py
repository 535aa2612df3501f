"""torch-pruning to a bound on measured latency, finetuned as hwnas finetunes.

A part of equal_latency.py and task_proofs.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn

from hwnas.compress.quality.finetune import FINETUNE_LEARNING_RATE
from hwnas.compress.reference.prepare import Reference
from hwnas.compress.run.cost_log import CostLog, Step
from hwnas.compress.settings import LibrarySettings
from hwnas.compress.training import loop
from hwnas.compress.training.intervals import measured
from hwnas.files import read_json, write_json
from hwnas.networks.count import count
from hwnas.networks.serialize import save_state
from hwnas.networks.tensors import tensors_of
from hwnas.networks.weights import read_state
from hwnas.progress import Progress

importance = torch_pruning.importance
WAYS: Mapping[str, tuple[Callable[[], Any], bool]] = {
    "magnitude": (importance.GroupMagnitudeImportance, False),
    "magnitude, global": (importance.GroupMagnitudeImportance, True),
    "BN scale": (importance.BNScaleImportance, False),
    "BN scale, global": (importance.BNScaleImportance, True),
    "FPGM": (importance.FPGMImportance, False),
    "LAMP, global": (importance.LAMPImportance, True),
    "Taylor": (importance.GroupTaylorImportance, False),
    "Taylor, global": (importance.GroupTaylorImportance, True),
}
"""Importances, and whether channels of all layers are ranked together. Without `global` each layer loses the
same share."""
RATES = tuple(FINETUNE_LEARNING_RATE * factor for factor in (1, 1 / 3, 3))
"""Learning rates of finetuning; the first one is hwnas's."""
ROUND_TO = 8  # channels: what ONNX Runtime's kernels are made for
HIGHEST_RATIO = 0.95
STEPS = 8
ATTEMPTS = 3
NEAR = 0.95
GRADIENT_BATCHES = 8
LAYERS = nn.Conv2d, nn.ConvTranspose2d, nn.Linear


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Prunes one reference.

    Attributes:
        folder: of what is done already.
        latency_ratio: measures a module, in units of the reference.
        account: what this has spent.
        ways, rates: that are tried.
    """

    folder: Path
    reference: Reference
    settings: LibrarySettings
    latency_ratio: Callable[[nn.Module], float]
    account: CostLog
    progress: Progress
    ways: Sequence[str] = field(default_factory=lambda: tuple(WAYS))
    rates: Sequence[float] = field(default_factory=lambda: RATES)

    def choose(self, limit: float, epochs: int) -> tuple[str, float]:
        """The way, and then the learning rate, whose network within `limit` is best on the part `val`.

        Args:
            epochs: of finetuning, before the networks are compared.
        """
        way = max(self.ways, key=lambda way: self._tried(way, self.rates[0], limit, epochs))
        return way, max(self.rates, key=lambda rate: self._tried(way, rate, limit, epochs))

    def network(
        self, way: str, rate: float, limit: float, epochs: int, step: Step = "finetuning"
    ) -> nn.Module | None:
        """A network whose measured latency is at most `limit`, finetuned with the learning rate `rate`.

        Returns:
            None where no ratio reaches it.
        """
        name = f"{way.replace(', ', '-').replace(' ', '-')}-{limit:g}"
        trained = self.folder / f"{name}-e{epochs}-{rate:.0e}.safetensors"
        if not trained.exists():
            module = self._pruned(way, limit, self.folder / name)
            if module is None:
                return None
            self._finetune(module, epochs, rate, trained, step)
        return shaped(self.reference.module(), read_state(trained)).eval()

    def _tried(self, way: str, rate: float, limit: float, epochs: int) -> float:
        """The first metric on `val`, kept in `tried.json`; 0 where no ratio is within the limit."""
        record = self.folder / "tried.json"
        known = read_json(record) if record.exists() else {}
        what = f"{way}, learning rate {rate:.2g}"
        if what not in known:
            module = self.network(way, rate, limit, epochs, "search")
            known[what] = 0.0 if module is None else self._quality(module)
            write_json(record, known)
            self.progress.say(f"torch-pruning, {what}, {epochs} epochs: {known[what]:.4g} on val")
        return float(known[what])

    def _quality(self, module: nn.Module) -> float:
        task = self.reference.task
        evidence = loop.scores(module, self.reference.data, task, self.reference.data.val)
        found = measured(evidence, task.measure)
        assert found is not None
        return found.value

    def _pruned(self, way: str, limit: float, path: Path) -> nn.Module | None:
        """The least pruned network within `limit`; `PATH.json` says by which ratio."""
        weights, record = path.with_name(f"{path.name}.safetensors"), path.with_name(f"{path.name}.json")
        if not record.exists():
            graded = with_gradients(self.reference)

            def cost(ratio: float) -> float:
                return self.latency_ratio(pruned(graded, way, ratio, self.reference))

            found = closely_within(cost, limit, HIGHEST_RATIO, STEPS)
            if found is not None:
                save_state(pruned(graded, way, found[0], self.reference).state_dict(), weights)
                self.progress.say(f"torch-pruning, {way}: ratio {found[0]:.3f} has latency {found[1]:.3f}")
            write_json(record, {"ratio_and_latency": found})
            self.account.record("search")
        if read_json(record)["ratio_and_latency"] is None:
            return None
        return shaped(self.reference.module(), read_state(weights))

    def _finetune(self, module: nn.Module, epochs: int, rate: float, trained: Path, step: Step) -> None:
        """As `hwnas.compress.quality.finetune.finetune_network` does, but for the learning rate."""
        reference, settings = self.reference, self.settings
        data, state_file = reference.data, trained.with_name(f".{trained.name}")
        macs, _ = count(module, data.image_shape)
        images = loop.images_per_epoch(data, settings.batch_size)

        def after_epoch(done: int, loss: float) -> None:
            self.account.record(step, images=images, of=len(data.train), macs=macs)
            self.progress.advance(f"finetune {trained.stem}", done, epochs, f"loss {loss:.3f}")

        loop.recalibrate(module, data, settings.batch_size)
        loop.fit(
            module,
            data,
            loop.distillation_loss(reference.module(), reference.task),
            epochs=epochs,
            batch_size=settings.batch_size,
            learning_rate=rate,
            seed=settings.seed,
            state_file=state_file,
            progress=after_epoch,
        )
        save_state(module.state_dict(), trained)
        state_file.unlink(missing_ok=True)


def least_within(
    cost: Callable[[float], float], limit: float, highest: float, steps: int
) -> tuple[float, float] | None:
    """The lowest ratio in (0, `highest`] whose cost is at most `limit`, by bisection, and that cost.

    A cost that falls with the ratio is assumed; where noise or rounding breaks that, what is returned is
    within the limit all the same. None where no ratio that was tried is.
    """
    low, high = 0.0, highest
    value = cost(highest)
    if value > limit:
        return None
    best = highest, value
    for _ in range(steps):
        middle = (low + high) / 2
        value = cost(middle)
        if value <= limit:
            best, high = (middle, value), middle
        else:
            low = middle
    return best


def closely_within(
    cost: Callable[[float], float], limit: float, highest: float, steps: int
) -> tuple[float, float] | None:
    """As `least_within`; again where the cost that was found is far below the limit.

    A single figure that noise made too high leads a bisection far away from where it should end.
    """
    best: tuple[float, float] | None = None
    for _ in range(ATTEMPTS):
        found = least_within(cost, limit, highest, steps)
        best = min((each for each in (best, found) if each is not None), default=None)
        if best is not None and best[1] >= NEAR * limit:
            break
    return best


def with_gradients(reference: Reference) -> nn.Module:
    """A copy of the reference with the gradients of some training batches, which Taylor wants."""
    module, data = deepcopy(reference.module()).eval().requires_grad_(True), reference.data
    loss = loop.target_loss(reference.task)
    for number, (x, targets) in enumerate(data.train_batches(64, 0, 0, augment=False)):
        if number == GRADIENT_BATCHES:
            break
        loss(module(x), loop.Batch(number, x, targets)).backward()  # type: ignore[no-untyped-call]
    return module


def pruned(graded: nn.Module, way: str, ratio: float, reference: Reference) -> nn.Module:
    """A copy with a share `ratio` of its channels pruned; all outputs of the last layers stay."""
    make, together = WAYS[way]
    module = deepcopy(graded)
    for own, parameter in zip(module.parameters(), graded.parameters(), strict=True):
        own.grad = None if parameter.grad is None else parameter.grad.clone()
    x = torch.zeros(1, *reference.data.image_shape)
    _Pruner(
        module,
        x,
        importance=make(),
        global_pruning=together,
        pruning_ratio=ratio,
        ignored_layers=list(last_layers(module, x)),
        round_to=ROUND_TO,
    ).step()
    module.zero_grad()
    return module.eval()


def last_layers(module: nn.Module, x: Tensor) -> Iterator[nn.Module]:
    """The layers with channels between which and an output no other one lies."""
    made: dict[Any, nn.Module] = {}
    handles = [
        layer.register_forward_hook(lambda layer, _, y: made.__setitem__(y.grad_fn, layer))
        for layer in module.modules()
        if isinstance(layer, LAYERS)
    ]
    nodes: list[Any] = [each.grad_fn for each in tensors_of(module(x))]
    for handle in handles:
        handle.remove()
    seen = set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node in made:
            yield made[node]
        else:
            nodes += [each for each, _ in node.next_functions]


class _Pruner(torch_pruning.pruner.BasePruner):  # type: ignore[misc]
    """Rounds to the nearest multiple and keeps one at least.

    As it stands it rounds down, and a layer of which less than a multiple would be left is not pruned at all.
    """

    def _round_to(self, n_pruned: int, current_channels: int, round_to: int) -> int:
        kept = max(1, round((current_channels - n_pruned) / round_to)) * round_to
        return max(0, current_channels - kept)


def shaped(reference: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """A copy of the reference, its layers as narrow as a pruned network's weights, and with these."""
    module = deepcopy(reference)
    for name, layer in module.named_modules():
        weight = state.get(f"{name}.weight")
        if isinstance(layer, nn.ConvTranspose2d):
            assert weight is not None and layer.groups == 1
            layer.in_channels, layer.out_channels = len(weight), weight.shape[1]
        elif isinstance(layer, nn.Conv2d):
            assert weight is not None
            depthwise = layer.groups > 1
            layer.out_channels, layer.in_channels = len(weight), weight.shape[1]
            if depthwise:
                layer.groups = layer.in_channels = len(weight)
        elif isinstance(layer, nn.Linear):
            assert weight is not None
            layer.out_features, layer.in_features = weight.shape
        elif isinstance(layer, nn.BatchNorm2d):
            assert weight is not None
            layer.num_features = len(weight)
        for key, _ in list(layer.named_parameters(recurse=False)):
            setattr(layer, key, nn.Parameter(state[f"{name}.{key}"].clone()))
        for key, _ in list(layer.named_buffers(recurse=False)):
            setattr(layer, key, state[f"{name}.{key}"].clone())
    return module

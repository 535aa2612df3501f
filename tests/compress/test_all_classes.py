"""A reference of a thousand classes, narrowed to those of the data: what it knows of the others counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from shortest_run import LIBRARY
from tiny import make_data
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from workplace import tinynet

from hwnas.compress.library.worker import TrainingContext
from hwnas.compress.quality.finetune import Stitched, Tuned, finetune_network
from hwnas.compress.reference.prepare import Reference, initial_reference
from hwnas.compress.training import loop
from hwnas.compress.training.all_classes import has_classifier, with_all_classes
from hwnas.networks.partition import partition

ROWS = (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)
MODEL = "mobilenetv3_small_050"


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of all of ImageNet's classes."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "wide.safetensors"
    save_file(timm.create_model(MODEL).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def reference(wide: Path) -> Reference:
    data = replace(make_data(), imagenet=ROWS)
    settings = replace(LIBRARY, model=MODEL, weights=str(wide))
    initial = initial_reference(settings, data, allow_code=False)
    return Reference(
        spec=initial.spec,
        parts=partition(initial.module, data.image_shape),
        data=data,
        whole_classifier=initial.whole_classifier,
    )


@pytest.fixture
def widths() -> Iterator[list[int]]:
    """How many classes classifiers tell apart while they run."""
    found: list[int] = []

    def hook(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(module, nn.Linear) and isinstance(output, Tensor):
            found.append(output.shape[1])

    handle = register_module_forward_hook(hook)
    yield found
    handle.remove()


def finetuned(reference: Reference) -> Tuned:
    module = reference.module()
    network = Stitched(
        choices=(0,) * len(reference.parts.modules),
        epochs=1,
        specs=(None,) * len(reference.parts.modules),
        state={key: value.clone() for key, value in module.state_dict().items()},
    )
    settings = replace(LIBRARY, model=MODEL, batch_size=16)
    return finetune_network(TrainingContext(reference=reference, settings=settings), network, lambda *_: None)


def test_the_narrowed_classifier_has_its_rows(reference: Reference) -> None:
    weight = reference.whole_classifier["classifier.weight"]
    assert len(weight) == 1000
    own = reference.module().get_parameter("head.classifier.weight")
    assert torch.equal(own, weight[list(ROWS)])


def test_a_file_of_the_classes_themselves_says_nothing_of_others(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(timm.create_model(MODEL, num_classes=10).state_dict(), tmp_path / "own.safetensors")
    settings = replace(LIBRARY, model=MODEL, weights=str(tmp_path / "own.safetensors"))
    initial = initial_reference(settings, replace(make_data(), imagenet=ROWS), allow_code=False)
    assert not initial.whole_classifier


def test_all_classes_are_told_apart_while_it_lasts(reference: Reference) -> None:
    network, x = reference.module(), torch.randn(4, 3, 32, 32)
    kept = {key: value.clone() for key, value in network.state_dict().items()}
    with torch.no_grad():
        before = network(x)
        with with_all_classes([network], reference.whole_classifier, ROWS):
            inside = network(x)
            network.get_parameter("head.classifier.bias").add_(torch.arange(1000.0))
        after = network(x)
    assert inside.shape == (4, 1000)
    assert torch.allclose(inside[:, list(ROWS)], before, atol=1e-5)
    assert torch.allclose(after, before + torch.tensor(ROWS), atol=1e-3)
    assert network.get_submodule("head.classifier").out_features == 10
    network.load_state_dict(kept)


def test_one_whose_head_has_no_such_classifier_is_left_alone(reference: Reference) -> None:
    assert has_classifier(reference.module(), reference.whole_classifier)
    assert not has_classifier(reference.module(), {})
    assert not has_classifier(reference.module(), {"other.weight": torch.zeros(1000, 3)})


def test_finetuning_is_against_all_classes_and_asks_the_reference_once(
    reference: Reference, widths: list[int]
) -> None:
    """The same bits with its answers kept, and the reference itself stays as it is."""
    before = {key: value.clone() for key, value in reference.module().state_dict().items()}
    steps = len(reference.data.train) // 16
    first = finetuned(reference)
    of_first = widths.count(1000)
    again = finetuned(reference)
    assert (of_first, widths.count(1000) - of_first) == (2 * steps, steps)
    assert first.state["head.classifier.weight"].shape[0] == 10
    assert all(torch.equal(value, again.state[key]) for key, value in first.state.items())
    assert all(torch.equal(value, before[key]) for key, value in reference.module().state_dict().items())
    narrowed = finetuned(replace(reference, whole_classifier={}, answers=loop.Answers()))
    assert not torch.equal(narrowed.state["head.classifier.weight"], first.state["head.classifier.weight"])


def test_answers_keep_what_is_no_tensor() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Any]:
            return {"kind": x.mean((2, 3)), "aux": None, "stride": 8}

    answers, x = loop.Answers(), torch.randn(2, 3, 4, 4)
    first, again = (answers.of(Odd(), loop.Batch(0, x, None)) for _ in range(2))
    assert torch.equal(first["kind"], again["kind"])
    assert (again["aux"], again["stride"]) == (None, 8)


def test_answers_that_are_too_large_are_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    teacher = tinynet.seeded()
    teacher.register_forward_hook(lambda *_: asked.append(1))
    x = torch.randn(4, 3, 32, 32)
    for limit, times in ((2**20, 2), (200, 3)):
        monkeypatch.setattr(loop, "KEPT_BYTES", limit)
        asked.clear()
        answers = loop.Answers()
        given = [answers.of(teacher, loop.Batch(number, x, None)) for number in (0, 1, 1)]
        assert len(asked) == times
        assert all(torch.equal(each, given[0]) for each in given)

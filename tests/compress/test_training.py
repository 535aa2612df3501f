from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import make_data
from torch import Tensor, nn
from workplace import tinynet

from hwnas.compress.data import Data
from hwnas.compress.tasks.classification import CLASSIFICATION
from hwnas.compress.training import loop
from hwnas.errors import HwnasError, RunDirectoryError

EPOCHS = 3


class Killed(BaseException):
    pass


class Dropping(tinynet.Tiny):
    """With dropout, so that the random numbers of a resumed epoch matter."""

    def __init__(self) -> None:
        super().__init__()
        self.head.insert(2, nn.Dropout(0.5))


def fit(
    state_file: Path | None,
    data: Data,
    *,
    seed: int = 0,
    kill_after: int = 0,
    loss: loop.LossFunction | None = None,
) -> nn.Module:
    torch.manual_seed(4)
    model = Dropping()

    def progress(epoch: int, _: float) -> None:
        if epoch == kill_after:
            raise Killed

    loop.fit(
        model,
        data,
        loss or loop.target_loss(CLASSIFICATION),
        epochs=EPOCHS,
        batch_size=16,
        learning_rate=1e-2,
        seed=seed,
        state_file=state_file,
        progress=progress,
    )
    return model


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("epoch", range(1, EPOCHS + 1))
def test_a_resumed_training_ends_with_the_same_weights(epoch: int, data: Data, tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole", data)
    with pytest.raises(Killed):
        fit(tmp_path / "resumed", data, kill_after=epoch)
    torch.randn(100 * epoch)
    resumed = fit(tmp_path / "resumed", data)
    assert equal(resumed, whole)
    assert not whole.training
    assert not equal(fit(tmp_path / "other", data, seed=1), whole)


def test_a_training_that_keeps_no_state_ends_with_the_same_weights(data: Data, tmp_path: Path) -> None:
    assert equal(fit(None, data), fit(tmp_path / "state", data))


def test_a_training_that_memory_does_not_suffice_for_is_told(data: Data, tmp_path: Path) -> None:
    def hungry(output: Tensor, *_: object) -> Tensor:
        return output.mean() + torch.empty(2**50)[0]

    with pytest.raises(HwnasError, match="memory does not suffice") as error:
        fit(tmp_path / "state", data, loss=hungry)
    assert "--batch-size" in error.value.fix


def test_a_training_that_is_killed_again_and_again(data: Data, tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole", data)
    for epoch in range(1, EPOCHS + 1):
        with pytest.raises(Killed):
            fit(tmp_path / "resumed", data, kill_after=epoch)
    assert equal(fit(tmp_path / "resumed", data), whole)


def test_a_kill_inside_of_an_epoch_goes_back_to_its_beginning(data: Data, tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole", data)
    calls = 0

    def killing(logits: Tensor, batch: loop.Batch) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 6:  # of four batches an epoch
            raise Killed
        return loop.target_loss(CLASSIFICATION)(logits, batch)

    with pytest.raises(Killed):
        fit(tmp_path / "resumed", data, loss=killing)
    assert equal(fit(tmp_path / "resumed", data), whole)


@pytest.mark.parametrize("content", [b"", b"not tensors", b"\xff" * 100])
def test_a_damaged_state_is_told(content: bytes, data: Data, tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(content)
    with pytest.raises(RunDirectoryError, match="state is damaged") as error:
        fit(tmp_path / "state", data)
    assert "remove" in error.value.fix


def test_a_state_of_another_network_is_told(data: Data, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        fit(tmp_path / "state", data, kill_after=1)
    wider = Dropping()
    wider.head[3] = nn.Linear(16, 12)
    with pytest.raises(RunDirectoryError, match="of another network") as error:
        loop.fit(
            wider,
            data,
            loop.target_loss(CLASSIFICATION),
            epochs=EPOCHS,
            batch_size=16,
            learning_rate=1e-2,
            seed=0,
            state_file=tmp_path / "state",
            progress=lambda *_: None,
        )
    assert "remove" in error.value.fix


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_told(value: float, data: Data, tmp_path: Path) -> None:
    def broken(logits: Tensor, _: loop.Batch) -> Tensor:
        return logits.sum() * value

    with pytest.raises(HwnasError, match=r"the loss became (nan|inf|-inf) in epoch 1") as error:
        fit(tmp_path / "state", data, loss=broken)
    assert error.value.fix


def test_a_model_with_one_layer_in_two_places_is_trained_and_resumed(data: Data, tmp_path: Path) -> None:
    def shared() -> nn.Module:
        torch.manual_seed(4)
        model = tinynet.Tiny()
        last = model.stages.get_submodule("1")
        last.register_module("1", last.get_submodule("0"))
        return model

    def run(name: str, epochs: int) -> nn.Module:
        model = shared()
        loop.fit(
            model,
            data,
            loop.target_loss(CLASSIFICATION),
            epochs=2,
            batch_size=16,
            learning_rate=1e-2,
            seed=0,
            state_file=tmp_path / name,
            progress=stop_after(epochs),
        )
        return model

    def stop_after(epochs: int) -> Callable[[int, float], None]:
        def progress(epoch: int, _: float) -> None:
            if epoch == epochs:
                raise Killed

        return progress

    whole = run("whole", 0)
    with pytest.raises(Killed):
        run("resumed", 1)
    assert equal(run("resumed", 0), whole)


@pytest.mark.parametrize("total", [1, 2, 5, 17, 1000])
def test_the_learning_rate_rises_then_falls_to_nothing(total: int) -> None:
    factors = [loop.learning_rate_factor(step, total) for step in range(total)]
    top = factors.index(max(factors))
    assert all(a < b for a, b in itertools.pairwise(factors[: top + 1]))
    assert all(a > b for a, b in itertools.pairwise(factors[top:]))
    assert 0 < max(factors) <= 1
    if total >= 17:
        assert factors[0] < 0.5
        assert factors[-1] < 0.05
        assert max(factors) > 0.99
        assert top == pytest.approx(0.2 * total, abs=1)
    assert loop.learning_rate_factor(total, total) == pytest.approx(0, abs=1e-12) or total == 1
    assert loop.learning_rate_factor(2 * total + 2, total) == pytest.approx(0, abs=1e-12)


def test_recalibrating_changes_nothing_but_statistics(data: Data) -> None:
    model = tinynet.seeded()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    momenta = [m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    loop.recalibrate(model, data, 16)
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    statistics = {key for key in before if "running" in key or "num_batches" in key}
    assert changed == statistics
    assert len(statistics) == 15
    assert not model.training
    assert [m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)] == momenta


def test_recalibrated_statistics_are_those_of_the_training_images() -> None:
    data = make_data(train=64)
    model = tinynet.seeded()
    loop.recalibrate(model, data, 64)
    convolution, norm = (model.get_submodule(f"stem.1.{index}") for index in (0, 1))
    with torch.no_grad():
        pooled = model.get_submodule("stem.0")(data.normalize(data.train.pixels))
        y = convolution(pooled).double()
    assert isinstance(norm, nn.BatchNorm2d)
    torch.testing.assert_close(norm.running_mean, y.mean((0, 2, 3)).float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, y.var((0, 2, 3)).float(), rtol=1e-4, atol=1e-5)


def test_statistics_are_taken_anew_only_where_the_output_comes_nearer(data: Data) -> None:
    """Wrong ones are mended; those of a reference that has seen other images stay, to the bit."""
    teacher, off = tinynet.seeded(), tinynet.seeded()
    with torch.no_grad():
        for norm in off.modules():
            if isinstance(norm, nn.BatchNorm2d):
                assert norm.running_mean is not None
                norm.running_mean += 3
    loop.recalibrate(teacher, data, 16)
    assert loop.settle(off, teacher, data, CLASSIFICATION, 16)
    broken = tinynet.seeded()
    statistics = next(norm for norm in broken.modules() if isinstance(norm, nn.BatchNorm2d))
    assert statistics.running_var is not None
    statistics.running_var.fill_(math.nan)
    assert loop.settle(broken, teacher, data, CLASSIFICATION, 16)
    assert all(value.isfinite().all() for value in broken.buffers())
    same = tinynet.seeded()
    before = {key: value.clone() for key, value in same.state_dict().items()}
    assert not loop.settle(same, tinynet.seeded(), data, CLASSIFICATION, 16)
    assert all(torch.equal(value, before[key]) for key, value in same.state_dict().items())
    assert not loop.settle(nn.Flatten(), nn.Flatten(), data, CLASSIFICATION, 16)


@pytest.mark.parametrize("keeps", [False, True])
def test_a_training_may_keep_the_statistics(data: Data, keeps: bool) -> None:
    model = tinynet.seeded()
    before = {key: value.clone() for key, value in model.named_buffers()}
    loop.fit(
        model,
        data,
        loop.distillation_loss(tinynet.seeded()),
        epochs=1,
        batch_size=16,
        learning_rate=1e-3,
        seed=0,
        state_file=None,
        progress=lambda *_: None,
        keeps_statistics=keeps,
    )
    assert all(torch.equal(value, before[key]) for key, value in model.named_buffers()) is keeps
    assert not any(module.training for module in model.modules())


def test_distilling_end_to_end_comes_near_the_teacher(data: Data, tmp_path: Path) -> None:
    teacher = tinynet.seeded()
    loss = loop.distillation_loss(teacher)
    logits, x = torch.randn(5, 10), data.normalize(data.test.pixels[:5])
    with torch.no_grad():
        target = teacher(x).double().softmax(1)
        expected = -(target * logits.double().log_softmax(1)).sum(1).mean()
        labels = torch.tensor([1, 2, 3, 4, 5])
        hard = -logits.double().log_softmax(1)[torch.arange(5), labels].mean()
    assert float(loss(logits, loop.Batch(0, x, None))) == pytest.approx(float(expected), rel=1e-5)
    assert float(loss(logits, loop.Batch(0, x, labels))) == pytest.approx(float(expected + hard), rel=1e-5)


def test_right_answers_are_by_image_and_absent_without_labels(data: Data) -> None:
    model = tinynet.seeded()
    with torch.no_grad():
        expected = [
            int(model(data.normalize(data.test.pixels[i : i + 1])).argmax()) == int(data.test.labels[i])
            for i in range(len(data.test))
        ]
    found = loop.scores(model, data, batch_size=7)
    assert found is not None
    assert found.tolist() == expected
    assert loop.scores(model, make_data(labels=False)) is None

"""What is told of a network is what someone gets who has only its files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import spoilt_runs
import torch
from tiny import furnish, run_job, write_record
from torch import nn

import hwnas
from hwnas.compress.data import Images, load_data
from hwnas.compress.library.store import Library
from hwnas.compress.reference import reloaded
from hwnas.compress.reference.reloaded import confirm_stored, stored_outputs
from hwnas.errors import HwnasError, InputError, RunDirectoryError
from hwnas.files import write_bytes
from hwnas.networks.architecture import ArchitectureSpec
from hwnas.networks.chosen_blocks import Blocks
from hwnas.networks.partition import Partition, partition
from hwnas.networks.weights import read_state
from hwnas.progress import Progress

LIBRARY = replace(spoilt_runs.LIBRARY, cuts=("stem", "layer1", "layer2", "layer3"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A furnished folder with a run of a network whose stages share a layer and begin in place."""
    folder = tmp_path_factory.mktemp("reloaded")
    furnish(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        yield folder


def compress(place: Path, model: str, out: str, **changed: Any) -> dict[str, Any]:
    return run_job(
        replace(LIBRARY, model=f"oddnets:{model}", **changed),
        spoilt_runs.SEARCH,
        place / out,
        "hwnas compress …",
        Progress(),
    )


def pixels_and_labels() -> tuple[torch.Tensor, torch.Tensor]:
    test = load_data("digits", 0, lambda: 32, Progress()).test
    assert test.labels is not None
    return test.pixels, test.labels


def as_a_user(folder: Path) -> tuple[float, float]:
    """The accuracy of a folder's module in one batch, and of its graph image by image."""
    spec = ArchitectureSpec.read(folder / "architecture.json")
    pixels, labels = pixels_and_labels()
    mean, std = (torch.tensor(each).view(1, -1, 1, 1) for each in (spec.mean, spec.std))
    x = (pixels / 255 - mean) / std
    with torch.no_grad():
        module = hwnas.load(folder, allow_code=True)(x).argmax(1)
    session = ort.InferenceSession(folder / "model.onnx")
    name = session.get_inputs()[0].name
    graph = torch.tensor([int(session.run(None, {name: image[None].numpy()})[0].argmax()) for image in x])
    return float((module == labels).double().mean()), float((graph == labels).double().mean())


@pytest.mark.slow
@pytest.mark.parametrize("model", ["shared", "inplace_module", "attention"])
def test_what_the_card_says_is_what_a_user_gets(place: Path, model: str) -> None:
    cuts = ("embed", "blocks.0", "blocks.1", "blocks.2") if model == "attention" else LIBRARY.cuts
    space = "transformer" if model == "attention" else "compression"
    done = compress(place, model, model, cuts=cuts, space=space)
    (checkpoint,) = done["checkpoints"]
    assert any(checkpoint["choices"])
    for folder, told in (
        (Path(checkpoint["path"]), checkpoint["accuracy"]["value"]),
        (place / model / "reference", checkpoint["accuracy_reference"]["value"]),
    ):
        assert as_a_user(folder) == pytest.approx((told, told), abs=1 / len(pixels_and_labels()[1]) + 1e-9)


@pytest.mark.slow
def test_shared_weights_are_still_shared_after_finetuning(place: Path) -> None:
    if not (place / "shared").exists():
        compress(place, "shared", "shared")
    (folder,) = (place / "shared/checkpoints").iterdir()
    module = hwnas.load(folder, allow_code=True)
    own = [
        n
        for n, choice in enumerate(
            json.loads((folder / "measurement.json").read_text())["summary"]["choices"]
        )
        if not choice
    ]
    names = {name for name, _ in module.named_parameters()}
    every = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    shared = len({1, 2, 3} & set(own)) > 1
    assert (every > names) == shared
    stored = read_state(folder / "model.safetensors")
    assert {name for name in stored if name.endswith("weight")} == {
        name for name in names if name.endswith("weight")
    }
    summary = json.loads((folder / "measurement.json").read_text())["summary"]
    assert summary["params"] == sum(p.numel() for p in module.parameters())
    assert summary["params_reference"] == sum(
        p.numel() for p in hwnas.load(place / "shared/reference", allow_code=True).parameters()
    )


@pytest.fixture
def stored(place: Path, tmp_path: Path) -> tuple[Path, nn.Module]:
    """A copy of a stored reference, whose record knows no hashes, and its module."""
    if not (place / "plain").exists():
        compress(place, "plain", "plain")
    folder = Path(shutil.copytree(place / "plain/reference", tmp_path / "reference"))
    module = hwnas.load(folder, allow_code=True)
    write_record(folder)
    return folder, module


def confirm(folder: Path, module: nn.Module) -> None:
    data = load_data("digits", 0, lambda: 32, Progress())
    spec = ArchitectureSpec.read(folder / "architecture.json")
    confirm_stored(folder, module, replace(data, mean=spec.mean, std=spec.std))


@pytest.mark.slow
def test_what_is_stored_as_it_was_is_confirmed(stored: tuple[Path, nn.Module]) -> None:
    confirm(*stored)


def test_outputs_come_from_the_files(stored: tuple[Path, nn.Module]) -> None:
    folder, module = stored
    pixels, _ = pixels_and_labels()
    spec = ArchitectureSpec.read(folder / "architecture.json")
    mean, std = (torch.tensor(each).view(1, -1, 1, 1) for each in (spec.mean, spec.std))
    images = Images(pixels=pixels, labels=None)
    found = list(stored_outputs(folder, replace(load_data("digits"), mean=spec.mean, std=spec.std), images))
    assert [len(each) for each, _ in found] == [256, len(pixels) - 256]
    with torch.no_grad():
        expected = module((pixels / 255 - mean) / std)
    for outputs in zip(*found, strict=True):
        answers = [answer for batch in outputs for (answer,) in batch]
        assert np.allclose(torch.stack(answers), expected, atol=1e-4)


@pytest.mark.parametrize("file", ["model.safetensors", "model.onnx"])
def test_what_is_another_network_is_not_confirmed(stored: tuple[Path, nn.Module], file: str) -> None:
    folder, module = stored
    from hwnas.network import export_onnx
    from hwnas.networks.serialize import save_module

    with torch.no_grad():
        weight = module.get_parameter("head.fc.weight")
        other = weight.clone()
        weight.mul_(1.02)  # which changes no answer to "which class"
        if file == "model.onnx":
            write_bytes(folder / file, export_onnx(module, (1, 3, 32, 32)))
        else:
            save_module(module, folder / file)
        weight.copy_(other)
    what = "hwnas.load" if file == "model.safetensors" else "model.onnx"
    with pytest.raises(HwnasError, match=rf"{what}.* answers otherwise"):
        confirm(folder, module)


@pytest.mark.slow
def test_what_cannot_be_loaded_is_told_with_its_reason(stored: tuple[Path, nn.Module]) -> None:
    folder, module = stored
    (folder / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(HwnasError, match=r"INVALID_PROTOBUF|Protobuf"):
        confirm(folder, module)
    (folder / "model.safetensors").unlink()
    with pytest.raises(HwnasError, match="there is no weights file"):
        confirm(folder, module)


@pytest.mark.slow
def test_a_process_that_dies_is_told_and_another_takes_its_place(stored: tuple[Path, nn.Module]) -> None:
    confirm(*stored)
    reloaded._running[0].kill()
    with pytest.raises(HwnasError, match="ended with exit code -9"):
        confirm(*stored)
    confirm(*stored)


@pytest.mark.slow
def test_nothing_appears_that_was_not_confirmed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (place / "plain").exists():
        compress(place, "plain", "plain")
    run = Path(shutil.copytree(place / "plain", place / "refused"))
    shutil.rmtree(run / "checkpoints")

    def refuse(*_: object, **__: object) -> None:
        raise HwnasError("it is another network", "report it")

    monkeypatch.setattr("hwnas.compress.emit.emit.confirm_stored", refuse)
    with pytest.raises(HwnasError, match="it is another network"):
        compress(place, "plain", "refused")
    assert list((run / "checkpoints").iterdir()) == []
    monkeypatch.setattr("hwnas.compress.reference.prepare.confirm_stored", refuse)
    with pytest.raises(HwnasError, match="it is another network"):
        compress(place, "plain", "unborn")
    assert not (place / "unborn/reference/reference.json").exists()


@pytest.mark.slow
def test_a_run_whose_blocks_are_others_now_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (place / "plain").exists():
        compress(place, "plain", "plain")
    run = Path(shutil.copytree(place / "plain", place / "otherwise"))
    with Library(run / "library") as library:
        before = library.entries()

    def elsewhere(module: nn.Module, shape: Sequence[int], _: object) -> Partition:
        return partition(module, shape, Blocks(cuts=("stem", "layer2", "layer3")))

    monkeypatch.setattr("hwnas.compress.library.open_run.partition", elsewhere)
    with pytest.raises(RunDirectoryError, match="taken apart into other blocks"):
        compress(place, "plain", "otherwise")
    with Library(run / "library") as library:
        assert library.entries() == before


@pytest.mark.slow
def test_code_that_has_changed_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = compress(place, "changed_later", "changed", weights="given")
    (checkpoint,) = done["checkpoints"]
    folders = (Path(checkpoint["path"]), place / "changed/reference")
    for folder in folders:
        hwnas.load(folder, allow_code=True)
    monkeypatch.setenv("ODDNETS_SCALE", "1.5")
    for folder in folders:
        with pytest.raises(InputError, match="answers otherwise than when it was stored"):
            hwnas.load(folder, allow_code=True)
    with pytest.raises(RunDirectoryError, match="with the same weights it answers otherwise"):
        compress(place, "changed_later", "changed", weights="given")


@pytest.mark.parametrize(
    ("model", "cause"),
    [
        (
            "random_buffer",
            "another network each time it is built, with the same weights, since between.filters",
        ),
        (
            "batch_statistics",
            "answers to an image otherwise when others are beside it, in its module 'layer2.1'",
        ),
        ("always_dropping", "another answer each time"),
        ("early_exit", "asks for a value that depends on the image"),
        ("untrainable", "block2 of the network cannot be trained"),
        ("spectral", "block2 cannot be exported"),
        ("view_changed", "block1 was exported to a graph that computes something else"),
        ("python_list", "keeps modules or weights in a plain list, layer2.convs"),
        ("lazy", "layer1.0.weight has no values yet"),
        ("python_list_hidden", "keeps modules or weights in a plain list, layer2._convs"),
        ("random_when_imported", "in a fresh process hwnas.load answers otherwise"),
        ("trained_attribute", "in a fresh process hwnas.load answers otherwise"),
        ("clamped_data", "block1 was exported to a graph that computes something else"),
        ("root_of_negative", "block1 was exported to a graph that computes something else"),
        ("tokens_first", "is not one tensor with an axis of images first"),
    ],
)
def test_nothing_is_trained_that_could_not_be_delivered(place: Path, model: str, cause: str) -> None:
    out = f"no-{model}"
    cuts = ("embed", "blocks.0", "blocks.1") if model == "tokens_first" else LIBRARY.cuts
    with pytest.raises(HwnasError) as error:
        compress(place, model, out, cuts=cuts)
    assert cause in error.value.cause
    assert not (place / out).exists()

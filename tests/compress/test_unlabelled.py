"""Whole runs on folders of images, with and without labels, and what the command line says about bad ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pictures import picture, pictures
from safetensors.torch import save_file
from tiny import compress_arguments, furnish, of_one_device, run_hwnas
from workplace import tinynet

from hwnas.compress.emit.checkpoint import is_intact


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    furnish(folder)
    pictures(folder / "photos", "2021/may", "2021", "2022", count=16)
    save_file(tinynet.seeded().state_dict(), folder / "w.safetensors")
    return folder


@pytest.fixture(scope="module")
def finished(place: Path) -> dict[str, Any]:
    arguments = compress_arguments(
        "run", "--json", data="folder:photos", weights="w.safetensors", batch_size=16
    )
    done = run_hwnas(place, *arguments)
    assert done.returncode == 0, done.stderr
    assert "no labels, 32 × 32 pixels" in done.stderr
    return of_one_device(json.loads(done.stdout))


@pytest.mark.slow
def test_a_run_without_labels_goes_through(finished: dict[str, Any], place: Path) -> None:
    (checkpoint,) = finished["checkpoints"]
    path = place / checkpoint["path"]
    assert is_intact(path)
    assert finished["reference"]["accuracy"] is None
    assert checkpoint["accuracy"] is checkpoint["accuracy_difference"] is None
    assert 0 <= checkpoint["agreement"]["low"] <= checkpoint["agreement"]["value"] <= 1
    card = (path / "README.md").read_text()
    assert "not known (no labels)" in card
    assert "answers what the reference answers" in card


@pytest.mark.slow
def test_the_same_command_goes_on_and_shows_the_agreement(finished: dict[str, Any], place: Path) -> None:
    arguments = compress_arguments("run", data="folder:photos", weights="w.safetensors", batch_size=16)
    done = run_hwnas(place, *arguments)
    assert done.returncode == 0, done.stderr
    assert "accuracy  not known (no labels)" in done.stdout
    assert "of answers are the reference's" in done.stdout


@pytest.mark.slow
def test_a_changed_data_set_is_refused(finished: dict[str, Any], place: Path, tmp_path: Path) -> None:
    for name in ("run", "photos"):
        shutil.copytree(place / name, tmp_path / name)
    furnish(tmp_path)
    shutil.copy(place / "w.safetensors", tmp_path)
    picture(tmp_path / "photos" / "2022" / "0.png", seed=4711)
    arguments = compress_arguments("run", data="folder:photos", weights="w.safetensors", batch_size=16)
    done = run_hwnas(tmp_path, *arguments)
    assert done.returncode == 2
    assert "run was made with data = " in done.stderr


@pytest.mark.slow
def test_a_reference_is_trained_on_a_folder_of_classes(tmp_path: Path) -> None:
    furnish(tmp_path)
    generator = torch.Generator().manual_seed(0)
    for name in map(str, range(10)):
        pictures(tmp_path / "d", name, count=int(torch.randint(6, 9, (1,), generator=generator)))
    done = run_hwnas(tmp_path, *compress_arguments("run", "--json", data="folder:d", batch_size=32))
    assert done.returncode == 0, done.stderr
    assert of_one_device(json.loads(done.stdout))["checkpoints"][0]["accuracy"] is not None
    architecture = json.loads((tmp_path / "run" / "reference" / "architecture.json").read_text())
    assert architecture["class_names"] == [str(n) for n in range(10)]
    assert architecture["mean"] != [0.5, 0.5, 0.5]


def test_a_bad_folder_ends_with_exit_code_2_and_leaves_nothing(tmp_path: Path) -> None:
    furnish(tmp_path)
    pictures(tmp_path / "d", "cat", "dog")
    (tmp_path / "d" / "cat" / "1.png").write_bytes(b"no image")
    done = run_hwnas(tmp_path, *compress_arguments("run", data="folder:d"))
    assert done.returncode == 2, done.stderr
    assert "d: 1 of 8 images cannot be read: cat/1.png: no image, or pixels of a kind" in done.stderr
    assert "fix: mend or remove them: rm -- d/cat/1.png" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()

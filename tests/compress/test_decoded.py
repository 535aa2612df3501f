"""Decoded images in the cache: found again, made again, shared, and never in the way."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pictures import Heard, load, picture, pictures
from tiny import run_python

from hwnas.compress.data import store
from hwnas.errors import InputError
from hwnas.files import hwnas_cache

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return pictures(tmp_path / "d", "a", "b", count=10)


def entries() -> list[Path]:
    return [path for path in (hwnas_cache() / "images").iterdir() if not path.name.startswith(".")]


def decodes(folder: Path, size: int = 32) -> bool:
    """Whether loading decoded anything."""
    heard = Heard()
    load(folder, size, heard)
    return "decode images" in heard.steps


def test_a_second_start_decodes_nothing(folder: Path) -> None:
    first = load(folder)
    assert not decodes(folder)
    again = load(folder)
    assert again.hash == first.hash
    assert (again.mean, again.std, again.class_names) == (first.mean, first.std, first.class_names)
    for name in ("train", "val", "test"):
        ours, theirs = getattr(first, name), getattr(again, name)
        assert (ours.pixels == theirs.pixels).all()
        assert (ours.labels == theirs.labels).all()


def test_each_size_is_kept_by_itself(folder: Path) -> None:
    assert decodes(folder, 16)
    assert decodes(folder, 8)
    assert not decodes(folder, 16)


def test_pixels_lie_in_a_file_that_nobody_can_change_through_the_data(folder: Path) -> None:
    load(folder).train.pixels[:] = 0
    assert load(folder).train.pixels.any()


@pytest.mark.parametrize("change", ["content", "added", "removed", "renamed"])
def test_a_changed_file_is_found_and_changes_the_hash(folder: Path, change: str) -> None:
    before = load(folder).hash
    file = folder / "a" / "3.png"
    if change == "content":
        status = file.stat()
        pixels = bytearray(file.read_bytes())
        other = picture(folder.parent / "other.png", seed=77).read_bytes()
        assert len(other) <= len(pixels)
        file.write_bytes(other.ljust(len(pixels), b"\0"))  # the same size, and the same time of change
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "added":
        picture(folder / "a" / "new.png", seed=5)
    elif change == "removed":
        file.unlink()
    else:
        (folder / "a").rename(folder / "c")
    assert decodes(folder)
    assert load(folder).hash != before


def test_touched_files_are_decoded_again_and_are_the_same_data(folder: Path) -> None:
    before = load(folder).hash
    os.utime(folder / "a" / "3.png")
    assert decodes(folder)
    assert load(folder).hash == before


def _cut(entry: Path) -> None:
    os.truncate(entry / "pixels", 100)


def _flip(entry: Path) -> None:
    with (entry / "pixels").open("r+b") as file:
        file.write(b"\0" * 64)


def _no_json(entry: Path) -> None:
    (entry / "index.json").write_text("{")


def _other_shape(entry: Path) -> None:
    file = entry / "index.json"
    file.write_text(file.read_text().replace("20", "19"))


def _no_index(entry: Path) -> None:
    (entry / "index.json").unlink()


@pytest.mark.parametrize("damage", [_cut, _flip, _no_json, _other_shape, _no_index])
def test_a_damaged_entry_is_made_again(folder: Path, damage: Callable[[Path], None]) -> None:
    before = load(folder).hash
    (entry,) = entries()
    damage(entry)
    assert decodes(folder)
    assert load(folder).hash == before
    assert not decodes(folder)


def test_what_a_killed_process_left_is_removed(folder: Path) -> None:
    load(folder)
    (entry,) = entries()
    left = entry.with_name(f".{entry.name}.part")
    entry.rename(left)
    (left / "index.json").unlink()
    assert decodes(folder)
    assert not left.exists()
    assert entries() == [entry]


def test_two_processes_decode_once(folder: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests" / "helpers")!r})
from pathlib import Path
from pictures import Heard, load
heard = Heard()
data = load(Path({str(folder)!r}), 32, heard)
print(data.hash, "decode images" in heard.steps)
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=120)[0].split() for process in processes]
    assert answers[0][0] == answers[1][0] == load(folder).hash
    assert sorted(answer[1] for answer in answers) == ["False", "True"]


def test_a_cache_that_cannot_be_written_leaves_the_images_in_memory(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load(folder)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("HWNAS_CACHE", str(tmp_path / "file"))
    heard = Heard()
    data = load(folder, progress=heard)
    assert any(
        text.startswith("decoded images stay in memory: cannot write to") and "Not a directory" in text
        for text in heard.said
    )
    assert data.hash == expected.hash
    assert (data.train.pixels == expected.train.pixels).all()


def test_a_disk_that_is_too_small_is_known_before_anything_is_decoded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 1000))
    heard = Heard()
    assert len(load(folder, progress=heard).train) == 14
    assert "No space left on device" in heard.said[0]
    assert heard.steps.count("decode images") == 1
    assert entries() == []


def test_a_disk_that_fills_up_while_images_are_decoded(folder: Path, tmp_path: Path) -> None:
    """A limit on file sizes is a real failure of write(), in the middle of the file."""
    limit = 10 * 3 * 32 * 32
    code = f"""
import resource, sys
sys.path.insert(0, {str(ROOT / "tests" / "helpers")!r})
from pathlib import Path
from pictures import Heard, load
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
heard = Heard()
data = load(Path({str(folder)!r}), 32, heard)
print(data.hash)
print(heard.said[0])
"""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] in (resource.RLIM_INFINITY, -1)
    done = run_python(tmp_path, ["-c", code], PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    digest, said = done.stdout.splitlines()
    assert "decoded images stay in memory: cannot write to" in said
    assert "File too large" in said
    assert entries() == []
    assert load(folder).hash == digest


def test_images_that_fit_neither_cache_nor_memory(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("HWNAS_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(os, "sysconf", lambda name: 100)
    with pytest.raises(InputError, match="too much for the memory") as caught:
        load(folder)
    assert "HWNAS_CACHE=FOLDER" in caught.value.fix


def test_the_file_holds_the_pixels_in_order(folder: Path) -> None:
    data = load(folder)
    (entry,) = entries()
    raw = np.fromfile(entry / "pixels", dtype=np.uint8).reshape(20, 3, 32, 32)
    parts = [part.pixels.numpy() for part in (data.train, data.val, data.test)]
    assert (raw == np.concatenate(parts)).all()
    assert store.SCHEMA in (entry / "index.json").read_text()

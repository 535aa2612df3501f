"""`folder:PATH`: parts, classes, labels or none, and everything that can be wrong with a folder."""

from __future__ import annotations

import os
import shutil
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import torch
from pictures import Heard, load, picture, pictures
from PIL import Image

from hwnas.compress.data import Data, load_data
from hwnas.compress.data.sources import ArchiveSource
from hwnas.compress.data.splits import arrange
from hwnas.errors import InputError


def sizes(data: Data) -> tuple[int, int, int]:
    return len(data.train), len(data.val), len(data.test)


def images_of(data: Data) -> Counter[bytes]:
    parts = (data.train, data.val, data.test)
    return Counter(image.numpy().tobytes() for part in parts for image in part.pixels)


def test_a_folder_for_each_class_is_split_class_by_class(tmp_path: Path) -> None:
    data = load(pictures(tmp_path / "d", "cat", "dog", "emu", count=20))
    assert data.class_names == ("cat", "dog", "emu")
    assert sizes(data) == (42, 6, 12)
    for part, count in ((data.train, 14), (data.val, 2), (data.test, 4)):
        assert part.labels is not None
        assert part.labels.bincount().tolist() == [count] * 3
    assert len(images_of(data)) == 60


def test_labels_belong_to_their_images(tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b", "c")):
        for index in range(5):
            path = tmp_path / "d" / name / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (number, index, 0)).save(path)
    data = load(tmp_path / "d", 8)
    for part in (data.train, data.val, data.test):
        assert part.labels is not None
        assert (part.pixels[:, 0, 0, 0] == part.labels).all()


def test_the_split_depends_on_names_alone(tmp_path: Path) -> None:
    first = load(pictures(tmp_path / "d", "cat", "dog", count=10))
    shutil.copytree(tmp_path / "d", tmp_path / "moved")
    assert load(tmp_path / "moved").hash == first.hash


def test_parts_that_are_there_are_taken(tmp_path: Path) -> None:
    pictures(tmp_path / "d", "train/a", "train/b", count=10)
    pictures(tmp_path / "d", "Valid/a", "Valid/b", count=3)
    pictures(tmp_path / "d", "test/a", "test/b", count=2)
    assert sizes(load(tmp_path / "d")) == (20, 6, 4)


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_the_held_out_part_is_the_test_and_val_comes_from_train(tmp_path: Path, held_out: str) -> None:
    pictures(tmp_path / "d", "train/a", "train/b", count=10)
    pictures(tmp_path / "d", f"{held_out}/a", f"{held_out}/b", count=3)
    assert sizes(load(tmp_path / "d")) == (18, 2, 6)


@pytest.mark.parametrize("groups", [(".",), ("x/2021", "x/2022"), (".", "x"), ("train",), ("a/b", "c")])
def test_images_without_folders_of_classes_have_no_labels(tmp_path: Path, groups: tuple[str, ...]) -> None:
    heard = Heard()
    data = load(pictures(tmp_path / "d", *groups, count=10), progress=heard)
    if groups == ("x/2021", "x/2022"):
        assert data.class_names == ("2021", "2022")  # one folder around all of them means nothing
        return
    assert data.class_names == ()
    assert data.train.labels is None
    assert sum(sizes(data)) == 10 * len(groups)
    assert "no labels" in heard.said[-1]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert load(pictures(tmp_path / "d", "bus", "car", "train")).class_names == ("bus", "car", "train")


def test_sizes_and_modes_may_be_mixed(tmp_path: Path) -> None:
    for index, mode in enumerate(("L", "P", "RGBA", "CMYK", "RGB")):
        suffix = "jpg" if mode == "CMYK" else "png"
        for name in ("a", "b"):
            path = tmp_path / "d" / name / f"{index}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new(mode, (10 + 7 * index, 40 - 5 * index)).save(path)
    data = load(tmp_path / "d", 24)
    assert data.image_shape == (3, 24, 24)
    assert sum(sizes(data)) == 10


def test_mean_and_deviation_are_those_of_the_train_part(tmp_path: Path) -> None:
    data = load(pictures(tmp_path / "d", "a", "b", count=10))
    values = data.train.pixels.double() / 255
    assert torch.tensor(data.mean).allclose(values.mean((0, 2, 3)).float())
    assert torch.tensor(data.std).allclose(values.std((0, 2, 3), correction=0).float())


def test_images_of_one_colour_can_be_normalised(tmp_path: Path) -> None:
    for name in "abcdef":
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    data = load(tmp_path, 8)
    assert data.normalize(data.train.pixels).isfinite().all()


def test_fewer_images_than_a_batch_are_one_batch(tmp_path: Path) -> None:
    data = load(pictures(tmp_path / "d", "a", "b", count=5))
    assert [len(x) for x, _ in data.train_batches(64, 0, 0, augment=True)] == [len(data.train)]
    assert data.steps_per_epoch(64) == 1


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    pictures(tmp_path / "elsewhere", "cat", "dog", count=5)
    folder = tmp_path / "d"
    folder.mkdir()
    for name in ("cat", "dog"):
        (folder / name).symlink_to(tmp_path / "elsewhere" / name)
    (tmp_path / "elsewhere" / "cat" / "loop").symlink_to(folder)
    data = load(folder)
    assert data.class_names == ("cat", "dog")
    assert sum(sizes(data)) == 10


def test_names_that_are_no_utf_8_are_read_and_shown(tmp_path: Path) -> None:
    pictures(tmp_path / "d", "cat", os.fsdecode(b"d\xf6g"), count=5)
    picture(tmp_path / "d" / "cat" / os.fsdecode(b"\xe9.png"))
    data = load(tmp_path / "d")
    assert data.class_names == ("cat", "d\\xf6g")
    assert sum(sizes(data)) == 11
    broken = tmp_path / "d" / "cat" / os.fsdecode(b"\xe8.png")
    broken.write_bytes(b"nothing")
    with pytest.raises(InputError) as caught:
        load(tmp_path / "d")
    assert "cat/\\xe8.png" in caught.value.cause
    assert f"rm -- $'{tmp_path}/d/cat/\\xe8.png'" in caught.value.fix


def test_a_path_that_is_no_utf_8_is_refused() -> None:
    with pytest.raises(InputError, match=r"a\\xff is no UTF-8"):
        load_data(os.fsdecode(b"folder:a\xff"), 32)


def test_no_path_is_not_the_current_folder() -> None:
    with pytest.raises(InputError, match="names no folder"):
        load_data("folder:", 32)


def test_every_broken_image_is_named_with_the_command_that_removes_it(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "d", "a", "b", count=5)
    whole = picture(tmp_path / "whole.png", size=(64, 64)).read_bytes()
    (folder / "a" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "a" / "it's empty.png").write_bytes(b"")
    (folder / "b" / "nowhere.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError) as caught:
        load(folder)
    for name in ("a/cut.png", "a/it's empty.png", "b/nowhere.png"):
        assert name in caught.value.cause
    assert "3 of 13 images" in caught.value.cause
    command = caught.value.fix.removeprefix("mend or remove them: ")
    assert os.system(command) == 0  # noqa: S605
    assert sum(sizes(load(folder))) == 10


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pictures(tmp_path / "d", "a", "b")
    picture(folder / "a" / "bomb.png", size=(100, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60 * 100)
    with pytest.raises(InputError, match=r"a/bomb\.png: Image size"):
        load(folder)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ((), "holds no images"),
        (("cat",), "one class only, cat"),
        (("train/cat", "test/cat"), "one class only, cat"),
        (("val/a", "val/b", "test/a", "test/b"), "holds test and val but no train"),
        (("train/a", "train/b", "test/a", "test/c"), "the class c is not in train"),
        (("train/a", "train/b", "test/a", "extra/a"), "and extra beside them"),
    ],
)
def test_folders_that_make_no_data_set(tmp_path: Path, groups: tuple[str, ...], message: str) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    with pytest.raises(InputError, match=message):
        load(pictures(folder, *groups))


def test_an_empty_part_is_named(tmp_path: Path) -> None:
    pictures(tmp_path / "d", "train/a", "train/b")
    (tmp_path / "d" / "val" / "a").mkdir(parents=True)
    with pytest.raises(InputError, match="d/val holds no images"):
        load(tmp_path / "d")


def test_too_few_images_for_three_parts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="3 images leave 1 for the part train"):
        load(pictures(tmp_path / "d", ".", count=3))


def test_a_missing_folder_and_a_missing_size(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="how large"):
        load(pictures(tmp_path, "a", "b"), 0)
    with pytest.raises(InputError) as caught:
        load_data(str(tmp_path))
    assert f"did you mean folder:{tmp_path}?" in caught.value.fix


def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    pictures(tmp_path / "d", "a", "b")
    (tmp_path / "d" / "a").chmod(0)
    with pytest.raises(InputError, match="cannot read the folder"):
        load(tmp_path / "d")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_is_read_and_nothing_of_it_is_written(tmp_path: Path, kind: str) -> None:
    folder = pictures(tmp_path / "d", "train/a", "train/b", "test/a", "test/b")
    path = tmp_path / f"d.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(folder.rglob("*.png")):
                archive.write(file, f"top/{file.relative_to(folder)}")
            archive.writestr("../escaped.png", b"no image")
    else:
        with tarfile.open(path, "w:xz") as tar:
            tar.add(folder, "./top")
            for name, target in (("top/train/a/link.png", "/etc/passwd"), ("top/train/a/h.png", "../x")):
                link = tarfile.TarInfo(name)
                link.type, link.linkname = tarfile.SYMTYPE, target
                tar.addfile(link)
    source = ArchiveSource(path)
    assert not any("link" in name for name in source.names)
    if kind == "zip":
        before = sorted(p for p in tmp_path.parent.rglob("*") if "escaped" in p.name)
        dict(source.raw(range(len(source.names))))
        assert before == sorted(p for p in tmp_path.parent.rglob("*") if "escaped" in p.name) == []
        return
    arrangement = arrange(source)
    assert arrangement.classes == ("a", "b")
    contents = dict(source.raw(range(len(source.names))))
    for position, name in enumerate(source.names):
        assert contents[position] == (folder / name.removeprefix("top/")).read_bytes()


def test_a_damaged_archive_is_said_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "d.tar.xz"
    with tarfile.open(path, "w:xz") as tar:
        tar.add(pictures(tmp_path / "d", "a", "b"), "d")
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(InputError, match=r"d\.tar\.xz is damaged"):
        arrange(ArchiveSource(path))
    path.write_bytes(b"neither zip nor tar")
    with pytest.raises(InputError, match="is damaged"):
        arrange(ArchiveSource(path))

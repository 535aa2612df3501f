"""Class folders whose names read alike: one class, two that are told, or refused."""

from __future__ import annotations

import shutil
import unicodedata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import Heard, load, pictures

from hwnas.compress.data.splits import arrange
from hwnas.errors import InputError

NFC, NFD = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")


def test_a_class_may_be_in_another_unicode_form_in_each_part(tmp_path: Path) -> None:
    assert NFC != NFD
    folder = pictures(tmp_path / "d", f"train/{NFD}", "train/tea", f"val/{NFC}", "val/tea", count=6)
    data = load(folder)
    assert data.class_names == (NFC, "tea")
    assert data.test.labels is not None
    assert data.test.labels.tolist() == [0] * 6 + [1] * 6


def test_blanks_around_a_name_are_not_part_of_it(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "d", "train/cat ", "train/ dog", "val /cat", "val /dog\t", count=6)
    data = load(folder)
    assert data.class_names == ("cat", "dog")
    assert (len(data.train) + len(data.val), len(data.test)) == (12, 12)


@pytest.mark.parametrize("names", [(NFC, NFD), ("cat", "cat "), ("cat", "cat\u00a0"), ("cat", "\u2003cat")])
@pytest.mark.parametrize("part", ["", "train/", "val/"])
def test_two_folders_that_read_the_same_are_refused(
    tmp_path: Path, names: tuple[str, str], part: str
) -> None:
    folder = pictures(tmp_path / "d", *(f"{part}{name}" for name in (*names, "tea")), count=4)
    if part == "val/":
        pictures(folder, f"train/{names[0]}", "train/tea")
    with pytest.raises(InputError, match="holds two folders that read") as caught:
        load(folder)
    assert all(ascii(name) in caught.value.cause for name in names)
    assert "move the images" in caught.value.fix


def test_folders_that_mean_nothing_may_read_the_same(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "d", "2021/may", "2021/may ", ".")
    assert load(folder).class_names == ()


def test_capitals_tell_classes_apart_and_it_is_said(tmp_path: Path) -> None:
    heard = Heard()
    folder = pictures(tmp_path / "d", "train/a", "train/A", "val/a", "val/A", count=4)
    assert load(folder, progress=heard).class_names == ("A", "a")
    assert any("A and a are 2 classes" in text for text in heard.said)


def test_a_class_in_other_capitals_is_refused_with_the_name_that_is_meant(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "d", "train/Cat", "train/dog", "val/cat", "val/dog")
    with pytest.raises(InputError, match="the class cat is not in train") as caught:
        load(folder)
    assert caught.value.fix.startswith("if it is Cat, give its folder that name")


def test_the_data_are_the_same_whatever_form_a_machine_keeps_names_in(tmp_path: Path) -> None:
    names = ("zèbre", "éléphant", "ours", "âne")
    hashes = set()
    for form in ("NFC", "NFD"):
        folder = tmp_path / form
        for number, name in enumerate(names):
            stored = unicodedata.normalize(form, name)
            made = pictures(tmp_path / f"{number}", "x", count=9)
            (folder / stored).mkdir(parents=True)
            for file in sorted((made / "x").iterdir()):
                shutil.copy(file, folder / stored / unicodedata.normalize(form, f"é{file.stem}{name}.png"))
        hashes.add(load(folder).hash)
    assert len(hashes) == 1


LETTERS = st.text(st.sampled_from("aé̈ \u00a0Å\u212bﬁ가각ñ̃"), min_size=1, max_size=4).filter(str.strip)


@given(st.lists(LETTERS, min_size=2, max_size=4), st.lists(LETTERS, min_size=2, max_size=4))
def test_any_names_make_the_classes_that_are_read(train: list[str], val: list[str]) -> None:
    def read(name: str) -> str:
        return unicodedata.normalize("NFC", name).strip()

    parts = {"train": set(train), "val": set(val)}
    names = [f"{part}/{n}/{i}.png" for part, found in parts.items() for n in found for i in range(4)]
    source: Any = SimpleNamespace(text="names", folders=(), names=names)
    twice = any(len({read(n) for n in x}) != len(set(x)) for x in (train, val))
    one = len({read(n) for n in train + val}) == 1
    new = {read(n) for n in val} - {read(n) for n in train}
    if twice or one or new:
        with pytest.raises(InputError, match=r"read|one class only|is not in train"):
            arrange(source)
        return
    assert arrange(source).classes == tuple(sorted({read(n) for n in train}))

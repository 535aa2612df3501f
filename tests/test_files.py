from __future__ import annotations

import dataclasses
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas import files
from hwnas.errors import InputError


@dataclass(frozen=True)
class Inner:
    __pydantic_config__: ClassVar = {"extra": "forbid"}
    size: int


@dataclass(frozen=True)
class Outer:
    __pydantic_config__: ClassVar = {"extra": "forbid"}
    name: str
    inner: tuple[Inner, ...]
    ratio: float = 1.0


outers = st.builds(
    Outer,
    st.text(st.characters(codec="utf-8")),
    st.lists(st.builds(Inner, st.integers(-(2**60), 2**60))).map(tuple),
    st.floats(allow_nan=False, allow_infinity=False),
)


@given(outers)
def test_what_is_encoded_is_decoded(outer: Outer) -> None:
    assert files.decode(Outer, json.loads(json.dumps(files.encode(outer))), "test") == outer
    assert files.encode(outer) == dataclasses.asdict(outer)


def test_a_class_gets_one_validator(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a hundred times as long to build one as to use it."""

    @dataclass(frozen=True)
    class Row:
        size: int

    built, real = [], pydantic.TypeAdapter

    def counted(cls: Any) -> Any:
        built.append(cls)
        return real(cls)

    monkeypatch.setattr("pydantic.TypeAdapter", counted)
    assert [files.decode(Row, {"size": size}, "test").size for size in range(50)] == list(range(50))
    assert built == [Row]


def test_an_unchanged_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, hashed = tmp_path / "weights", []
    path.write_bytes(b"old")
    real = files.sha256_of_file

    def counted(path: Path) -> str:
        hashed.append(path)
        return real(path)

    monkeypatch.setattr(files, "sha256_of_file", counted)
    assert {files.sha256_of_unchanged(path) for _ in range(3)} == {files.sha256(b"old")}
    assert hashed == [path]
    before = path.stat()
    path.write_bytes(b"new")  # as long, at the same place, and with the time of the old one
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert files.sha256_of_unchanged(path) == files.sha256(b"new")
    path.unlink()
    with pytest.raises(InputError, match="cannot read"):
        files.sha256_of_unchanged(path)


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"name": "a", "inner": [{"size": "3"}]}, r"inner\.0\.size"),
        ({"name": "a", "inner": [{"size": 3.5}]}, r"inner\.0\.size"),
        ({"name": "a", "inner": [{"size": True}]}, r"inner\.0\.size"),
        ({"name": "a", "inner": [], "colour": "red"}, "colour"),
        ({"name": "a", "inner": [], "ratio": math.nan}, "ratio: is no finite number"),
        ({"name": "a", "inner": [{"size": -math.inf}]}, r"inner\.0\.size: is no finite number"),
        (math.nan, "the whole document: is no finite number"),
        ({"inner": []}, "name"),
        ({"name": 3, "inner": []}, "name"),
        ([], "the whole document"),
        ({("no", "plain"): "key"}, "not plain data"),
    ],
)
def test_wrong_data_names_the_source_and_the_key(data: Any, key: str) -> None:
    with pytest.raises(InputError, match=rf"run\.toml: {key}"):
        files.decode(Outer, data, "run.toml")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_no_other_data_is_taken_for_the_class(data: Any) -> None:
    with pytest.raises(InputError):
        files.decode(Outer, data, "test")


def test_files_come_back(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"π": [1, 2.5, None]})
    files.write_toml(tmp_path / "a.toml", {"table": {"key": [1, 2]}})
    assert files.read_json(tmp_path / "a.json") == {"π": [1, 2.5, None]}
    assert files.read_toml(tmp_path / "a.toml") == {"table": {"key": [1, 2]}}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.toml"]


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path: Path) -> None:
    """What another process is writing at this moment stays."""
    path = tmp_path / "report.html"
    (tmp_path / ".report.html.deadbeef.part").write_text("half")
    with files.replacing(path) as first:
        first.write_text("first")
        files.write_bytes(path, b"second")
        assert first.exists()
    assert path.read_text() == "first"
    assert [item.name for item in tmp_path.iterdir()] == ["report.html"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, "old")
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, float("nan"))
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert files.read_json(path) == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_files_get_the_usual_permissions(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        files.write_bytes(tmp_path / "a", b"")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("read", [files.read_json, files.read_toml, files.read_bytes])
def test_a_missing_file_is_named(tmp_path: Path, read: Any) -> None:
    with pytest.raises(InputError, match=r"cannot read .*absent"):
        read(tmp_path / "absent")


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", b"= 1"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged"
    path.write_bytes(content)
    for read in (files.read_json, files.read_toml):
        with pytest.raises(InputError, match="damaged is not valid"):
            read(path)


def test_a_schema_is_checked_and_stripped() -> None:
    assert files.check_schema({"schema": "a/1", "x": 1}, "a/1", "test") == {"x": 1}
    others: list[Any] = [{"schema": "a/2"}, {"x": 1}, [], None]
    for other in others:
        with pytest.raises(InputError, match="schema"):
            files.check_schema(other, "a/1", "test")


def test_the_users_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert files.hwnas_home() == tmp_path / "home"
    assert files.hwnas_config() == tmp_path / "config"
    monkeypatch.delenv("HWNAS_HOME")
    monkeypatch.setenv("HWNAS_CONFIG", "")
    assert files.hwnas_home().name == files.hwnas_config().name == "hwnas"


@given(st.text(max_size=300))
def test_a_safe_name_is_one_name_of_a_file(text: str) -> None:
    name = files.safe_name(text)
    assert 0 < len(name) <= 80
    assert Path(name).name == name
    assert name not in (".", "..")

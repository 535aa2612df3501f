"""Temporary folders: nothing of a dead process stays, nothing of a living one goes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from hwnas.errors import HwnasError, NetworkFormError, NoSpaceError
from hwnas.files import write_bytes
from hwnas.temporary import explained_space, file_beside, folder_beside, temporary_folder


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the system's folder for temporary files is."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def killed_in(place: Path, making: str) -> None:
    """A process that made one and is killed there."""
    code = f"""
import sys, tempfile, time
from pathlib import Path
from hwnas.temporary import *
tempfile.tempdir = {str(place)!r}
with {making} as made:
    print(made, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)


@pytest.mark.parametrize(
    ("making", "again"),
    [
        ("temporary_folder()", lambda place: temporary_folder()),
        ("folder_beside(Path('{}/x'))", lambda place: folder_beside(place / "x")),
        ("file_beside(Path('{}/x'))", lambda place: file_beside(place / "x")),
    ],
)
def test_the_next_one_removes_what_a_killed_process_left(
    place: Path, making: str, again: Callable[[Path], AbstractContextManager[Path]]
) -> None:
    killed_in(place, making.format(place))
    (left,) = place.iterdir()
    with again(place) as made:
        assert list(place.iterdir()) == [made]
        assert made != left
        with again(place) as other:  # one that lives is left alone
            assert made.exists() and other.exists()
    assert not list(place.iterdir())


def test_what_others_named_alike_stays(place: Path) -> None:
    names = ("hwnas-cases", "hwnas-temporary-mine", "hwnas-temporary-abcdefgh.txt", ".x.y.part")
    for name in names:
        (place / name).mkdir()
    with temporary_folder(), file_beside(place / "x"):
        pass
    write_bytes(place / "x", b"")
    assert {path.name for path in place.iterdir()} == {*names, "x"}


def test_a_link_named_alike_leads_nowhere(place: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    (place / "hwnas-temporary-abcdefgh").symlink_to(tmp_path / "mine")
    with temporary_folder():
        pass
    assert (tmp_path / "mine" / "file").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_lack_of_space_is_told_whatever_a_library_makes_of_it(place: Path, number: int) -> None:
    with pytest.raises(NoSpaceError) as told, temporary_folder():
        try:
            raise OSError(number, os.strerror(number))
        except OSError as error:
            raise NetworkFormError("the network cannot be run", "take another") from error
    assert str(place) in told.value.cause
    assert "TMPDIR=FOLDER" in told.value.fix
    with pytest.raises(NoSpaceError), temporary_folder():
        raise RuntimeError(f"onnx: {os.strerror(number)}")
    with pytest.raises(ValueError, match="as it was"), temporary_folder() as folder, explained_space(folder):
        raise ValueError("as it was")


def test_without_any_place_it_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(HwnasError, match="no temporary folder can be made") as told, temporary_folder():
        pass
    assert "TMPDIR" in told.value.fix

"""Kills of a check against a git revision, and a full TMPDIR: nothing is left, what is full is told."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import tiny
from mounts import in_mounts

CHECK = ("check", "run", "tinynet:make", "--baseline", "HEAD", "--device", "modelled.toml")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(workplace: Path) -> Path:
    """A repository whose network was changed, and a folder for temporary files beside what it tracks."""
    git(workplace, "init", "--quiet")
    git(workplace, "add", "*.py")
    git(workplace, "commit", "--quiet", "--message", "first")
    with (workplace / "tinynet.py").open("a") as file:
        file.write("\n")
    (workplace / "temporary").mkdir()
    return workplace


def kill_at(instants_s: Iterator[float], place: Path, arguments: Sequence[str], times: int) -> None:
    """Start a command so many times, each killed with all of its group after a time, by signals in turn."""
    for number in range(times):
        process = subprocess.Popen(
            [sys.executable, "-m", "hwnas", *arguments],
            cwd=place,
            env=tiny.places(place) | {"TMPDIR": str(place / "temporary")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(next(instants_s))
        except subprocess.TimeoutExpired:
            process.send_signal(SIGNALS[number % len(SIGNALS)])
        process.wait()


def assert_nothing_is_left(place: Path, tracked: str) -> None:
    done = tiny.run_hwnas(place, *CHECK, TMPDIR=str(place / "temporary"))
    assert done.returncode == 0, done.stderr
    assert not list((place / "temporary").glob("hwnas-*"))
    assert not list(place.glob(".*.part"))
    assert git(place, "worktree", "list").count("\n") == 1
    assert not (place / ".git" / "worktrees").exists()
    assert git(place, "status", "--porcelain", "--untracked-files=no") == tracked


def instants(seed: int, longest_s: float) -> Iterator[float]:
    generator = random.Random(seed)
    while True:
        yield generator.uniform(0.2, longest_s)


@pytest.mark.parametrize(
    ("seed", "rounds"),
    [
        pytest.param(0, 1, marks=pytest.mark.slow),
        *(pytest.param(seed, 5, marks=pytest.mark.faults) for seed in range(1, 4)),
    ],
)
def test_kills_of_a_check_leave_nothing_behind(seed: int, rounds: int, repository: Path) -> None:
    tracked = git(repository, "status", "--porcelain", "--untracked-files=no")
    begun_s = time.monotonic()
    assert_nothing_is_left(repository, tracked)
    longest_s = time.monotonic() - begun_s
    for _ in range(rounds):
        kill_at(instants(seed, longest_s), repository, CHECK, len(SIGNALS))
        assert_nothing_is_left(repository, tracked)


@pytest.mark.slow
def test_a_kill_while_a_revision_is_checked_out_leaves_nothing_behind(repository: Path) -> None:
    """The folder is there when the process is killed; the next call removes it."""
    tracked = git(repository, "status", "--porcelain", "--untracked-files=no")
    process = subprocess.Popen(
        [sys.executable, "-m", "hwnas", *CHECK],
        cwd=repository,
        env=tiny.places(repository) | {"TMPDIR": str(repository / "temporary")},
    )
    while not list((repository / "temporary").glob("*/tree/tinynet.py")):
        assert process.poll() is None
    process.kill()
    process.wait()
    assert list((repository / "temporary").glob("hwnas-*"))
    assert_nothing_is_left(repository, tracked)


SMALL = """
mkdir small
mount -t tmpfs -o size=16k none small
export TMPDIR=small
python=$1
shift
"$python" -m hwnas "$@" || echo "exit code $?" >&2
ls -A small >&2
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["operators", "int8", "revision"])
def test_a_full_folder_for_temporary_files_is_told(how: str, repository: Path) -> None:
    (repository / "int8.toml").write_text(
        'name = "int8"\ndevice = "host"\ndescription = "x"\nprecision = "int8"\n'
    )
    git(repository, "add", "*.toml")
    (repository / "large.py").write_text("#" * 200_000)
    git(repository, "add", "large.py")
    git(repository, "commit", "--quiet", "--message", "second")
    profile = ("profile", "tinynet:make", "--protocol", "quick")
    arguments = {
        "operators": (*profile, "--device", "cpu-1", "--operators"),
        "int8": (*profile, "--device", "int8.toml"),
        "revision": CHECK,
    }[how]
    said = in_mounts(repository, SMALL, sys.executable, *arguments).stderr
    assert "exit code 2" in said
    assert "no space for temporary files is left in " in said
    assert "small" in said
    assert "TMPDIR=FOLDER" in said
    assert "Traceback" not in said
    assert "hwnas-" not in said.partition("exit code 2")[2]

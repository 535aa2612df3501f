"""A disk that is full, and one that cannot be written to: told with exit code 2, and nothing is lost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import tiny
from mounts import in_mounts
from spoilt_runs import Place
from tiny import snapshot

FULL = """
mkdir full
mount -t tmpfs -o size=$1k none full
python=$2
shift 2
code=0
"$python" -m hwnas "$@" || code=$?
echo "exit code $code" >&2
mount -o remount,size=64m full
"$python" -m hwnas "$@"
cp -r full/out after
"""


def fill(kilobytes: int, place: Place, workplace: Path, arguments: Sequence[str]) -> str:
    """A run on a disk of that size, which goes on when there is more space; what it said."""
    import sys

    done = in_mounts(workplace, FULL, str(kilobytes), sys.executable, *arguments)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert snapshot(workplace / "after") == snapshot(place.whole)
    assert not [path for path in (workplace / "after").rglob(".*") if path.name != ".lock"]
    return done.stderr


@pytest.mark.slow
def test_a_full_disk_is_told_and_the_run_goes_on_when_there_is_space(place: Place, workplace: Path) -> None:
    said = fill(220, place, workplace, tiny.compress_arguments("full/out"))
    assert "exit code 2" in said
    assert "full" in said and "free space" in said


@pytest.mark.parametrize(
    "kilobytes",
    [
        *(pytest.param(size, marks=pytest.mark.slow) for size in (40, 300)),
        *(pytest.param(size, marks=pytest.mark.faults) for size in (4, 64, 100, 140, 180, 400, 500, 700)),
    ],
)
def test_a_disk_that_is_full_at_any_moment(kilobytes: int, place: Place, workplace: Path) -> None:
    said = fill(kilobytes, place, workplace, tiny.compress_arguments("full/out"))
    print(kilobytes, "kB:", next(line for line in said.splitlines() if "exit code" in line))
    assert "exit code 2" in said or "exit code 0" in said


READ_ONLY = """
mount --bind whole whole
mount -o remount,ro,bind whole
python=$1
shift
for command in "$@"; do
    code=0
    "$python" -m hwnas $command || code=$?
    echo "exit code $code" >&2
done
"$python" -c 'import hwnas; print(hwnas.load("whole/checkpoints/steady-knee", allow_code=True).training)'
"""


@pytest.mark.slow
def test_a_read_only_run_is_told_stays_as_it_is_and_can_be_loaded(copy: Path, workplace: Path) -> None:
    import sys

    before = tiny.tree(copy)
    commands = [" ".join(tiny.compress_arguments("whole")), "report whole"]
    done = in_mounts(workplace, READ_ONLY, sys.executable, *commands)
    assert done.stdout.splitlines()[-1:] == ["False"], done.stderr
    assert done.stderr.count("exit code 2") == 2, done.stderr
    assert done.stderr.count("error: cannot ") == 2
    assert done.stderr.count("fix: ") == 2
    assert "Traceback" not in done.stderr
    assert tiny.tree(copy) == before

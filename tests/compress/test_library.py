from __future__ import annotations

import resource
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from hwnas.compress.library.candidates import find_candidates
from hwnas.compress.library.distill import Distilled
from hwnas.compress.library.metrics import BlockMetrics
from hwnas.compress.library.space import load_space
from hwnas.compress.library.store import Entry, Library
from hwnas.database import Database
from hwnas.errors import HwnasError, RunDirectoryError
from hwnas.networks.architecture import Candidate
from hwnas.networks.build import build_part
from hwnas.networks.partition import Partition

METRICS = BlockMetrics(nsr=0.125, mse=3.5, relative_l1=1e-9)


def distilled(seed: int = 0) -> Distilled:
    generator = torch.Generator().manual_seed(seed)
    state = {"a": torch.randn(3, 2, generator=generator), "steps": torch.tensor(7)}
    return Distilled(state=state, metrics=METRICS, end_slope=-0.5, seconds=1.25)


@pytest.fixture
def candidates(parts: Partition) -> list[Candidate]:
    return find_candidates(parts, load_space("compression"), 2)


def entry(library: Library, part: int, choice: int) -> Entry:
    return next(e for e in library.entries() if (e.candidate.part, e.candidate.choice) == (part, choice))


def change(library: Library, sql: str) -> None:
    library.close()
    with sqlite3.connect(library.blocks.parent / "library.db") as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute(sql)
    connection.close()


def test_what_was_stored_comes_back_in_another_process_object(
    tmp_path: Path, candidates: list[Candidate]
) -> None:
    library = Library(tmp_path)
    library.add(candidates)
    assert [e.candidate for e in library.entries()] == library.pending() == candidates
    library.finish(candidates[1], distilled(), b"a graph")
    library.fail(candidates[2], "loss became nan at step 3")
    library.close()
    again = Library(tmp_path)
    again.add(candidates)
    assert again.pending() == [candidates[0], candidates[3]]
    states = [(e.state, e.reason, e.metrics, e.end_slope, e.seconds) for e in again.entries()]
    untouched = ("pending", None, None, None, None)
    failed = ("failed", "loss became nan at step 3", None, None, None)
    assert states == [untouched, ("done", None, METRICS, -0.5, 1.25), failed, untouched]
    done = again.entries()[1]
    module = nn.Module()
    module.register_buffer("a", torch.zeros(3, 2))
    module.register_buffer("steps", torch.tensor(0))
    again.load(done, module)
    assert all(torch.equal(module.state_dict()[key], value) for key, value in distilled().state.items())
    assert not module.training
    assert again.onnx(done) == b"a graph"
    again.close()


def test_a_row_is_checked_again_only_when_it_was_changed(
    tmp_path: Path, candidates: list[Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Library(tmp_path) as library, Library(tmp_path) as other:
        library.add(candidates)
        before, checked = library.entries(), []
        real = library._entry

        def counted(row: tuple[object, ...]) -> Entry:
            checked.append(row[2])
            return real(row)

        monkeypatch.setattr(library, "_entry", counted)
        assert library.entries() == before
        assert checked == []
        other.fail(candidates[1], "loss became nan at step 3")
        after = library.entries()
        assert checked == [candidates[1].choice]
        assert [entry.state for entry in after] == ["pending", "failed", "pending", "pending"]
        with sqlite3.connect(tmp_path / "library.db") as connection:
            connection.execute("UPDATE candidates SET macs = 1 WHERE part = 1")
        connection.close()
        with pytest.raises(RunDirectoryError, match="is damaged"):
            library.entries()


def test_a_trained_candidate_computes_the_same_after_loading(library: Library, parts: Partition) -> None:
    import onnxruntime as ort

    for done in (e for e in library.entries() if e.state == "done"):
        module = library.load(done, build_part(parts, done.candidate.part, done.candidate.spec))
        x = torch.randn(1, *parts.shapes[done.candidate.part])
        session = ort.InferenceSession(library.onnx(done), providers=["CPUExecutionProvider"])
        with torch.no_grad():
            expected = module(x)
        torch.testing.assert_close(
            torch.from_numpy(session.run(None, {"input": x.numpy()})[0]), expected, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("suffix", ["safetensors", "onnx"])
@pytest.mark.parametrize("damage", ["truncated", "changed", "gone"])
def test_a_candidate_with_a_damaged_file_is_pending_again(library: Library, suffix: str, damage: str) -> None:
    assert library.pending() == []
    damaged = entry(library, 2, 1)
    path = library.blocks / f"{damaged.candidate.name}.{suffix}"
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-10] if damage == "truncated" else content[:-1] + b"\x55")
    assert library.pending() == [damaged.candidate]
    with pytest.raises(RunDirectoryError, match=rf"{path.name} is missing or damaged"):
        if suffix == "onnx":
            library.onnx(damaged)
        else:
            library.load(damaged, nn.Identity())


def test_the_files_are_on_disk_before_the_row(
    tmp_path: Path, candidates: list[Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library(tmp_path)
    library.add(candidates)
    real, seen = Database.write, []

    def killed(self: Database, sql: str, *rows: object) -> None:
        seen.extend(sorted(path.name for path in library.blocks.iterdir()))
        raise KeyboardInterrupt

    monkeypatch.setattr(Database, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        library.finish(candidates[0], distilled(), b"a graph")
    assert seen == [f"{candidates[0].name}.onnx", f"{candidates[0].name}.safetensors"]
    assert library.pending() == candidates
    monkeypatch.setattr(Database, "write", real)
    library.finish(candidates[0], distilled(1), b"another")
    assert library.pending() == candidates[1:]
    assert library.onnx(library.entries()[0]) == b"another"
    library.close()


def test_the_same_result_gives_the_same_files(tmp_path: Path, candidates: list[Candidate]) -> None:
    digests = []
    for name in ("a", "b"):
        library = Library(tmp_path / name)
        library.add(candidates)
        library.finish(candidates[0], distilled(), b"a graph")
        digests.append(library.entries()[0].weights_sha256)
        library.close()
    assert digests[0] == digests[1] is not None


def test_a_database_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "library.db").write_bytes(b"this is not a database, " * 100)
    with pytest.raises(RunDirectoryError, match=r"library\.db is damaged") as error:
        Library(tmp_path)
    assert "distilled again" in error.value.fix


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        "spec = '{\"kernel\": 3'",
        "spec = replace(spec, 'kernel', 'colonel')",
        "spec = CAST(x'ff00ff' AS TEXT)",
        "state = 'doing'",
        "state = 'failed', reason = 'never'",
        "nsr = 'much'",
        "nsr = nsr / 2",
        "mse = 0",
        "operators = '[]'",
        "weights_sha256 = onnx_sha256",
        "macs = macs - 1",
        "sha256 = NULL",
    ],
)
def test_a_damaged_row_is_told_with_its_place_and_its_candidate_made_again(
    library: Library, damage: str
) -> None:
    before = library.entries()
    change(library, f"UPDATE candidates SET {damage} WHERE part = 2 AND choice = 1")  # noqa: S608
    with Library(library.blocks.parent) as again:
        with pytest.raises(RunDirectoryError, match=r"library\.db, part 2, choice 1 is damaged"):
            again.entries()
        again.add([entry.candidate for entry in before])
        (pending,) = again.pending()
        assert (pending.part, pending.choice) == (2, 1)
        rest = [entry for entry in again.entries() if entry.candidate != pending]
        assert rest == [entry for entry in before if entry.candidate != pending]


def test_rows_that_are_lost_by_damage_of_a_page_are_told(tmp_path: Path, candidates: list[Candidate]) -> None:
    """A page that says that it holds fewer rows."""
    with Library(tmp_path) as library:
        library.add(candidates)
    path = tmp_path / "library.db"
    with sqlite3.connect(path) as connection:
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'candidates'"
        ).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    content = bytearray(path.read_bytes())
    at = (page - 1) * size + 4  # the low byte of the number of cells
    assert content[at] == len(candidates)
    content[at] -= 1
    path.write_bytes(content)
    with pytest.raises(RunDirectoryError, match=r"library\.db is damaged") as error:
        Library(tmp_path)
    assert "move" in error.value.fix


def test_a_row_that_moved_to_another_candidate_is_not_its_own(library: Library) -> None:
    candidates = [entry.candidate for entry in library.entries()]
    change(library, "UPDATE candidates SET choice = 9 WHERE part = 2 AND choice = 1")
    with Library(library.blocks.parent) as again:
        again.add(candidates)
        assert [entry.candidate for entry in again.entries()] == candidates
        assert [(pending.part, pending.choice) for pending in again.pending()] == [(2, 1)]


@pytest.mark.parametrize("version", [1, 2, 99])
def test_a_library_of_another_format_is_refused(library: Library, version: int) -> None:
    change(library, f"PRAGMA user_version = {version}")
    with pytest.raises(RunDirectoryError, match=f"format {version}, of another version") as error:
        Library(library.blocks.parent)
    assert "--out" in error.value.fix


FULL_DISK = """
import resource, sys
from pathlib import Path
import torch
from hwnas.compress.library.distill import Distilled
from hwnas.compress.library.store import Library
from hwnas.compress.library.metrics import BlockMetrics
from hwnas.errors import HwnasError

library = Library(Path(sys.argv[1]))
candidate = library.pending()[0]
metrics = BlockMetrics(nsr=1.0, mse=1.0, relative_l1=1.0)
result = Distilled(state={"a": torch.zeros(10**6)}, metrics=metrics, end_slope=0.0, seconds=0.0)
resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))
try:
    library.finish(candidate, result, b"a graph")
except HwnasError as error:
    print(error)
"""


def test_a_disk_that_takes_no_more_is_told_and_loses_nothing(
    tmp_path: Path, candidates: list[Candidate]
) -> None:
    assert resource.RLIMIT_FSIZE
    library = Library(tmp_path)
    library.add(candidates)
    library.close()
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.stderr == ""
    assert "cannot write" in done.stdout
    assert "free space" in done.stdout
    again = Library(tmp_path)
    assert again.pending() == candidates
    assert list(again.blocks.iterdir()) == []
    again.close()


def test_a_place_that_cannot_be_written_to_is_told(tmp_path: Path, candidates: list[Candidate]) -> None:
    library = Library(tmp_path)
    library.add(candidates)
    library.blocks.rmdir()
    with pytest.raises(HwnasError, match="cannot write"):
        library.finish(candidates[0], distilled(), b"a graph")
    assert library.pending() == candidates
    library.close()

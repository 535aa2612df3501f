"""A file of a run that was changed is found, and rebuilt or reported: what it says is never used."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from spoilt_runs import Place, Said, go_on
from tiny import snapshot

import hwnas
from hwnas.compress.emit.checkpoint import is_intact
from hwnas.compress.library.store import Library
from hwnas.compress.report import write_reports
from hwnas.errors import HwnasError, InputError, RunDirectoryError
from hwnas.networks.build import find_reference
from hwnas.networks.find import find_network
from hwnas.networks.weights import read_state
from hwnas.profiles.gate.baseline import read_baseline

pytestmark = pytest.mark.slow

FILES = (
    "library/library.db",
    "library/blocks/*.safetensors",
    "library/blocks/*.onnx",
    "devices/steady/measurements.db",
    "reference/*",
    "checkpoints/steady-knee/*",
    "run.toml",
)


def spoil(path: Path, generator: random.Random) -> str:
    """Change a file as disks do: one bit, a run of zeros, or its end lost. What was done."""
    content = bytearray(path.read_bytes())
    place = generator.randrange(len(content))
    kind = generator.choice(["bit", "zeros", "end"])
    if kind == "bit":
        content[place] ^= 1 << generator.randrange(8)
    elif kind == "zeros":
        content[place : place + 64] = bytes(min(64, len(content) - place))
    else:
        del content[place:]
    path.write_bytes(content)
    return f"{kind} at {place} of {path}"


def check_spoilt(seed: int, pattern: str, place: Place, copy: Path) -> None:
    """The run goes on and ends with the same, or says which of its files is damaged."""
    generator = random.Random(f"{seed} {pattern}")
    victim = generator.choice(sorted(path for path in copy.glob(pattern) if path.is_file()))
    what = spoil(victim, generator)
    try:
        go_on(copy)
    except HwnasError as error:
        assert copy.name in str(error), what
        assert error.fix, what
    else:
        found, expected = snapshot(copy), snapshot(place.whole)
        assert found == expected, (what, {key for key in expected if found.get(key) != expected[key]})
        assert is_intact(copy / "checkpoints/steady-knee"), what


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(9))
@pytest.mark.parametrize("pattern", FILES)
def test_spoilt_files_of_a_run_are_rebuilt_or_reported(
    seed: int, pattern: str, place: Place, copy: Path
) -> None:
    check_spoilt(seed, pattern, place, copy)


def test_a_changed_metric_in_the_library_is_never_used(place: Place, copy: Path) -> None:
    """A candidate that pretends to lose nothing would win every search."""
    import sqlite3

    with sqlite3.connect(copy / "library/library.db") as connection:
        connection.execute("UPDATE candidates SET nsr = 0, mse = 0, relative_l1 = 0 WHERE choice = 1")
    connection.close()
    with Library(copy / "library") as library, pytest.raises(RunDirectoryError, match="choice 1 is damaged"):
        library.entries()
    said = Said()
    result = go_on(copy, said)
    assert said.steps.count("distill") == 4  # the two candidates, side by side
    assert result["front"] == place.result["front"]
    assert snapshot(copy) == snapshot(place.whole)


def test_a_changed_figure_of_a_checkpoint_is_found_and_the_checkpoint_made_again(
    place: Place, copy: Path
) -> None:
    file = copy / "checkpoints/steady-knee/measurement.json"
    plain = json.loads(file.read_text())
    plain["summary"]["latency_ratio"]["value"] /= 2
    file.write_text(json.dumps(plain, indent=2) + "\n")
    assert not is_intact(file.parent)
    with pytest.raises(InputError, match="is damaged"):
        hwnas.load(file.parent, allow_code=True)
    with pytest.raises(InputError, match="is damaged"):
        hwnas.open_run(copy).checkpoints()
    result = go_on(copy)
    assert result["checkpoints"][0]["latency_ratio"] == place.result["checkpoints"][0]["latency_ratio"]


READERS: dict[str, Callable[[Path], object]] = {
    "hwnas.load": lambda folder: hwnas.load(folder, allow_code=True),
    "a network for devices": lambda folder: find_network(str(folder)),
    "a model to compress": lambda folder: find_reference(str(folder)),
}
OF_ONE_FILE: dict[str, Callable[[Path], object]] = {
    "model.onnx": lambda folder: find_network(str(folder / "model.onnx")),
    "model.safetensors": lambda folder: read_state(folder / "model.safetensors"),
}


@pytest.mark.parametrize("name", ["model.onnx", "model.safetensors", "architecture.json"])
@pytest.mark.parametrize("folder", ["reference", "checkpoints/steady-knee"])
def test_every_reader_of_a_network_asks_for_its_hashes(folder: str, name: str, copy: Path) -> None:
    place, generator = copy / folder, random.Random(f"{folder} {name}")
    whole = (place / name).read_bytes()
    readers = [*READERS.values(), *(reader for file, reader in OF_ONE_FILE.items() if file == name)]
    for reader in readers:
        (place / name).write_bytes(whole)
        reader(place)
        spoil(place / name, generator)
        with pytest.raises(HwnasError, match=rf"{name} is damaged"):
            reader(place)
    if folder != "reference":
        with pytest.raises(RunDirectoryError, match=rf"{name} is damaged"):
            write_reports(copy, None)


@pytest.mark.parametrize("name", ["reference/reference.json", "checkpoints/steady-knee/measurement.json"])
def test_a_damaged_record_of_hashes_is_no_reason_not_to_ask(name: str, copy: Path) -> None:
    file, generator = copy / name, random.Random(name)
    whole = file.read_bytes()
    for reader in (*READERS.values(), *OF_ONE_FILE.values()):
        file.write_bytes(whole)
        spoil(file, generator)
        with pytest.raises(HwnasError, match=re.escape(file.parent.name)):
            reader(file.parent)
        file.unlink()
        with pytest.raises(HwnasError, match=r"has neither measurement\.json nor reference\.json"):
            reader(file.parent)


@pytest.mark.parametrize("lost", ["removed", "a folder"])
@pytest.mark.parametrize("folder", ["reference", "checkpoints/steady-knee"])
def test_a_lost_architecture_is_no_reason_not_to_ask(folder: str, lost: str, copy: Path) -> None:
    place = copy / folder
    (place / "architecture.json").unlink()
    if lost == "a folder":
        (place / "architecture.json").mkdir()
    for reader in READERS.values():
        with pytest.raises(HwnasError, match=r"architecture\.json"):
            reader(place)
    for name, reader in OF_ONE_FILE.items():
        reader(place)
        spoil(place / name, random.Random(name))
        with pytest.raises(HwnasError, match=rf"{name} is damaged"):
            reader(place)


def test_hashes_that_lack_a_file_are_damaged(copy: Path) -> None:
    file = copy / "checkpoints/steady-knee/measurement.json"
    plain = json.loads(file.read_text())
    del plain["sha256"]["model.onnx"]
    file.write_text(json.dumps(plain))
    for reader in (*READERS.values(), *OF_ONE_FILE.values()):
        with pytest.raises(HwnasError, match=r"measurement\.json is damaged"):
            reader(file.parent)


def test_files_of_ones_own_need_no_record(tmp_path: Path, copy: Path) -> None:
    for name in ("model.onnx", "model.safetensors"):
        shutil.copy(copy / "reference" / name, tmp_path)
    (tmp_path / "measurement.json").write_text("of something else")
    for reader in OF_ONE_FILE.values():
        reader(tmp_path)


RECORDS = (
    "run.toml",
    "account.json",
    "devices/steady/front.json",
    "devices/steady/search.json",
    "devices/steady/blocks.json",
)


@pytest.mark.parametrize("name", RECORDS)
def test_a_changed_figure_of_a_record_is_not_shown_by_the_report(name: str, copy: Path) -> None:
    """One digit: the file is still valid."""
    file = copy / name
    before = file.read_text()
    changed = re.sub(r"(?<=[=:] )([0-9])", lambda match: str((int(match[1]) + 1) % 10), before, count=1)
    file.write_text(changed)
    assert changed != before
    with pytest.raises(RunDirectoryError, match=rf"{file.name} is damaged"):
        write_reports(copy, None)


def test_changed_weights_of_a_reference_are_not_loaded(copy: Path) -> None:
    file = copy / "reference/model.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 64
    file.write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        hwnas.load(copy / "reference", allow_code=True)


def test_a_changed_figure_of_the_reference_is_told(copy: Path) -> None:
    file = copy / "reference/reference.json"
    file.write_text(file.read_text().replace('"trained_epochs": 2', '"trained_epochs": 3'))
    with pytest.raises(RunDirectoryError, match=r"reference\.json is damaged"):
        go_on(copy)


def test_the_references_architecture_is_written_again(place: Place, copy: Path) -> None:
    (copy / "reference/architecture.json").write_text("{}")
    go_on(copy)
    assert snapshot(copy) == snapshot(place.whole)


def test_a_baseline_with_another_latency_is_refused(tmp_path: Path) -> None:
    from hwnas.files import encode, write_json
    from hwnas.measurement import Fingerprint
    from hwnas.profiles.gate.baseline import Baseline, Recorded, write_baseline

    fingerprint = Fingerprint(
        chip="c", os_build="o", driver="d", runtime="r", precision="fp32", power_mode="default"
    )
    network = Recorded(
        model="net.onnx", network_hash="n", commit="", repeats_ms=(1.5, 1.25), medians_ms=(2.5, 1 / 3)
    )
    baseline = Baseline(
        device="cpu", fingerprint=fingerprint, recorded_at="now", hwnas_version="1", networks=(network,)
    )
    path = tmp_path / "baseline.json"
    write_baseline(path, baseline)
    assert read_baseline(path).networks[0].medians_ms == (2.5, 0.33333)
    path.write_text(path.read_text().replace("1.25", "1.75"))
    with pytest.raises(InputError, match=r"baseline\.json is damaged or was changed by hand") as error:
        read_baseline(path)
    assert "make it again" in error.value.fix
    write_json(path, {"schema": "hwnas.baseline/1", **encode(baseline)})
    assert read_baseline(path) == baseline


@pytest.mark.parametrize("column", ["body", "result"])
def test_a_changed_job_of_a_queue_is_submitted_again(column: str, tmp_path: Path) -> None:
    import sqlite3

    from hwnas.devices.queue import QueueJob, QueueResult
    from hwnas.measurement import Fingerprint
    from hwnas.profiles.job_store import JobStore
    from hwnas.profiles.protocols import QUICK
    from hwnas.profiles.store import MeasurementStore

    fingerprint = Fingerprint(
        chip="c", os_build="o", driver="d", runtime="r", precision="fp32", power_mode="default"
    )
    job = QueueJob(name="j", network_hash="n", created_at="now", job_id="42")
    with (
        MeasurementStore(tmp_path / "measurements.db") as store,
        JobStore(store, fingerprint, QUICK) as jobs,
    ):
        jobs.save(job)
        jobs.finish(job, QueueResult(samples_ms=(1.5, 1.25)))
        assert jobs.open_jobs("n") == [(job, QueueResult(samples_ms=(1.5, 1.25)))]
        old, new = {"body": ("42", "43"), "result": ("1.25", "1.75")}[column]
        with sqlite3.connect(store.path) as connection:
            connection.execute(f"UPDATE jobs SET {column} = replace({column}, ?, ?)", (old, new))  # noqa: S608
        connection.close()
        assert jobs.open_jobs("n") == []

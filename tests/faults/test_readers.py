"""Every reader of TOML and JSON against spoilt documents: a reason with the key, never a traceback."""

from __future__ import annotations

import contextlib
import copy as copying
import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spoilt_runs import Place

from hwnas.cli.plan import read_plan
from hwnas.compress.emit.checkpoint import is_intact
from hwnas.compress.emit.cross_device import Comparison, DeviceFront, FrontPoint, OnDevice, PickedArchitecture
from hwnas.compress.emit.summary import CheckpointRecord
from hwnas.compress.library.space import load_space
from hwnas.compress.report.cross_device import write_comparison
from hwnas.compress.report.stored import read_run
from hwnas.compress.run.cost_log import read_costs
from hwnas.compress.run.directory import recorded_settings
from hwnas.compress.tasks.classification import CLASSIFICATION
from hwnas.devices.simulator.loading import load_accelerator
from hwnas.errors import HwnasError
from hwnas.files import read_json
from hwnas.measurement import Fingerprint, Interval, Measurement
from hwnas.networks.architecture import ArchitectureSpec
from hwnas.networks.intact import NetworkRecord, write_checkpoint_record
from hwnas.profiles.catalogue import load_profile
from hwnas.profiles.gate.baseline import Baseline, Recorded, read_baseline, write_baseline
from hwnas.profiles.history.exchange import import_file
from hwnas.profiles.protocols import load_protocol
from hwnas.profiles.store import MeasurementStore

pytestmark = pytest.mark.slow

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
SURPRISES: tuple[Any, ...] = (
    *({"?": {}}, [[]], True, "x", "\ud800", ""),
    *(-(2**70), 10**19, -(10**18), 1.5e308, 5e-324, float("nan")),
)


@dataclass(frozen=True)
class Reader:
    """A file that hwnas reads, and what reads it."""

    file: Path
    read: Callable[[Path], object]

    @property
    def is_toml(self) -> bool:
        return self.file.suffix == ".toml"

    def plain(self) -> Any:
        text = self.file.read_text()
        return tomllib.loads(text) if self.is_toml else json.loads(text)

    def text(self, plain: Any) -> bytes:
        return (tomli_w.dumps(plain) if self.is_toml else json.dumps(plain)).encode()


PLAN = """
devices = ["cpu"]
targets = ["knee", "latency-ms=2"]
options = { data = "digits", train_epochs = 3, device_option = "threads=1", objective = ["latency"] }

[[references]]
model = "resnet18"

[[references]]
model = "resnet18"
name = "again"
devices = ["sim-npu", "cpu"]
options = { data = "fashion-mnist" }
"""


def compared(run: Path) -> None:
    """A comparison of two devices, as it lies in a run."""
    here = OnDevice(cost_ratio=0.5, latency_ms=1.5, excess=0.25)
    fronts = tuple(
        DeviceFront(
            device=name,
            chip="c",
            cost="latency",
            points=(FrontPoint(choices=(0, 1), loss=0.5, cost_ratio=0.5),),
            anchor=(0, 1),
        )
        for name in ("a", "b")
    )
    picked = PickedArchitecture(
        choices=(0, 1),
        parts=("own", "other"),
        loss=0.5,
        macs=1000,
        params=100,
        accuracy=Interval(value=0.5, low=0.25, high=0.75),
        best_for={"a": ("knee",)},
        on={"a": here, "b": OnDevice(reason="it forbids Sigmoid")},
    )
    failed = {"d": "it is gone"}
    metric = CLASSIFICATION.metric
    Comparison(model="m", metric=metric, fronts=fronts, picked=(picked,), failed=failed).save(run)


def read_resealed(path: Path) -> None:
    """Read the record of a checkpoint as if hwnas had written just this."""
    plain = read_json(path)
    if isinstance(plain, dict):
        with contextlib.suppress(ValueError):  # no number that JSON has
            write_checkpoint_record(path.parent, plain.get("summary"), plain.get("measurement"))
    NetworkRecord.read(path.parent)
    CheckpointRecord.read(path.parent)


def readers(place: Place, folder: Path) -> dict[str, Reader]:
    """All of them; files of the run stand where a run has them, in a copy."""
    import shutil

    import hwnas

    package = Path(hwnas.__file__).parent
    run = Path(shutil.copytree(place.whole, folder / "run"))
    steady, knee = run / "devices/steady", run / "checkpoints/steady-knee"

    def copied(file: Path, name: str) -> Path:
        return Path(shutil.copy(file, folder / name))

    protocol = folder / "protocol.toml"
    protocol.write_text(
        'name = "p"\nwarmup_s = 0.5\nmin_runs = 2\nmin_s = 0.25\n'
        "repeats = 2\nmax_repeats = 3\nmax_spread = 0.1\n"
    )
    baseline = folder / "baseline.json"
    fingerprint = Fingerprint(
        chip="c", os_build="o", driver="d", runtime="r", precision="fp32", power_mode="default"
    )
    network = Recorded(model="m", network_hash="n", commit="", repeats_ms=(1.5,), medians_ms=(2.5,))
    write_baseline(
        baseline,
        Baseline(
            device="cpu", fingerprint=fingerprint, recorded_at="t", hwnas_version="1", networks=(network,)
        ),
    )
    plan = folder / "plan.toml"
    plan.write_text(PLAN)
    compared(run)
    measurement = folder / "measurement.json"
    measurement.write_text(json.dumps(json.loads((knee / "measurement.json").read_text())["measurement"]))

    def imported(path: Path) -> object:
        with MeasurementStore(folder / "history.db") as store:
            return import_file(path, store)

    def report(_: Path) -> object:
        return read_run(run, steady)

    return {
        "device profile": Reader(
            copied(package / "profiles/catalogue/cpu.toml", "cpu.toml"),
            lambda p: load_profile(str(p)),
        ),
        "protocol": Reader(protocol, lambda p: load_protocol(str(p))),
        "space": Reader(
            copied(package / "compress/library/spaces/donna.toml", "space.toml"), lambda p: load_space(str(p))
        ),
        "accelerator": Reader(
            copied(next((package / "devices/simulator/accelerators").glob("*.toml")), "accelerator.toml"),
            lambda p: load_accelerator(str(p)),
        ),
        "run.toml": Reader(run / "run.toml", lambda p: recorded_settings(p.parent)),
        "run.toml for the report": Reader(run / "run.toml", report),
        "account.json": Reader(run / "account.json", read_costs),
        "architecture.json": Reader(knee / "architecture.json", ArchitectureSpec.read),
        "summary of a checkpoint": Reader(
            knee / "measurement.json", lambda p: CheckpointRecord.read(p.parent)
        ),
        "hashes of a checkpoint": Reader(knee / "measurement.json", lambda p: is_intact(p.parent)),
        "measurement": Reader(measurement, lambda p: Measurement.from_json(read_json(p), str(p))),
        "history": Reader(measurement, imported),
        "baseline": Reader(baseline, read_baseline),
        "plan": Reader(plan, read_plan),
        "comparison.json": Reader(run / "comparison.json", lambda p: write_comparison(p.parent)),
        "reference.json": Reader(run / "reference/reference.json", report),
        "front.json": Reader(steady / "front.json", report),
        "search.json": Reader(steady / "search.json", report),
        "blocks.json": Reader(steady / "blocks.json", report),
    }


NAMES = (
    "device profile",
    "protocol",
    "space",
    "accelerator",
    "run.toml",
    "run.toml for the report",
    "account.json",
    "architecture.json",
    "summary of a checkpoint",
    "hashes of a checkpoint",
    "measurement",
    "history",
    "baseline",
    "plan",
    "comparison.json",
    "reference.json",
    "front.json",
    "search.json",
    "blocks.json",
)


@pytest.fixture(scope="module")
def all_readers(place: Place, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    return readers(place, tmp_path_factory.mktemp("readers"))


def steps(plain: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The place of every value of a document."""
    inner = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()
    return [place for key, value in inner for place in [(*at, key), *steps(value, (*at, key))]]


def spoilt(plain: Any, place: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    plain = copying.deepcopy(plain)
    target = plain
    for step in place[:-1]:
        target = target[step]
    change(target, place[-1])
    return plain


def read(reader: Reader, content: bytes) -> HwnasError | None:
    """What a reader says to a content; the file is as before afterwards."""
    before = reader.file.read_bytes()
    reader.file.write_bytes(content)
    try:
        reader.read(reader.file)
    except HwnasError as error:
        assert error.cause and error.fix
        assert reader.file.name in str(error) or str(reader.file.parent) in str(error), error
        return error
    finally:
        reader.file.write_bytes(before)
    return None


def names_it(error: HwnasError, place: tuple[Any, ...]) -> bool:
    """Whether a message names the key, one around it, or says that the whole is not what was written."""
    keys = [str(step) for step in place if not isinstance(step, int)]
    keys += [key.replace("_", "-") for key in keys]  # as an option of a command
    whole = ("damaged", "Invalid JSON", "which the library of")
    return any(text in str(error) for text in (*keys, *whole))


@pytest.mark.parametrize("name", NAMES)
def test_a_document_as_it_is_is_read(name: str, all_readers: dict[str, Reader]) -> None:
    assert set(all_readers) == set(NAMES)
    reader = all_readers[name]
    assert read(reader, reader.file.read_bytes()) is None
    assert read(reader, reader.text(reader.plain())) is None


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_spoilt_value_is_told_with_its_key(
    name: str, all_readers: dict[str, Reader], data: st.DataObject
) -> None:
    """A key is gone, is new, or has another value: read all the same, or told with the key."""
    reader = all_readers[name]
    plain = reader.plain()
    place = data.draw(st.sampled_from(steps(plain)), label="place")
    kind = data.draw(st.sampled_from(["gone", "new", "other"]), label="kind")
    surprise = data.draw(st.sampled_from(SURPRISES) | ANYTHING, label="value")

    def change(target: Any, key: Any) -> None:
        if kind == "gone":
            del target[key]
        elif kind == "other":
            target[key] = surprise
        elif isinstance(target, dict):
            target["surprise"] = surprise
        else:
            target.append(surprise)

    try:
        content = reader.text(spoilt(plain, place, change))
    except (TypeError, UnicodeEncodeError, ValueError):
        return  # TOML has no null
    error = read(reader, content)
    if error is not None:
        assert names_it(error, (*place, "surprise") if kind == "new" else place), error


EXTREMES = (10**19, -(10**18), 1e308, -1e308, 5e-324, 10**400)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_number_that_nobody_means_is_told_with_its_key(name: str, all_readers: dict[str, Reader]) -> None:
    """Every number of the document in turn."""
    reader = all_readers[name]
    plain = reader.plain()
    for place in steps(plain):
        found = plain
        for step in place:
            found = found[step]
        if isinstance(found, bool) or not isinstance(found, int | float):
            continue
        for extreme in EXTREMES:

            def change(target: Any, key: Any, value: float = extreme) -> None:
                target[key] = value

            error = read(reader, reader.text(spoilt(plain, place, change)))
            assert error is None or names_it(error, place), (place, extreme, error)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_spoilt_bytes_are_told_or_read(
    name: str, all_readers: dict[str, Reader], data: st.DataObject
) -> None:
    reader = all_readers[name]
    content = reader.file.read_bytes()
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, min(len(content), start + 40)))
    read(reader, content[:start] + data.draw(st.binary(max_size=20)) + content[end:])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"a = " + b"[" * 100_000,
        b"\xff\xfe[",
        b"null",
        b"[]",
        b"1" * 5000,
        b"NaN",
    ],
    ids=["empty", "deep list", "deep object", "deep TOML", "UTF-16", "null", "list", "long number", "NaN"],
)
def test_contents_that_break_parsers_are_told(
    name: str, content: bytes, all_readers: dict[str, Reader]
) -> None:
    error = read(all_readers[name], content)
    assert (error is None) == (name == "hashes of a checkpoint")  # which says that it is not intact

"""Several devices and several references in one command."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tiny
from command_line import Hwnas, refused

from hwnas.compress.emit import cross_device
from hwnas.compress.search.costs import MeasuredCosts
from hwnas.errors import DeviceLostError
from hwnas.profiles.session import Session
from hwnas.profiles.store import MeasurementStore

SIDE = {"one": ("waits", "two"), "two": ("waits", "one"), "third": ("chip", "one")}


@pytest.fixture
def place(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two devices that each wait until the other is being searched, and a third on the chip of the first."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(workplace), str(tiny.ROOT))))
    for name, (option, value) in SIDE.items():
        breaks = "\nbreaks = true" * (name == "two")
        (workplace / f"{name}.toml").write_text(
            f'name = "{name}"\ndevice = "fickle"\ndescription = "x"\n[options]\n'
            f'{option} = "{value}"{breaks}\n'
        )
    return workplace


def arguments(*devices: str, out: str = "run", **changed: object) -> list[str]:
    """Of a command that opens its devices when it searches, and not before as well."""
    single = tiny.compress_arguments(out, **changed)
    single = [argument for argument in single if not argument.startswith("--device=")]
    return [*single, *(f"--device={name}.toml" for name in devices), "--no-device-check"]


def rows(run: Path) -> dict[str, int]:
    """How many results are stored for each device."""
    counts = {}
    for file in run.glob("devices/*/measurements*.db"):
        with MeasurementStore(file) as store:
            counts[file.parent.name] = len(store.all())
    return counts


def spans(place: Path) -> dict[str, list[tuple[int, int, int]]]:
    """When each device was open, and in which process."""
    found: dict[str, list[tuple[int, int, int]]] = {}
    opened: dict[tuple[str, str], int] = {}
    for line in (place / "notes").read_text().splitlines():
        name, what, pid, at_ns = line.split()
        if what == "open":
            opened[name, pid] = int(at_ns)
        else:
            found.setdefault(name, []).append((opened.pop((name, pid)), int(at_ns), int(pid)))
    assert not opened
    return found


def overlap(a: tuple[int, int, int], b: tuple[int, int, int]) -> bool:
    return a[0] < b[1] and b[0] < a[1]


@pytest.mark.slow
def test_devices_side_by_side_one_lost_and_finished_later(hwnas: Hwnas, place: Path) -> None:
    run = place / "run"
    command = [*arguments("one", "two", "third"), "--json"]
    (place / "broken").touch()
    first = hwnas(*command)
    assert first.code == 2
    assert "not everything could be done: two: the cable was pulled" in first.err
    assert "plug it in" in first.err
    assert "Traceback" not in first.err
    result = json.loads(first.out)
    assert set(result["devices"]) == {"one", "third"}
    assert result["failed"] == {"two": "the cable was pulled"}
    assert {path.name for path in run.glob("checkpoints/*")} == {"one-knee", "third-knee"}
    open_spans = spans(place)
    searched = {name: of_device[0] for name, of_device in open_spans.items()}
    assert overlap(searched["one"], searched["two"])
    assert not any(overlap(a, b) for a in open_spans["one"] for b in open_spans["third"])
    assert len({pid for _, _, pid in searched.values()} - {os.getpid()}) == 3

    library, before = tiny.tree(run / "library"), rows(run)
    (place / "broken").unlink()
    second = hwnas(*command)
    assert second.code == 0, second.err
    assert tiny.tree(run / "library") == library
    after = rows(run)
    assert after["two"] > before["two"]
    assert {**after, "two": 0} == {**before, "two": 0}  # the others' picks are the same networks
    result = json.loads(second.out)
    assert set(result["devices"]) == {"one", "two", "third"}
    assert result["failed"] == {}
    alone = hwnas(*arguments("two"), "--json")
    assert json.loads(alone.out)["devices"]["two"]["front"] == result["devices"]["two"]["front"]


@pytest.mark.slow
def test_best_for_a_run_on_b(hwnas: Hwnas, place: Path) -> None:
    """Every cell against the stores and fronts that the searches left."""
    (place / "small.toml").write_text(
        'name = "small"\ndevice = "modelled"\ndescription = "x"\nforbidden_operators = ["Sigmoid"]\n'
    )
    devices = ("steady", "picky", "small")
    given = arguments(*devices, pick="speedup=1.1", candidates=6)
    done = hwnas(*given, "--device=sim-npu", "--pick=knee", "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    fronts = {name: device["front"]["front"] for name, device in result["devices"].items()}
    comparison = result["comparison"]
    assert [front["device"] for front in comparison["fronts"]] == [*devices, "sim-npu"]
    named: dict[str, set[str]] = {}
    for pick in comparison["picked"]:
        for name, rules in pick["best_for"].items():
            named.setdefault(name, set()).update(rules)
            assert pick["on"][name]["excess"] == pytest.approx(0)
        for name, here in pick["on"].items():
            check_cell(place / "run", name, pick, here, fronts[name])
    assert named == {name: {"speedup=1.1", "knee"} for name in fronts}
    assert any(here["excess"] for pick in comparison["picked"] for here in pick["on"].values())
    page = Path(result["report"]).read_text()
    assert "Best for A, run on B" in page
    Path(result["report"]).unlink()
    again = hwnas("report", "run", "--json")
    assert result["report"] in json.loads(again.out)["reports"]
    assert Path(result["report"]).read_text() == page


def check_cell(run: Path, name: str, pick: Any, here: Any, front: list[Any]) -> None:
    if here["reason"] is not None:
        assert "does not like" in here["reason"] or "forbids Sigmoid" in here["reason"]
        return
    no_worse = [row["cost_ratios"]["latency"] for row in front if row["loss"] <= pick["loss"]]
    best = min([here["cost_ratio"], *no_worse])
    assert here["excess"] == pytest.approx(here["cost_ratio"] / best - 1)
    same = [row for row in front if row["choices"] == pick["choices"]]
    for row in same:
        assert here["cost_ratio"] == row["cost_ratios"]["latency"]
        assert here["latency_ms"] == pytest.approx(row["latency_ms"])


@pytest.mark.slow
def test_a_pick_that_nothing_reaches_leaves_the_device_in_the_comparison(hwnas: Hwnas, place: Path) -> None:
    done = hwnas(*arguments("steady", "picky"), "--pick=knee", "--pick=speedup=1000", "--json")
    assert done.code == 2
    assert "steady: no architecture of the front reaches speedup=1000" in done.err
    assert "such as --speedup" in done.err
    result = json.loads(done.out)
    assert set(result["devices"]) == set(result["failed"]) == {"steady", "picky"}
    comparison = result["comparison"]
    assert [front["device"] for front in comparison["fronts"]] == ["steady", "picky"]
    assert {
        rule for pick in comparison["picked"] for rules in pick["best_for"].values() for rule in rules
    } == {"knee"}
    page = Path(result["report"]).read_text()
    assert "Once the reason is mended" in page
    assert page.count("no architecture of the front reaches speedup=1000") == 2


@pytest.mark.slow
def test_a_device_that_is_lost_while_picks_are_compared_is_told_and_finished_later(
    hwnas: Hwnas, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(session: Session, *rest: Any) -> MeasuredCosts:
        if session.device.profile.name == "picky":
            raise DeviceLostError("the cable was pulled", "plug it in")
        return MeasuredCosts(session, *rest)

    command = [*arguments("steady", "picky"), "--json"]
    with monkeypatch.context() as patch:
        patch.setattr("hwnas.compress.multi_device.MeasuredCosts", lost)
        first = hwnas(*command)
    assert first.code == 2
    assert "not everything could be done: picky: the cable was pulled" in first.err
    result = json.loads(first.out)
    assert set(result["devices"]) == {"steady", "picky"}
    assert {pick["on"]["picky"]["reason"] for pick in result["comparison"]["picked"]} == {
        "the cable was pulled"
    }
    second = hwnas(*command)
    assert second.code == 0, second.err
    assert not any(pick["on"]["picky"]["reason"] for pick in json.loads(second.out)["comparison"]["picked"])


@pytest.mark.slow
def test_a_search_that_is_killed_leaves_the_others_and_the_same_is_found_as_without(
    hwnas: Hwnas, place: Path
) -> None:
    (place / "deadly").touch()
    command = [*arguments("one", "two"), "--json"]
    first = hwnas(*command)
    assert first.code == 2
    assert "two: its search ended with exit code -9" in first.err
    assert set(json.loads(first.out)["devices"]) == {"one"}
    (place / "deadly").unlink()
    assert hwnas(*command).code == 0
    assert hwnas(*arguments("one", "two", out="whole"), "--json").code == 0
    killed, whole = (tiny.snapshot(place / out) for out in ("run", "whole"))
    assert killed == whole
    compared = [json.loads((place / out / cross_device.FILE).read_text()) for out in ("run", "whole")]
    assert compared[0] == compared[1]


@pytest.mark.slow
def test_an_interrupt_ends_all_searches_and_starts_no_other(place: Path) -> None:
    for name, option in (("waiting", 'waits = "nobody"\nchip = "c"'), ("next", 'chip = "c"')):
        (place / f"{name}.toml").write_text(
            f'name = "{name}"\ndevice = "fickle"\ndescription = "x"\n[options]\n{option}\n'
        )
    command = [sys.executable, "-m", "hwnas", *arguments("waiting", "next", "third")]
    with (place / "said").open("w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
    notes = place / "notes"
    wait_for(lambda: notes.exists() and "waiting open" in notes.read_text())
    searching = int(notes.read_text().partition("waiting open ")[2].split()[0])
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.wait(60) == 130
    told = (place / "said").read_text()
    assert "interrupted; the same command goes on from here" in told
    assert "Traceback" not in told
    assert "failed" not in told
    assert "next open" not in notes.read_text()
    assert "waiting close" in notes.read_text()
    assert not is_alive(searching)


@pytest.mark.slow
def test_the_searches_end_with_a_killed_command_and_give_their_devices_back(place: Path) -> None:
    (place / "waiting.toml").write_text((place / "one.toml").read_text().replace('"one"', '"waiting"'))
    command = [sys.executable, "-m", "hwnas", *arguments("waiting", "third")]  # `two` never comes
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    notes = place / "notes"
    wait_for(
        lambda: notes.exists() and "waiting open" in notes.read_text() and "third open" in notes.read_text()
    )
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not any(is_alive(int(line.split()[2])) for line in notes.read_text().splitlines()))
    assert "close" in notes.read_text()  # the later one may have been hit while it opened its device


def wait_for(condition: Any) -> None:
    deadline_s = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    return False


def test_mistakes_are_told_before_anything_is_done(hwnas: Hwnas, place: Path) -> None:
    refused(hwnas(*arguments("one", "two", "one")), "--device one is given twice", "once")
    refused(hwnas(*arguments("one", "absent")), "absent.toml")
    refused(hwnas(*arguments("one"), "--ray-address=127.0.0.1:6379"), "--ray-address", "--executor ray")
    assert not (place / "run" / "library").exists()


PLAN = """
out = "all"
devices = ["steady.toml", "sim-npu"]
targets = ["knee", "speedup=1"]

[options]
data = "digits"
preset = "quick"
weights = "none"
candidates = 2
train_epochs = 1
epochs = 1
steps = 2
batch_size = 256
threads = 1
population = 4
generations = 2
finetune_epochs = 1

[[references]]
model = "tinynet:make"

[[references]]
model = "tinynet:make"
name = "again"
devices = ["steady.toml"]
targets = ["knee"]
options = { seed = 3, objective = ["latency", "params"] }
"""


@pytest.mark.slow
def test_a_plan_of_references_devices_and_targets(hwnas: Hwnas, place: Path) -> None:
    (place / "plan.toml").write_text(PLAN)
    told = json.loads(hwnas("batch", "plan.toml", "--dry-run", "--json").out)["commands"]
    assert len(told) == 2
    assert {"--device=sim-npu", "--pick=speedup=1", "--train-epochs=1", "--out=all/tinynet-make"} < set(
        told[0]
    )
    assert {"--objective=latency", "--objective=params", "--seed=3", "--pick=knee"} < set(told[1])
    assert not (place / "all").exists()
    done = hwnas("batch", "plan.toml", "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert [reference["exit_code"] for reference in result["references"]] == [0, 0]
    checkpoints = {str(path.relative_to(place / "all")) for path in place.glob("all/*/checkpoints/*")}
    assert checkpoints == {
        "tinynet-make/checkpoints/steady-knee",
        "tinynet-make/checkpoints/steady-speedup-1",
        "tinynet-make/checkpoints/sim-npu-knee",
        "tinynet-make/checkpoints/sim-npu-speedup-1",
        "again/checkpoints/steady-latency-params-knee",
    }
    page = Path(result["report"]).read_text()
    assert all(f"all/{path}" in page for path in checkpoints)
    assert "tinynet:make: Best for A, run on B" in page


@pytest.mark.slow
def test_a_reference_that_fails_leaves_the_others(hwnas: Hwnas, place: Path) -> None:
    """The one that does not fail prints beside its result."""
    plan = PLAN.replace('model = "tinynet:make"\n\n', 'model = "tinynet:absent"\n\n')
    (place / "plan.toml").write_text(plan.replace('model = "tinynet:make"', 'model = "loud:make"'))
    done = hwnas("batch", "plan.toml")
    assert done.code == 2
    assert "tinynet:absent (all/tinynet-absent): not everything could be done" in done.err
    assert "again/checkpoints/steady-latency-params-knee" in done.out


@pytest.mark.parametrize(
    ("old", "new", "cause", "fix"),
    [
        ("steps = 2", "stepps = 2", "options.stepps: hwnas compress has no such option", "steps"),
        ("steps = 2", 'steps = "two"', "options: steps: Input should be a valid integer", "plan.toml"),
        ("steps = 2", "json = true", "options.json: hwnas compress has no such option", "known are"),
        ("steps = 2", "allow_code = 3", "options: allow_code: Input should be a valid boolean", "plan.toml"),
        ("steps = 2", "steps = [2, 3]", "options: steps: Input should be a valid integer", "plan.toml"),
        ('out = "all"', "out = 3", "plan.toml: out", "plan.toml"),
        ('out = "all"', 'out = "a\\u0000b"', "plan.toml: out", "plan.toml"),
        ('devices = ["steady.toml"]', 'devices = ["absent"]', "devices: there is no device profile", "hwnas"),
        ('targets = ["knee"]', 'targets = ["fastest"]', "targets: unknown pick 'fastest'", "--speedup"),
        ('model = "tinynet:make"\nname', 'model = "--help"\nname', "model: is '--help'", "name a model"),
        ('out = "all"', "output = 3", "plan.toml: output", "plan.toml"),
        ('name = "again"\n', "", "two references would go to all/tinynet-make", "name"),
        ('devices = ["steady.toml", "sim-npu"]\n', "", "tinynet:make has none", "devices"),
        ('model = "tinynet:make"\nname', "name", "references.1.model", "plan.toml"),
        ("[options]", "[options", "not valid TOML", "plan.toml"),
    ],
)
def test_mistakes_in_a_plan_are_told(
    hwnas: Hwnas, place: Path, old: str, new: str, cause: str, fix: str
) -> None:
    assert PLAN.count(old) >= 1
    (place / "plan.toml").write_text(PLAN.replace(old, new, 1))
    refused(hwnas("batch", "plan.toml"), cause, fix)
    assert not (place / "all").exists()


def test_an_empty_plan_is_refused(hwnas: Hwnas, place: Path) -> None:
    (place / "plan.toml").write_text("references = []\n")
    refused(hwnas("batch", "plan.toml"), "there is none", "[[references]]")
    refused(hwnas("batch", "absent.toml"), "cannot read absent.toml")

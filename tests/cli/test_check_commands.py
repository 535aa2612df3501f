"""`hwnas check` as a user gives it, with files in a git repository and a device that never errs."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import onnx
import pytest
from command_line import Hwnas, Run, refused
from workplace import tinynet

from hwnas import api
from hwnas.files import signed, write_json
from hwnas.measurement import Option
from hwnas.network import Network
from hwnas.profiles.catalogue import parse_options
from hwnas.profiles.gate.baseline import read_baseline, write_baseline
from hwnas.profiles.gate.entries import Asked, find_entries

DEVICE = "measured.toml"


@pytest.fixture
def place(workplace: Path) -> Path:
    """A git repository with model.onnx; the device takes as long as the file is large."""
    (workplace / DEVICE).write_text('name = "measured"\ndevice = "steady"\ndescription = "a plugin"\n')
    write_model(workplace / "model.onnx", 100_000)
    git("init", "--quiet")
    git("add", "model.onnx", "tinynet.py")
    commit("first")
    return workplace


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def commit(message: str) -> str:
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--all", "--message", message)
    return git("rev-parse", "HEAD")


def write_model(path: Path, size: int) -> None:
    """The same small network in a file of about this many bytes."""
    model = onnx.load_model_from_string(Network.from_module("n", tinynet.seeded(), (1, 3, 32, 32)).onnx())
    model.doc_string = "x" * (size - model.ByteSize())
    onnx.save(model, path)


def record(hwnas: Hwnas, *models: str) -> None:
    done = hwnas("check", "record", *(models or ("model.onnx",)), "--device", DEVICE)
    assert done.code == 0, done.err
    assert "commit it" in done.out


def test_a_baseline_is_small_readable_and_says_where_it_is_from(hwnas: Hwnas, place: Path) -> None:
    record(hwnas)
    text = (place / "hwnas-baseline.json").read_text()
    plain = json.loads(text)
    assert len(text) < 4000
    assert plain["schema"] == "hwnas.baseline/2"
    (known,) = plain["networks"]
    assert (known["model"], known["commit"]) == ("model.onnx", git("rev-parse", "HEAD"))
    assert known["repeats_ms"] == known["medians_ms"] == [pytest.approx(10.0, rel=1e-3)] * 16


def test_a_file_that_is_not_committed_has_no_commit(hwnas: Hwnas, place: Path) -> None:
    write_model(place / "model.onnx", 90_000)
    record(hwnas)
    assert json.loads((place / "hwnas-baseline.json").read_text())["networks"][0]["commit"] == ""


@pytest.mark.parametrize(
    ("size", "code", "verdict"),
    [(100_000, 0, "unchanged"), (112_000, 1, "regression"), (103_000, 0, "pass"), (80_000, 0, "improvement")],
)
def test_the_recorded_network_comes_out_of_the_history(
    hwnas: Hwnas, place: Path, size: int, code: int, verdict: str
) -> None:
    record(hwnas)
    write_model(place / "model.onnx", size)
    done = hwnas("check", "run", "--json")
    assert done.code == code
    report = json.loads(done.out)
    (network,) = report["networks"]
    assert (report["exit_code"], network["verdict"]) == (code, verdict)
    assert network["how"] == ("interleaved" if size != 100_000 else "not measured")
    assert f"model.onnx: {'SLOWER' if code else ''}" in done.err
    if verdict == "improvement":
        assert (
            f"hwnas check record model.onnx --device {DEVICE} --out hwnas-baseline.json" in network["reason"]
        )
    assert git("worktree", "list").count("\n") == 0


def test_without_history_the_recorded_samples_are_used(hwnas: Hwnas, place: Path) -> None:
    write_model(place / "model.onnx", 99_000)
    record(hwnas)
    write_model(place / "model.onnx", 112_000)
    done = hwnas("check", "run", "--json")
    assert (done.code, json.loads(done.out)["networks"][0]["how"]) == (1, "recorded")
    write_model(place / "model.onnx", 99_000)
    same = hwnas("check", "run", "--recorded", "--json")
    assert (same.code, json.loads(same.out)["networks"][0]["how"]) == (0, "recorded")


def test_a_check_is_by_the_options_of_the_device_that_were_recorded(hwnas: Hwnas, place: Path) -> None:
    named = ("--device", "sim-npu", "--device-option", "mode=single-layer")
    done = hwnas("check", "record", "model.onnx", *named)
    assert done.code == 0, done.err
    baseline = read_baseline(place / "hwnas-baseline.json")
    assert baseline.device_options == {"mode": "single-layer"}

    same = hwnas("check", "run", "--recorded", "--json")
    assert (same.code, json.loads(same.out)["networks"][0]["verdict"]) == (0, "pass")
    other = hwnas("check", "run", "--recorded", "--device-option", "mode=layer-by-layer")
    assert other.code == 3
    assert "recorded elsewhere" in other.err
    plain = json.loads(hwnas("check", "record", "model.onnx", "--device", "sim-npu", "--json").out)
    assert plain["networks"][0]["repeats_ms"] != pytest.approx(baseline.networks[0].repeats_ms, rel=1e-4)
    assert "device_options" not in json.loads((place / "hwnas-baseline.json").read_text())


def test_what_accepts_a_change_names_the_options_of_the_device(place: Path) -> None:
    options: dict[str, Option] = {"mode": "single-layer", "text": "a b", "flag": True, "tile": 8}
    write_baseline(
        place / "b.json",
        replace(api.record("model.onnx", device="sim-npu"), device_options=options),
    )

    def accepted(device: str | None, asked: Asked) -> dict[str, Option]:
        with ExitStack() as held:
            found = find_entries([], "b.json", device, asked, recorded=True, held=held)
        texts = [each for each in shlex.split(found.accept) if "=" in each]
        return parse_options(texts)

    assert accepted(None, Asked()) == options
    assert accepted("sim-npu", Asked(device_options={"tile": 4})) == {**options, "tile": 4}
    assert accepted(DEVICE, Asked(device_options={"own": 1})) == {"own": 1}


@pytest.mark.slow
def test_a_git_revision_is_a_baseline(hwnas: Hwnas, place: Path) -> None:
    first = git("rev-parse", "HEAD")
    write_model(place / "model.onnx", 112_000)
    (place / "tinynet.py").write_text(
        (place / "tinynet.py").read_text().replace("Tiny()", "Tiny(classes=900)")
    )
    commit("second")
    arguments = ("model.onnx", "tinynet:make", "--device", DEVICE)
    slower = hwnas("check", "run", *arguments, "--baseline", "HEAD~1", "--json")
    model, function = json.loads(slower.out)["networks"]
    assert (slower.code, model["verdict"], model["how"]) == (1, "regression", "interleaved")
    assert (function["verdict"], function["how"]) == ("regression", "interleaved")
    same = hwnas("check", "run", "model.onnx", "--device", DEVICE, "--baseline", "HEAD")
    assert (same.code, "unchanged" in same.out) == (0, True)
    refused(
        hwnas("check", "run", *arguments, "--baseline", "nowhere"), "no revision 'nowhere'", "fetch-depth: 0"
    )
    refused(hwnas("check", "run", *arguments, "--baseline=--all"), "no revision '--all'")
    refused(
        hwnas("check", "run", "model.onnx", "--baseline", first),
        "--device NAME must be given",
        "hwnas check run",
    )
    refused(hwnas("check", "run", "--device", DEVICE, "--baseline", first), "the networks to check")
    (place / "new.onnx").write_bytes((place / "model.onnx").read_bytes())
    refused(
        hwnas("check", "run", "new.onnx", "--device", DEVICE, "--baseline", "HEAD"),
        "there is no new.onnx in HEAD",
    )


@pytest.mark.slow
def test_a_function_is_built_from_the_code_of_the_revision(place: Path) -> None:
    from hwnas.networks.find import find_network
    from hwnas.networks.git_revision import checked_out, network_at

    before = find_network("tinynet:make").hash
    (place / "tinynet.py").write_text("def make(): raise ValueError('broken')\n")
    commit("second")
    with checked_out("HEAD~1") as then:
        assert network_at(then, "tinynet:make").hash == before
    with checked_out("HEAD") as then, pytest.raises(Exception, match=r"cannot be built as of HEAD.*broken"):
        network_at(then, "tinynet:make")


@pytest.mark.slow
def test_a_revision_is_never_what_lies_here(
    hwnas: Hwnas, place: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    package = place / "src/nets"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from tinynet import make\n")
    (place / "out.onnx").symlink_to(elsewhere / "model.onnx")
    git("add", "--all")
    commit("first with a package")
    write_model(elsewhere / "model.onnx", 112_000)
    write_model(place / "model.onnx", 112_000)
    (package / "__init__.py").write_text("import tinynet\ndef make(): return tinynet.Tiny(classes=900)\n")
    (place / "late").mkdir()

    def check(*models: str) -> Run:
        return hwnas("check", "run", *models, "--device", DEVICE, "--baseline", "HEAD", "--json")

    for name in (str(place / "model.onnx"), f"../{place.name}/model.onnx", "src/../model.onnx"):
        assert check(name).code == 1, name
    refused(check(str(elsewhere / "model.onnx")), "is no file of the repository")
    refused(check("out.onnx"), "is a link out of the repository")
    (place / "late/model.onnx").write_bytes((place / "model.onnx").read_bytes())
    refused(check("late/model.onnx"), "there is no late/model.onnx in HEAD")
    monkeypatch.setenv("PYTHONPATH", str(place))
    monkeypatch.syspath_prepend(place / "src")  # as an editable installation does
    assert check("nets:make").code == 1


WIDE = "import tinynet\ndef make(): return tinynet.Tiny(classes=CLASSES)\n"


@pytest.mark.parametrize(
    "how",
    [
        "repository inside",
        *(
            pytest.param(how, marks=pytest.mark.slow)
            for how in ("installed copy", "moved helper", "file of data")
        ),
    ],
)
def test_a_revision_that_would_be_built_of_other_files_is_refused(
    how: str,
    hwnas: Hwnas,
    place: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nets = place / ("src/widenets.py" if how == "installed copy" else "widenets.py")
    old, new = (place / folder / "helper.py" for folder in ("lib", "sub" if "inside" in how else "src"))
    for file in (nets, old, new):
        file.parent.mkdir(exist_ok=True)
    (place / "classes").write_text("10")
    nets.write_text("from tinynet import make\n")
    if how == "file of data":
        nets.write_text(WIDE.replace("CLASSES", f"int(open({str(place / 'classes')!r}).read())"))
    git("add", "--all")
    commit("first")
    wide = WIDE.replace("CLASSES", "900")
    if how == "installed copy":
        nets.write_text(wide)
        copy = tmp_path_factory.mktemp("site")
        (copy / "widenets.py").write_text(wide)
        monkeypatch.setenv("PYTHONPATH", str(copy))
        monkeypatch.syspath_prepend(copy)
    elif how == "file of data":
        (place / "classes").write_text("900")
    else:
        nets.write_text("from helper import make\n")
        git("add", "--all")
        commit("second")
        new.write_text(wide)
        monkeypatch.syspath_prepend(new.parent)
        monkeypatch.setenv("PYTHONPATH", str(new.parent))
        if how == "repository inside":
            subprocess.run(["git", "init", "--quiet", str(new.parent)], check=True)
    done = hwnas("check", "run", "widenets:make", "--device", DEVICE, "--baseline", "HEAD", "--json")
    refused(done, "which is not the revision's file", "--baseline FILE.onnx")


def test_another_file_is_a_baseline(hwnas: Hwnas, place: Path) -> None:
    write_model(place / "new.onnx", 112_000)
    arguments = ("--device", DEVICE, "--baseline", "model.onnx")
    assert hwnas("check", "run", "new.onnx", *arguments).code == 1
    assert hwnas("check", "run", "new.onnx", *arguments, "--threshold", "0.2").code == 0
    refused(
        hwnas("check", "run", "new.onnx", "model.onnx", *arguments), "is one network, 2 are to be checked"
    )
    refused(hwnas("check", "run", "new.onnx", *arguments, "--recorded"), "--recorded needs a baseline file")


def test_every_output_in_one_run(hwnas: Hwnas, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(hwnas)
    write_model(place / "model.onnx", 112_000)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(place / "summary.md"))
    files = ("--junit", "a.xml", "--action-benchmark", "b.json", "--bencher", "c.json")
    done = hwnas("check", "run", *files)
    assert done.code == 1
    assert done.out.startswith("::error title=hwnas%3A model.onnx::12.0%25 slower")
    assert "regression (exit code 1)" in done.out
    assert "SLOWER" in (place / "summary.md").read_text()
    assert ElementTree.parse(place / "a.xml").getroot().tag == "testsuites"  # noqa: S314
    assert json.loads((place / "b.json").read_text())[0]["value"] == pytest.approx(11.2, rel=1e-3)
    assert json.loads((place / "c.json").read_text())["model.onnx on measured"]["latency"]["value"] > 1e7
    plain = hwnas("check", "run", "--json")
    json.loads(plain.out)
    assert "::error" in plain.err


def test_what_was_found_is_shown_even_where_a_file_cannot_be_written(
    hwnas: Hwnas, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(hwnas)
    write_model(place / "model.onnx", 112_000)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "/dev/null/summary.md")
    done = hwnas("check", "run", "--json")
    assert done.code == 2
    assert json.loads(done.out)["exit_code"] == 1
    assert "summary.md" in done.err


def sign_again(path: Path, baseline: dict[str, object]) -> None:
    """Write a changed baseline as if it had been recorded so."""
    schema = baseline.pop("schema")
    baseline.pop("sha256")
    write_json(path, {"schema": schema, **signed(baseline)})


def test_a_foreign_fingerprint_is_inconclusive(hwnas: Hwnas, place: Path) -> None:
    write_model(place / "model.onnx", 99_000)
    record(hwnas)
    path = place / "hwnas-baseline.json"
    recorded_elsewhere = path.read_text().replace('"chip": "steady"', '"chip": "another"')
    sign_again(path, json.loads(recorded_elsewhere))
    write_model(place / "model.onnx", 112_000)
    done = hwnas("check", "run")
    assert done.code == 3
    assert "chip was 'another', is 'steady'" in done.err
    assert "inconclusive (exit code 3)" in done.out


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"schema": "hwnas.baseline/3"}, "schema is 'hwnas.baseline/3'"),
        ({"networks": []}, "it holds no network"),
        ({"device": 3}, "device"),
        ({"surprise": 1}, "surprise"),
        ({"repeats_ms": [], "medians_ms": []}, "has no samples"),
        ({"repeats_ms": [1.0]}, "has no samples"),
        ({"repeats_ms": [0.0] * 16}, "repeats_ms.0: Input should be greater"),
    ],
)
def test_a_baseline_that_cannot_be_used_is_told(
    hwnas: Hwnas, place: Path, change: dict[str, object], cause: str
) -> None:
    record(hwnas)
    path = place / "hwnas-baseline.json"
    plain = json.loads(path.read_text())
    target = plain["networks"][0] if "repeats_ms" in change else plain
    sign_again(path, plain | (change if target is plain else {"networks": [target | change]}))
    refused(hwnas("check", "run"), cause)


def test_mistakes_are_told(hwnas: Hwnas, place: Path) -> None:
    refused(hwnas("check", "run"), "no baseline file hwnas-baseline.json", "hwnas check record")
    (place / "broken.json").write_text("{")
    refused(hwnas("check", "run", "--baseline", "broken.json"), "broken.json is not valid JSON")
    record(hwnas)
    refused(hwnas("check", "run", "other.onnx"), "no network 'other.onnx', only model.onnx")
    refused(hwnas("check", "run", "--threshold", "5"), "--threshold is '5'", "--threshold 5%")
    refused(hwnas("check", "run", "--threshold", "-1%"), "--threshold is '-1%'")
    refused(hwnas("check", "run", "--junit", "nowhere/a.xml"), "no folder nowhere", "mkdir")
    refused(hwnas("check", "run", "--device", "functional.toml"), "those of functional are functional")
    (place / "model.onnx").unlink()
    refused(hwnas("check", "run"), "cannot read model.onnx")

    refused(
        hwnas("check", "record", "\udcff.onnx", "--device", DEVICE), r"'\udcff.onnx' is not text", "rename"
    )
    refused(hwnas("check", "record", "a", "a", "--device", DEVICE), "named twice")
    refused(hwnas("check", "record", "absent.onnx", "--device", DEVICE), "cannot read absent.onnx")
    refused(hwnas("check", "record", "x.onnx", "--device", DEVICE, "--out", "no/a.json"), "no folder no")


@pytest.mark.parametrize(
    ("number", "code", "told"),
    [(signal.SIGTERM, 143, ""), (signal.SIGINT, 130, "interrupted; the same command goes on from here")],
)
def test_a_check_that_is_ended_by_a_signal_leaves_nothing(
    number: int, code: int, told: str, hwnas: Hwnas, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def terminated(*_: object, **__: object) -> None:
        (left,) = (place / "temporary").iterdir()
        assert (left / "tree" / "model.onnx").is_file()
        try:
            os.kill(os.getpid(), number)
        except BaseException as error:
            raise ValueError("as a library may make of it") from error

    (place / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place / "temporary"))
    write_model(place / "model.onnx", 112_000)
    monkeypatch.setattr("hwnas.profiles.gate.check.check", terminated)
    done = hwnas("check", "run", "model.onnx", "--baseline", "HEAD", "--device", DEVICE)
    assert (done.code, done.err.strip()) == (code, told)
    assert not list((place / "temporary").iterdir())
    assert git("worktree", "list").count("\n") == 0


def test_outside_a_repository_a_revision_is_refused(
    hwnas: Hwnas, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(workplace.parent))
    write_model(workplace / "model.onnx", 100_000)
    refused(hwnas("check", "run", "model.onnx", "--device", "modelled.toml", "--baseline", "main"), "'main'")


def test_on_this_machine(hwnas: Hwnas, place: Path) -> None:
    """The real thing, as short as it goes: the verdict is the machine's affair."""
    write_model(place / "new.onnx", 112_000)
    done = hwnas(
        "check",
        "run",
        "new.onnx",
        "--baseline",
        "model.onnx",
        "--device",
        "cpu",
        "--max-seconds",
        "1",
        "--json",
    )
    (network,) = json.loads(done.out)["networks"]
    assert done.code in (0, 1, 3)
    assert all(0 < latency_ms < 1000 for latency_ms in network["now_ms"])

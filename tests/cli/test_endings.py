"""Exit codes: 0 and 1 are verdicts, and whatever else ends a command is 2, told with its cause."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
import tiny
import typer
from command_line import Hwnas, refused

from hwnas.devices import registry
from hwnas.errors import InputError

WAYS = {
    "exits": "SystemExit: 143",
    "passes": "SystemExit: 0",
    "quits": "SystemExit: enough",
    "leaves": "os._exit(7)",
    "aborts": "os.abort()",
    "interrupts": "KeyboardInterrupt",
    "stops": "Own: stop",
    "alarms": "SIGALRM arrived",
    "works": "SIGPROF arrived",
    "threads": "os._exit(7)",
    "parses": "SystemExit: 2",
}


@pytest.fixture
def rude(workplace: Path) -> Path:
    sys.modules.pop("rude", None)
    return workplace


def line_of(folder: Path, way: str) -> str:
    """Where a way to end the process begins."""
    lines = (folder / "rude.py").read_text().splitlines()
    return f"rude.py:{lines.index(f'def {way}() -> None:') + 2}"


def assert_contained(told: str, folder: Path, way: str) -> None:
    assert f"ends the process instead of returning: {WAYS[way]}" in told
    source, number = line_of(folder, way).split(":")
    assert any(f"{source}:{int(number) + more}" in told for more in range(4))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", ["forward", "building", "importing"])
def test_no_network_ends_the_process(hwnas: Hwnas, rude: Path, place: str, way: str) -> None:
    done = hwnas("profile", f"rude:{place}_{way}", "--device", "cpu-1")
    assert done.code == 2
    assert done.out == ""
    assert "Traceback" not in done.err
    assert_contained(done.err, rude, way)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["exits", "leaves", "interrupts"])
@pytest.mark.parametrize("place", ["training", "data", "task"])
def test_nothing_of_a_compression_ends_the_process(hwnas: Hwnas, rude: Path, place: str, way: str) -> None:
    arguments = tiny.compress_arguments("runs/a")
    if place == "training":
        arguments[1] = f"rude:training_{way}"
    elif place == "data":
        arguments = tiny.compress_arguments("runs/a", data=f"rude:building_{way}")
    else:
        arguments = tiny.compress_arguments("runs/a", weights="given", task=f"rude:task_{way}")
    done = hwnas(*arguments)
    assert done.code == 2
    assert_contained(done.err, rude, way)


@pytest.mark.slow
def test_a_search_in_a_process_of_its_own_tells_it_too(
    hwnas: Hwnas, rude: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module ends only where it is imported for the search."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(rude), str(tiny.ROOT))))
    (rude / "late.py").write_text(
        "import os, sys\nfrom tinynet import make\n"
        "if any('search.process' in word for word in sys.orig_argv):\n    os._exit(0)\n"
    )
    arguments = tiny.compress_arguments("runs/a", "--device=picky.toml")
    arguments[1] = "late:make"
    done = hwnas(*arguments)
    assert done.code == 2
    assert "os._exit(0), in late.py:4" in done.err


STREAMS = """
import os, sys
from tinynet import make
def closes():
    sys.stdout.close()
    return make()
def replaces():
    sys.stdout = open("log.txt", "w")
    return make()
def prints():
    print("loaded")
    return make()
def executes():
    os.execvp("true", ["true"])
"""


@pytest.mark.parametrize(
    "way", ["replaces", *(pytest.param(way, marks=pytest.mark.slow) for way in ("closes", "prints"))]
)
def test_code_of_the_users_own_costs_no_output(workplace: Path, way: str) -> None:
    (workplace / "streams.py").write_text(STREAMS)
    done = tiny.run_hwnas(workplace, "profile", f"streams:{way}", "--device=modelled.toml", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["model"] == f"streams:{way}"
    assert "Traceback" not in done.stderr


def test_another_program_in_the_place_of_this_one_is_refused(workplace: Path) -> None:
    (workplace / "streams.py").write_text(STREAMS)
    done = tiny.run_hwnas(workplace, "profile", "streams:executes", "--device=modelled.toml")
    assert done.returncode == 2
    assert "streams:executes ends the process instead of returning: os.exec" in done.stderr


def test_an_older_revision_that_ends_the_process_is_told(hwnas: Hwnas, rude: Path) -> None:
    for command in (["init", "-q"], ["add", "rude.py", "tinynet.py"], ["commit", "-q", "-m", "x"]):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *command], check=True)
    (rude / "rude.py").write_text("from tinynet import make as building_leaves\n")
    options = ("--baseline", "HEAD", "--device", "cpu-1")
    refused(hwnas("check", "run", "rude:building_leaves", *options), "os._exit(7), in rude.py")


def test_a_plugin_that_ends_the_process_is_a_broken_one(
    hwnas: Hwnas, rude: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = EntryPoints([EntryPoint("rude", "rude:importing_leaves", "hwnas.devices")])
    monkeypatch.setattr("hwnas.plugins.entry_points", lambda group: entries.select(group=group))
    assert "os._exit(7), in rude.py" in registry.broken_devices()["rude"]
    (rude / "plugin.toml").write_text('name = "plugin"\ndevice = "rude"\ndescription = "a plugin"\n')
    refused(hwnas("profile", "tinynet:make", "--device", "plugin.toml"), "os._exit(7)")


def test_processes_of_the_users_own_may_end_as_they_like(hwnas: Hwnas, rude: Path) -> None:
    done = hwnas("profile", "rude:forward_forks", "--device", "modelled.toml")
    assert done.code == 0


def test_what_is_contained_is_given_back(rude: Path) -> None:
    from hwnas.networks.user_code import call_function

    before = (os._exit, os.abort, signal.getsignal(signal.SIGALRM))
    with pytest.raises(InputError):
        call_function("rude:building_leaves", "")
    assert (os._exit, os.abort, signal.getsignal(signal.SIGALRM)) == before


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (KeyError("x"), "unexpected failure: KeyError: 'x', in tests/cli/test_endings.py"),
        (RecursionError("too deep"), "unexpected failure: RecursionError: too deep"),
        (UnicodeEncodeError("ascii", "ö", 0, 1, "no"), "UnicodeEncodeError"),
        (StopIteration(), "unexpected failure: StopIteration"),
        (typer.Exit(0), "unexpected failure: Exit"),
        (typer.Exit(1), "unexpected failure: Exit"),
        (BrokenPipeError(32, "Broken pipe"), "the operating system refuses"),
        (OSError(28, "No space left on device", "/x"), "No space left on device: '/x'"),
        (SystemExit(0), "SystemExit: 0"),
        (GeneratorExit(), "GeneratorExit"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
@pytest.mark.parametrize(
    "command", [("devices",), ("check", "run", "x", "--baseline", "y", "--device", "cpu")]
)
def test_whatever_is_raised_is_no_verdict(
    hwnas: Hwnas,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    error: BaseException,
    told: str,
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.chdir(Path(__file__).parents[2])
    monkeypatch.setattr("hwnas.profiles.catalogue.profile_names", fails)
    monkeypatch.setattr("hwnas.profiles.gate.entries.find_entries", fails)
    refused(hwnas(*command), told)


def test_the_traceback_is_shown_to_whom_asks_for_it(
    hwnas: Hwnas, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HWNAS_TRACEBACK", "1")
    done = hwnas("profile", "absent.onnx", "--device", "cpu")
    assert done.code == 2
    assert "Traceback" in done.err
    assert "read_bytes" in done.err


def shell(folder: Path, line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line of bash in which `$H` is hwnas; its exit code is that of the first command that fails."""
    command = ["bash", "-o", "pipefail", "-c", line]
    return tiny.run_command(folder, command, H=f"{sys.executable} -m hwnas", **environment)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("$H devices | true", 2),
        ("$H devices --json | true", 2),
        ("$H --help | true", 2),
        ("$H --version | true", 2),
        ("$H devices >&-", 2),
        ("$H devices > /dev/full", 2),
        ("$H devices 2>&1 | true", 2),
        ("$H profile absent.onnx --device cpu 2>&1 | true", 2),
        ("$H check 2>&1 | true", 2),
        ("$H devices | head -1", 0),
        ("$H devices --json | head -1", 0),
        ("$H devices 2>&-", 0),
        ("$H devices 2> /dev/full", 0),
        ("$H devices <&-", 0),
        ("$H devices 2> >(true)", 0),
    ],
)
def test_an_output_that_arrives_nowhere_is_no_verdict(workplace: Path, line: str, code: int) -> None:
    done = shell(workplace, line)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "cp1252"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_an_encoding_without_our_characters_loses_no_result(
    workplace: Path, environment: dict[str, str]
) -> None:
    line = "$H devices && $H space --help && $H report ö"
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=workplace,
        env=tiny.places(workplace) | {"H": f"{sys.executable} -m hwnas"} | environment,
        capture_output=True,
    )
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert b"sim-tpu-like" in done.stdout
    assert b"Example" in done.stdout
    assert b"  fix: " in done.stderr


def test_a_hangup_ends_in_order(hwnas: Hwnas, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hung_up() -> None:
        os.kill(os.getpid(), signal.SIGHUP)

    monkeypatch.setattr("hwnas.profiles.catalogue.profile_names", hung_up)
    assert hwnas("devices").code == 128 + signal.SIGHUP

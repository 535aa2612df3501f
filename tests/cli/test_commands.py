"""The command line: in this process where the text matters, in fresh ones where the process does."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch
import typer
from command_line import Hwnas, OnTerminal, refused
from safetensors.torch import save_file
from workplace import tinynet

from hwnas import __version__
from hwnas.cli.main import app
from hwnas.devices.doctor import reach
from hwnas.devices.lock import DeviceLock
from hwnas.network import Network
from hwnas.profiles.catalogue import load_profile

COMMANDS = (
    "compress",
    "batch",
    "profile",
    "devices",
    "doctor",
    "report",
    "status",
    "space",
    "partition",
    "check record",
    "check run",
    "compare",
    "history show",
    "history export",
    "history import",
)


ODD = """
import sys

import torch
from torch import nn
from workplace import tinynet


def silent():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten())


def grey():
    return nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Flatten())


def bare():
    return nn.Identity()


def compiled():
    made = torch.jit.trace(tinynet.make().eval(), torch.zeros(1, 3, 32, 32))
    made.input_shape = (3, 32, 32)
    return made


def leaving():
    sys.exit(3)
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_shows_an_example(hwnas: Hwnas, command: str) -> None:
    done = hwnas(*command.split(), "--help")
    assert done.code == 0
    assert "Example" in done.out
    assert f"hwnas {command}" in done.out.split("Example", 1)[1]
    assert "--json" in done.out


def test_the_help_names_every_command(hwnas: Hwnas) -> None:
    done = hwnas("--help")
    assert done.code == 0
    assert all(command.split()[0] in done.out for command in COMMANDS)
    assert "hwnas compress" in done.out.split("Example", 1)[1]


def test_the_example_of_the_help_stands_in_one_line_of_a_terminal() -> None:
    (line,) = (line for line in OnTerminal("--help").out.splitlines() if "hwnas compress eff" in line)
    assert line.strip() == "hwnas compress efficientnet_b0 --device cpu --data digits --preset quick"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("hwnas comp", {"compress", "compare"}),
        ("hwnas check ", {"record", "run"}),
        ("hwnas compress --dev", {"--device", "--device-option"}),
    ],
)
def test_the_shell_completes_commands_and_options(
    hwnas: Hwnas, monkeypatch: pytest.MonkeyPatch, words: str, found: set[str]
) -> None:
    monkeypatch.setenv("_HWNAS_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    assert set(hwnas().out.split()) == found


def test_the_version(hwnas: Hwnas) -> None:
    assert hwnas("--version").out.strip() == __version__


def test_no_arguments_show_what_to_do_first(hwnas: Hwnas) -> None:
    """Four commands that can be given as they stand there."""
    done = hwnas()
    assert done.code == 0
    first = [line.split() for line in done.out.splitlines() if line.startswith("  hwnas")]
    assert len(first) == 4
    known = typer.main.get_command(app)
    assert isinstance(known, typer.core.TyperGroup)
    for _, name, *arguments in first:
        assert known.commands[name].make_context(name, arguments).params


def test_the_doctor_says_what_is_here(hwnas: Hwnas, workplace: Path) -> None:
    folder = workplace / "config" / "devices"
    folder.mkdir(parents=True)
    for name, needs in (("there", ""), ("far", "phone")):
        (folder / f"{name}.toml").write_text(
            f'name = "{name}"\ndevice = "fickle"\ndescription = "x"\n[options]\nneeds = "{needs}"\n'
        )
    (folder / "broken.toml").write_text('name = "broken"\ndevice = "nothing"\ndescription = "x"\n')
    done = hwnas("doctor", "--json")
    assert done.code == 0
    found = {each["device"]: each for each in json.loads(done.out)}
    assert set(found) >= {device["name"] for device in json.loads(hwnas("devices", "--json").out)}
    assert found["cpu"]["is_here"] and found["cpu"]["kind"] == "measured" and not found["cpu"]["fix"]
    assert found["there"]["is_here"]
    assert (found["far"]["is_here"], found["far"]["text"]) == (False, "there is no phone")
    assert "plug" in found["far"]["fix"]
    assert not found["broken"]["is_here"] and "no device class" in found["broken"]["text"]
    text = hwnas("doctor").out
    here = sum(each["is_here"] for each in found.values())
    assert text.startswith(f"{here} of {len(found)} devices")
    assert text.count("\nfor far:\n  plug the phone in\n") == 1


def test_a_device_that_another_process_uses_is_here(workplace: Path) -> None:
    profile = load_profile("steady.toml")
    assert reach(profile).text == "steady"
    lock = DeviceLock("steady steady")
    lock.acquire()
    try:
        found = reach(profile)
    finally:
        lock.release()
    assert (found.is_here, found.fix) == (True, "")
    assert "is in use by pid" in found.text


def test_a_compression_without_a_device_names_those_that_are_here(hwnas: Hwnas, workplace: Path) -> None:
    done = hwnas("compress", "tinynet:make")
    refused(done, "no device is given; here are cpu,", "hwnas compress tinynet:make --device cpu")
    assert "sim-npu" in done.err
    assert "qnn-htp-simulator" not in done.err  # no search takes what it says


def test_a_dry_run_says_how_long_measuring_takes(hwnas: Hwnas, workplace: Path) -> None:
    single = [part for part in tiny.compress_arguments("run") if not part.startswith("--device=")]
    devices = ("--device=cpu", "--device=sim-npu", "--filter=none", "--protocol=search", "--dry-run")
    measured, modelled = json.loads(hwnas(*single, *devices, "--json").out)["devices"]
    networks, others = measured["networks"] + measured["elsewhere"], measured["checkpoints"]
    assert measured["measuring_s"] == networks * (0.5 + 3 * 1.0) + others * 6 * (0.1 + 0.3)
    assert modelled["measuring_s"] is None
    told = hwnas(*single, *devices).out.splitlines()[-2:]
    assert f"at least {measured['measuring_s'] / 60:.0f} min of measuring" in told[0]
    assert "min" not in told[1]
    assert not (workplace / "run").exists()


def test_devices(hwnas: Hwnas, workplace: Path) -> None:
    text = hwnas("devices")
    assert text.code == 0
    assert "cpu" in text.out
    found = {device["name"]: device for device in json.loads(hwnas("devices", "--json").out)}
    assert found["cpu"]["kind"] == "measured"
    assert found["cpu"]["error"] == ""
    assert found["cpu-int8"]["profile"]["precision"] == "int8"


def test_a_profile_of_ones_own_and_a_broken_one_are_listed(hwnas: Hwnas, workplace: Path) -> None:
    folder = workplace / "config" / "devices"
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text(
        'name = "mine"\ndevice = "modelled"\ndescription = "with [/markup] in it"\n'
    )
    (folder / "broken.toml").write_text('name = "broken"\ndevice = "[/nothing]"\ndescription = "x"\n')
    done = hwnas("devices")
    assert done.code == 0
    assert "with [/markup] in it" in done.out
    assert "[/nothing]" in done.out
    found = {device["name"]: device for device in json.loads(hwnas("devices", "--json").out)}
    assert found["mine"]["kind"] == "modelled"
    assert "no device class" in found["broken"]["error"]


def test_the_space_of_b0(hwnas: Hwnas) -> None:
    done = hwnas("space", "efficientnet_b0", "--image-size", "32", "--json")
    found = json.loads(done.out)
    assert found["candidates"] == 135 + 3 + 1
    assert found["architectures"] == 4 * 28**5 * 2
    names = ["blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4", "blocks.6"]
    assert found["regions"] == [[list(ends)] for ends in itertools.pairwise(names)]
    for block in found["parts"][1:-1]:
        assert len(block["candidates"]) == 27
        assert all(c["macs"] < block["macs"] and c["params"] < block["params"] for c in block["candidates"])


def test_families_that_do_not_fit_a_block_are_told_with_the_reason(hwnas: Hwnas, workplace: Path) -> None:
    found = json.loads(hwnas("space", "tinynet:make", "--space", "restoration", "--json").out)
    dropped = {(each["part"], each["family"]): each["reason"] for each in found["dropped"]}
    blocks = range(1, len(found["parts"]) - 1)
    assert all("whole factor" in dropped[block, "upsample"] for block in blocks)
    done = hwnas("space", "tinynet:make", "--space", "restoration")
    for block in blocks:
        assert f"{found['parts'][block]['name']} has no upsample: {dropped[block, 'upsample']}" in done.out
    assert json.loads(hwnas("space", "tinynet:make", "--json").out)["dropped"] == []


def test_the_space_as_a_table(hwnas: Hwnas, workplace: Path) -> None:
    found = json.loads(hwnas("space", "tinynet:make", "--candidates", "4", "--json").out)
    done = hwnas("space", "tinynet:make", "--candidates", "4")
    assert done.code == 0
    for block in found["parts"][1:-1]:
        assert len(block["candidates"]) == 4
        for candidate in block["candidates"]:
            (line,) = (
                text
                for text in done.out.splitlines()
                if f" {candidate['name']} " in text and text.startswith(f"{block['name']} ")
            )
            assert f"{candidate['macs']:,}" in line
            assert f"{candidate['params']:,}" in line
    assert "8 candidates of blocks (compression), 0 variants of stem and head, 25 architectures" in done.out
    by_hand = json.loads(hwnas("space", "tinynet:make", "--cut", "stem, stages.1", "--json").out)
    assert len(by_hand["parts"]) == 3


def test_networks_of_every_kind_are_profiled_in_one_session(hwnas: Hwnas, workplace: Path) -> None:
    (workplace / "file.onnx").write_bytes(
        Network.from_module("seeded", tinynet.seeded(), (1, 3, 32, 32)).onnx()
    )
    names = ["file.onnx", "tinynet:seeded", "tinynet:seven", "mobilenetv3_small_050"]
    done = hwnas("profile", *names, "--device", "modelled.toml", "--json")
    assert done.code == 0, done.err
    rows = json.loads(done.out)
    assert [row["model"] for row in rows] == names
    latencies = {row["model"]: row["summary"]["latency_ms"]["value"] for row in rows}
    assert latencies["file.onnx"] == latencies["tinynet:seeded"] != latencies["tinynet:seven"]
    assert latencies["mobilenetv3_small_050"] > 50 * latencies["file.onnx"]
    table = hwnas("profile", *names, "--device", "modelled.toml")
    assert all(name in table.out for name in names)
    assert f"{latencies['tinynet:seven']:.3f}" in table.out
    history = workplace / "home" / "history.db"
    assert history.is_file()


def test_a_network_is_measured_on_this_machine(hwnas: Hwnas, workplace: Path) -> None:
    done = hwnas("profile", "tinynet:make", "--device", "cpu", "--protocol", "quick", "--json")
    (row,) = json.loads(done.out)
    assert row["measurement"]["kind"] == "measured"
    assert 0 < row["summary"]["latency_ms"]["value"] < 1000
    assert sum(len(repeat) for repeat in row["measurement"]["repeats_ms"]) >= 30


def test_a_network_that_the_device_refuses_is_told_beside_the_others(hwnas: Hwnas, workplace: Path) -> None:
    sizes = {}
    for name in ("make", "seven", "seeded"):
        sizes[name] = len(Network.from_module(name, getattr(tinynet, name)(), (1, 3, 32, 32)).onnx())
    refuses = sizes["seven"] % 5
    taken = next(name for name in ("make", "seeded") if sizes[name] % 5 != refuses)
    (workplace / "other.toml").write_text(
        f'name = "other"\ndevice = "modelled"\ndescription = "x"\n[options]\nrefuses = {refuses}\n'
    )
    done = hwnas("profile", "tinynet:seven", f"tinynet:{taken}", "--device", "other.toml", "--json")
    assert done.code == 2
    assert "1 of 2 networks could not be measured: it does not like the size" in done.err
    bad, good = json.loads(done.out)
    assert "does not like" in bad["failure"]["reason"]
    assert good["summary"]["latency_ms"]["value"] > 0


@pytest.mark.parametrize(
    ("arguments", "cause", "fix"),
    [
        (
            ("profile", "efficientnetb0", "--device", "cpu"),
            "unknown model 'efficientnetb0'",
            "efficientnet_b0",
        ),
        (("profile", "tinynet:none", "--device", "cpu"), "has no attribute 'none'", "tinynet"),
        (("profile", "absent.onnx", "--device", "cpu"), "cannot read absent.onnx", "path"),
        (("profile", "corrupt.onnx", "--device", "cpu"), "corrupt.onnx is not a usable ONNX model", ""),
        (("profile", "tinynet:make", "--device", "cpuu"), "no device profile 'cpuu'", "hwnas devices"),
        (("profile", "tinynet:make", "--device", "cpu", "--protocol", "x"), "no protocol 'x'", "quick"),
        (("profile", "tinynet:make", "--device", "absent.toml"), "absent.toml", ""),
        (("space", "efficientnetb0"), "unknown model", "efficientnet_b0"),
        (("space", "tinynet:make", "--cut", "stem,stagess.0"), "no module 'stagess.0'", "stages.0"),
        (
            ("space", "tinynet:make", "--cut", "stem,stages.0.1.body"),
            "gives more than that",
            "where the two join",
        ),
        (("space", "tinynet:make", "--cut", ",stem"), "has no module ''", "choose another"),
        (("space", "tinynet:make", "--cut", "stages.1,stages.0"), "does not come after", "order"),
        (("space", "tinynet:make", "--image-size", "1"), "cannot take images of shape (3, 1, 1)", ""),
        (("partition", "odd:silent"), "does not say what it takes", "--image-size N"),
        (("partition", "odd:leaving"), "ends the process instead of returning: SystemExit: 3", "sys.exit()"),
        (("partition", "odd:compiled"), "the network is a ScriptModule", "nn.Module itself"),
        (("partition", "odd:grey", "--image-size", "8"), "to have 1 channels", "x.mean(1, keepdim=True)"),
        (
            ("partition", "odd:bare", "--image-size", "8"),
            " can be replaced: between its first layer",
            "hwnas partition",
        ),
        (("space", "no_module:make"), "No module named 'no_module'", ""),
    ],
)
def test_mistakes_are_told(
    hwnas: Hwnas, workplace: Path, arguments: tuple[str, ...], cause: str, fix: str
) -> None:
    (workplace / "corrupt.onnx").write_bytes(b"nonsense")
    (workplace / "odd.py").write_text(ODD)
    refused(hwnas(*arguments), cause, fix)


def test_a_size_makes_up_for_a_function_that_tells_none(hwnas: Hwnas, workplace: Path) -> None:
    (workplace / "odd.py").write_text(ODD)
    plain = json.loads(hwnas("partition", "odd:silent", "--image-size", "8", "--json").out)
    assert plain["input_shape"] == [3, 8, 8]
    assert plain["regions"] == [[["0", "1"]]]


def test_data_whose_function_ends_the_process_are_told(hwnas: Hwnas, workplace: Path) -> None:
    (workplace / "odd.py").write_text(ODD)
    arguments = tiny.compress_arguments("runs/a", data="odd:leaving")
    refused(hwnas(*arguments), "odd:leaving ends the process", "sys.exit()")


def test_a_compression_of_a_compiled_network_is_refused(hwnas: Hwnas, workplace: Path) -> None:
    (workplace / "odd.py").write_text(ODD)
    command, _, *options = tiny.compress_arguments("runs/a", weights="given")
    refused(hwnas(command, "odd:compiled", *options), "the network is a ScriptModule", "nn.Module itself")
    assert not (workplace / "runs/a").exists()


@pytest.mark.parametrize(
    ("given", "cause", "fix"),
    [
        ({"device": "cpuu"}, "no device profile 'cpuu'", "hwnas devices"),
        ({"device": "functional.toml"}, "those of functional are functional", "another device"),
        ({"data": "digit"}, "unknown data 'digit'", "did you mean digits"),
        ({"preset": "quik"}, "unknown preset 'quik'", "did you mean quick"),
        ({"pick": "fastest"}, "unknown pick 'fastest'", "--pick knee"),
        ({"speedup": "-2"}, "unknown pick", "positive"),
        ({"latency_ms": "0"}, "unknown pick", "positive"),
        ({"latency_ms": "3", "objective": "macs"}, "needs the objective latency", "--speedup"),
        ({"protocol": "quik"}, "no protocol 'quik'", "quick"),
        ({"cut": "stem,stages.9"}, "no module 'stages.9'", "stages.1"),
        ({"cut": "stem"}, "1 cut given", "--cut NAME,NAME"),
        ({"weights": "corrupt.safetensors"}, "cannot read weights from corrupt.safetensors", "safetensors"),
        ({"weights": "absent.safetensors"}, "no weights file absent.safetensors", "path"),
        ({"weights": "seven.safetensors"}, "(7, 16) instead of (10, 16)", "classes"),
        ({"weights": "pretrained"}, "is not a timm model", "--weights FILE"),
        ({"out": "."}, "not empty and not a run directory", "--out"),
        ({"out": "killer.py"}, "killer.py", "--out"),
    ],
)
def test_mistakes_of_a_compression_are_told_and_nothing_is_begun(
    hwnas: Hwnas, workplace: Path, given: dict[str, object], cause: str, fix: str
) -> None:
    options = dict(given)
    (workplace / "corrupt.safetensors").write_bytes(b"nonsense")
    save_file(tinynet.seven().state_dict(), workplace / "seven.safetensors")
    before = sorted(path.name for path in workplace.iterdir())
    refused(hwnas(*tiny.compress_arguments(str(options.pop("out", "out")), "--json", **options)), cause, fix)
    assert [name for name in before if not (workplace / name).exists()] == []
    assert not (workplace / "out").exists()


def test_a_search_measures_by_the_protocol_of_its_profile(hwnas: Hwnas, workplace: Path) -> None:
    text = 'name = "own"\ndevice = "modelled"\ndescription = "x"\nprotocol = "'
    (workplace / "own.toml").write_text(f'{text}nosuch"\n')
    arguments = tiny.compress_arguments("out", "--dry-run", device="own.toml")
    refused(hwnas(*arguments), "there is no protocol 'nosuch'")
    assert hwnas(*arguments, "--protocol", "quick").code == 0
    (workplace / "own.toml").write_text(f'{text}search"\n')
    assert hwnas(*arguments).code == 0


@pytest.mark.parametrize(
    "options",
    [
        {"seed": -1},
        {"seed": 2**40},
        {"epochs": 0},
        {"batch_size": 1},
        {"loss": "l1"},
        {"objective": "beauty"},
        {"population": 1},
        {"threads": -1},
        {"train_on": "tpu"},
    ],
)
def test_options_out_of_range_are_told(hwnas: Hwnas, workplace: Path, options: dict[str, object]) -> None:
    done = hwnas(*tiny.compress_arguments("out", **options))
    assert done.code == 2
    assert done.out == ""
    assert f"--{next(iter(options)).replace('_', '-')}" in done.err
    assert "Traceback" not in done.err
    assert not (workplace / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to train on")
def test_training_on_a_gpu_that_is_not_there_is_refused(hwnas: Hwnas, workplace: Path) -> None:
    done = hwnas(*tiny.compress_arguments("out", train_on="cuda"))
    refused(done, "nothing can be trained on cuda", "--train-on cpu")
    assert not (workplace / "out").exists()


def test_a_whole_compression_and_what_comes_after_it(
    hwnas: Hwnas, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = hwnas(*tiny.compress_arguments("out", "--json", steps=1, train_epochs=1, finetune_epochs=1))
    assert done.code == 0, done.err
    result = tiny.of_one_device(json.loads(done.out))
    assert "train reference: 1/1" in done.err
    monkeypatch.setattr(
        "hwnas.compress.training.placement.find_place", lambda: "cuda"
    )  # the run stays where it was begun
    text = hwnas(*tiny.compress_arguments("out", steps=1, train_epochs=1, finetune_epochs=1))
    assert "out/checkpoints/steady-knee" in text.out
    assert "← knee" in text.out
    for row in result["front"]["front"]:
        assert "-".join(map(str, row["choices"])) in text.out
    other = hwnas(*tiny.compress_arguments("out", "--json", steps=2, train_epochs=1, finetune_epochs=1))
    refused(other, "was made with steps = 1, now it is 2", "--out")
    measured = hwnas(
        "profile", "out/checkpoints/steady-knee", "out/reference", "--device", "steady.toml", "--json"
    )
    latencies = [row["summary"]["latency_ms"]["value"] for row in json.loads(measured.out)]
    assert latencies == [
        pytest.approx(result["checkpoints"][0][key]["value"], rel=0.02)
        for key in ("latency_ms", "latency_reference_ms")
    ]
    damaged = workplace / "damaged"
    shutil.copytree(workplace / "out/checkpoints/steady-knee", damaged)
    (damaged / "model.onnx").write_bytes(b"nonsense")
    refused(
        hwnas("profile", "damaged", "--device", "cpu"),
        "damaged/model.onnx is damaged: it is not the file",
    )
    (damaged / "architecture.json").write_text('{"schema": "hwnas.architecture/1", "cuts": 3}')
    refused(hwnas("space", "damaged"), "is damaged: it is not the file that was written")


@pytest.mark.slow
def test_without_a_network_the_hub_is_told_at_once(workplace: Path) -> None:
    options = tiny.compress_arguments("out", weights="pretrained")
    options[1] = "mobilenetv3_small_050"
    done = tiny.run_hwnas(workplace, *options, HF_HOME=str(workplace / "hub"))
    assert done.returncode == 2
    assert "error: cannot get the pretrained weights of mobilenetv3_small_050" in done.stderr
    assert "fix: give a file: --weights FILE" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (workplace / "out").exists()


@pytest.mark.slow
def test_an_interrupt_ends_with_130_and_the_same_command_goes_on(workplace: Path) -> None:
    arguments = tiny.compress_arguments("out", "--json", finetune_epochs=1)
    done = tiny.run_python(workplace, ["killer.py", "distill", "2", *arguments], KILLER_SIGNAL="2")
    assert done.returncode == 130
    assert done.stdout == ""
    assert "the same command goes on" in done.stderr
    assert "Traceback" not in done.stderr
    again = tiny.run_hwnas(workplace, *arguments)
    assert again.returncode == 0, again.stderr
    assert "train reference" not in again.stderr
    json.loads(again.stdout)


@pytest.mark.slow
def test_a_full_disk_is_told(workplace: Path) -> None:
    code = """
import resource, sys
from hwnas.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
sys.argv = ["hwnas", *sys.argv[1:]]
main()
"""
    done = tiny.run_python(workplace, ["-c", code, *tiny.compress_arguments("out")])
    assert done.returncode == 2, done.stderr
    assert "error: cannot write " in done.stderr
    assert "File too large" in done.stderr
    assert "free space" in done.stderr
    assert "Traceback" not in done.stderr
    assert tiny.run_hwnas(workplace, *tiny.compress_arguments("out")).returncode == 0


@pytest.mark.slow
def test_a_simulated_schedule_is_explained(workplace: Path) -> None:
    arguments = ["profile", "tinynet:make", "--device", "sim-npu", "--explain"]
    shown = tiny.run_hwnas(workplace, *arguments)
    assert shown.returncode == 0, shown.stderr
    for expected in ("chosen", "layer-by-layer", "single-layer", "DRAM", "[1]"):
        assert expected in shown.stdout
    (row,) = json.loads(tiny.run_hwnas(workplace, *arguments, "--json").stdout)
    schedules = row["schedules"]
    assert schedules["chosen"]["latency_ms"] == pytest.approx(row["summary"]["latency_ms"]["value"])
    assert schedules["chosen"]["latency_ms"] <= schedules["single-layer"]["latency_ms"]
    forced = tiny.run_hwnas(workplace, *arguments[:-1], "--device-option", "mode=single-layer", "--json")
    (row,) = json.loads(forced.stdout)
    assert row["summary"]["latency_ms"]["value"] == pytest.approx(schedules["single-layer"]["latency_ms"])


def test_only_a_simulated_device_explains(workplace: Path) -> None:
    refused = tiny.run_hwnas(workplace, "profile", "tinynet:make", "--device", "cpu", "--explain")
    assert refused.returncode == 2
    assert "--explain needs a simulated device" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.slow
@pytest.mark.parametrize("model", ["tinynet:make", "net.onnx"])
def test_int8_is_profiled_without_data(workplace: Path, model: str) -> None:
    (workplace / "net.onnx").write_bytes(Network.from_module("net", tinynet.seeded(), (1, 3, 32, 32)).onnx())
    done = tiny.run_hwnas(
        workplace, "profile", model, "--device", "cpu-int8", "--protocol", "quick", "--json"
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert row["measurement"]["fingerprint"]["precision"] == "int8"
    operators = row["measurement"]["placement"]["CPUExecutionProvider"]
    assert any(name.startswith(("QLinear", "Quantize")) for name in operators)


def test_a_report_of_what_is_no_run(hwnas: Hwnas, tmp_path: Path) -> None:
    refused(hwnas("report", str(tmp_path)), "is not a run directory", "hwnas compress --out")


def test_a_report_without_plotly(hwnas: Hwnas, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hwnas(*tiny.compress_arguments("run")).code == 0
    done = hwnas("report", "run", "--json")
    assert json.loads(done.out) == {
        "schema": "hwnas.report/1",
        "run": "run",
        "reports": ["run/devices/steady/report.html"],
    }
    monkeypatch.setattr("hwnas.compress.report.is_available", lambda: False)
    refused(hwnas("report", "run"), "plotly", "pip install 'hwnas[report]'")

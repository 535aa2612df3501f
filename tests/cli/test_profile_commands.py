"""`hwnas profile`, `history` and `compare` as a user gives them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from command_line import Hwnas, refused

from hwnas.network import Network

MODELLED = ("--device", "modelled.toml")


def test_every_form(hwnas: Hwnas, workplace: Path) -> None:
    models = ("tinynet:make", "tinynet:seven")
    rows = list(csv.DictReader(io.StringIO(hwnas("profile", *models, *MODELLED, "--format", "csv").out)))
    plain = json.loads(hwnas("profile", *models, *MODELLED, "--format", "json").out)
    assert [row["network"] for row in rows] == [row["model"] for row in plain] == list(models)
    assert [float(row["latency_ms"]) for row in rows] == [
        row["summary"]["latency_ms"]["value"] for row in plain
    ]
    markdown = hwnas("profile", *models, *MODELLED, "--format", "markdown").out
    assert markdown.count("\n") == 4
    table = hwnas("profile", *models, *MODELLED).out
    assert all(f"{float(row['latency_ms']):.3f}" in text for row in rows for text in (markdown, table))


def test_a_network_that_holds_what_the_profile_forbids_is_refused(hwnas: Hwnas, workplace: Path) -> None:
    for name, operator in (("strict", "Conv"), ("other", "Gelu"), ("typo", "Konv")):
        (workplace / f"{name}.toml").write_text(
            f'name = "{name}"\ndevice = "modelled"\ndescription = "x"\nforbidden_operators = ["{operator}"]\n'
        )
    arguments = ("profile", "tinynet:make", "--json", "--device")
    refused(hwnas(*arguments, "strict.toml"), "strict forbids Conv, which tinynet:make holds", "strike them")
    refused(hwnas(*arguments, "typo.toml"), "ONNX has no operator 'Konv'", "Conv")
    assert hwnas(*arguments, "other.toml").code == 0


def test_several_devices_in_one_command(hwnas: Hwnas, workplace: Path) -> None:
    rows = json.loads(hwnas("profile", "tinynet:make", *MODELLED, "--device", "steady.toml", "--json").out)
    assert [row["measurement"]["device_name"] for row in rows] == ["modelled", "steady"]
    assert [row["device"] for row in rows] == ["modelled", "steady"]
    table = hwnas("profile", "tinynet:make", *MODELLED, "--device", "steady.toml", "--format", "markdown").out
    assert [line.split(" | ")[1] for line in table.splitlines()[2:]] == ["modelled", "steady"]


@pytest.mark.slow
def test_a_report_operators_and_blocks_of_a_real_network(hwnas: Hwnas, workplace: Path) -> None:
    options = ("--device", "cpu", "--max-seconds", "1", "--operators", "--blocks", "--html", "r.html")
    done = hwnas("profile", "tinynet:make", *options, "--json")
    assert done.code == 0, done.err
    (row,) = json.loads(done.out)
    assert row["summary"]["peak_memory_bytes"] > 10 * 2**20
    assert {layer["operator"] for layer in row["layers"]} >= {"Conv"}
    blocks = row["blocks"]
    assert list(blocks["blocks_ms"]) == ["stem", "block1", "block2", "head"]
    assert blocks["error"] == pytest.approx(sum(blocks["blocks_ms"].values()) / blocks["whole_ms"] - 1)
    page = (workplace / "r.html").read_text()
    assert "<html" in page[:100]
    assert "tinynet:make: each part alone" in page
    shown = hwnas("profile", "tinynet:make", *options)
    assert "the sum of the parts is" in shown.out
    busy = "other work took" in shown.out  # whether this machine is, is its own affair
    assert busy <= ("cannot be told: disturbed by other work" in shown.out)
    assert "operators, timed one by one" in shown.out
    assert "the time was up" in shown.out or "precise enough" in shown.out


def test_blocks_are_cut_where_one_says(hwnas: Hwnas, workplace: Path) -> None:
    options = ("profile", "tinynet:make", *MODELLED, "--cut", "stem,stages.0")
    (row,) = json.loads(hwnas(*options, "--blocks", "--json").out)
    assert list(row["blocks"]["blocks_ms"]) == ["stem", "block1", "head"]
    refused(hwnas(*options), "--blocks is not given", "add --blocks")
    refused(hwnas(*options[:-1], "nothing,stem", "--blocks"), "no module 'nothing'")


def test_a_name_is_no_emoji(hwnas: Hwnas, workplace: Path) -> None:
    refused(hwnas("profile", "nowhere:a", *MODELLED), "cannot import nowhere:a: No module")


def test_shape_and_batch_change_the_graph(hwnas: Hwnas, workplace: Path) -> None:
    small = ("profile", "tinynet:make", "--device", "cpu", "--protocol", "quick", "--json")
    (row,) = json.loads(hwnas(*small, "--batch", "4", "--input-shape", "3x64x64").out)
    assert row["measurement"]["metrics"]["batch_size"] == 4
    assert row["measurement"]["fingerprint"]["runtime"].endswith("batch 4")
    (plain,) = json.loads(hwnas(*small).out)
    assert row["measurement"]["network_hash"] != plain["measurement"]["network_hash"]


def test_a_shape_makes_up_for_a_function_that_tells_none(hwnas: Hwnas, workplace: Path) -> None:
    Path("silent.py").write_text("from torch import nn\n\n\ndef make():\n    return nn.Conv2d(3, 4, 3)\n")
    refused(hwnas("profile", "silent:make", *MODELLED), "does not say what it takes", "--input-shape")
    (row,) = json.loads(hwnas("profile", "silent:make", *MODELLED, "--input-shape", "3x8x8", "--json").out)
    assert row["summary"]["latency_ms"]["value"] > 0


def test_the_precision_and_the_time_replace_the_protocols(hwnas: Hwnas, workplace: Path) -> None:
    done = hwnas(
        "profile", "tinynet:make", "--device", "cpu", "--protocol", "quick", "--precision", "40%",
        "--max-seconds", "2", "--json",
    )  # fmt: skip
    (row,) = json.loads(done.out)
    protocol = row["measurement"]["protocol"]
    assert (protocol["precision"], protocol["max_seconds"]) == (0.4, 2.0)
    assert row["summary"]["ending"]


def test_the_history_of_a_name(hwnas: Hwnas, workplace: Path) -> None:
    for _ in range(2):
        hwnas("profile", "tinynet:make", *MODELLED)
    hwnas("profile", "tinynet:seven", *MODELLED)
    found = json.loads(hwnas("history", "tinynet:make", "--device", "modelled", "--json").out)
    assert len(found) == 2
    assert found[0]["network_hash"] == found[1]["network_hash"]  # random weights, but the same ones
    shown = hwnas("history", "tinynet:make", "--html", "h.html")
    assert shown.out.count("█") > 40
    assert (workplace / "h.html").is_file()
    assert json.loads(hwnas("history", "export", "x.jsonl", "--json").out)["exported"] == 3
    assert (
        json.loads(hwnas("history", "export", "y.jsonl", "--model", "tinynet:seven", "--json").out)[
            "exported"
        ]
        == 1
    )
    assert "0 measurements added, 3 were there already" in hwnas("history", "import", "x.jsonl").out
    (workplace / "home" / "history.db").unlink()
    counts = json.loads(hwnas("history", "import", "x.jsonl", "--json").out)
    assert counts["added"] + counts["known"] == 3  # two of the same second may be the same in all
    assert counts["added"] >= 2
    (workplace / "profile.json").write_text(hwnas("profile", "tinynet:make", *MODELLED, "--json").out)
    assert json.loads(hwnas("history", "import", "profile.json", "--json").out)["added"] == 0


def test_a_comparison_and_its_place_in_the_history(hwnas: Hwnas, workplace: Path) -> None:
    done = hwnas("compare", "tinynet:make", "tinynet:seven", *MODELLED, "--json")
    result = json.loads(done.out)
    assert result["schema"] == "hwnas.comparison/1"
    assert result["ratio"]["low"] == result["ratio"]["value"] == result["ratio"]["high"] < 1
    assert (
        f"{result['ratio']['value']:.4f}" in hwnas("compare", "tinynet:make", "tinynet:seven", *MODELLED).out
    )
    assert len(json.loads(hwnas("history", "tinynet:seven", "--json").out)) == 2
    short = ("--device", "cpu", "--max-seconds", "1")
    assert "too few for an interval" in hwnas("compare", "tinynet:make", "tinynet:seven", *short).out


@pytest.mark.parametrize(
    ("arguments", "cause", "fix"),
    [
        (("history", "nothing"), "nothing was measured of 'nothing'", "hwnas profile nothing"),
        (("history", "export", "x.jsonl"), "nothing to export", "hwnas profile"),
        (("history", "import", "absent.jsonl"), "cannot read absent.jsonl", ""),
        (("history", "tinynet:make", "--html", "no/h.html"), "no folder no", "mkdir"),
        (("profile", "tinynet:make", *MODELLED, "--html", "no/h.html"), "no folder no", "mkdir"),
        (("profile", "tinynet:make", *MODELLED, "--precision", "2"), "--precision is '2'", "5%"),
        (
            ("profile", "tinynet:make", *MODELLED, "--input-shape", "3x0x4"),
            "--input-shape is '3x0x4'",
            "3x224x224",
        ),
        (
            ("profile", "tinynet:make", *MODELLED, "--input-shape", "5x32x32"),
            "cannot take images of shape (5, 32, 32)",
            "5 channels",
        ),
        (("profile", "net.onnx", *MODELLED, "--input-shape", "3x64x64"), "is fixed to 32", "1x3x32x32"),
        (("profile", "net.onnx", *MODELLED, "--blocks"), "no torch module", "timm name"),
        (("compare", "tinynet:make", "absent.onnx", *MODELLED), "cannot read absent.onnx", ""),
        (("compare", "tinynet:make", "net.onnx", "--device", "functional.toml"), "a comparison needs", ""),
        (("compare", "tinynet:make", "net.onnx", *MODELLED, "--precision", "x"), "--precision is 'x'", ""),
    ],
)
def test_mistakes_are_told(
    hwnas: Hwnas, workplace: Path, arguments: tuple[str, ...], cause: str, fix: str
) -> None:
    from workplace import tinynet

    (workplace / "net.onnx").write_bytes(Network.from_module("net", tinynet.seeded(), (1, 3, 32, 32)).onnx())
    refused(hwnas(*arguments), cause, fix)

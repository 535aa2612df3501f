"""What CI systems read: parsed back by the parsers of others."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest

from hwnas.files import decode
from hwnas.measurement import Fingerprint
from hwnas.profiles.gate import formats
from hwnas.profiles.gate.decision import decide_paired
from hwnas.profiles.gate.report import Checked, Report

EVIL = "a|b<script>\x01%\n::error::x,y:z"
FINGERPRINT = Fingerprint(
    chip="c|h", os_build="none", driver="none", runtime="r", precision="fp32", power_mode="default"
)


def checked(model: str, verdict: str, ratio: float = 0.0) -> Checked:
    return Checked(
        model=model,
        verdict=verdict,  # type: ignore[arg-type]
        how="interleaved",
        reason=f"because of {EVIL}",
        decision=decide_paired([ratio] * 12, 0.05) if verdict != "failed" else None,
        baseline_ms=(10.0,) * 3 if verdict != "failed" else (),
        now_ms=(11.0, 12.0, 13.0) if verdict != "failed" else (),
    )


@pytest.fixture
def report() -> Report:
    verdicts = ("pass", "improvement", "regression", "inconclusive", "failed", "unchanged")
    return Report(
        device="cpu",
        fingerprint=FINGERPRINT,
        baseline="main",
        threshold=0.05,
        networks=tuple(checked(f"{verdict} {EVIL}", verdict) for verdict in verdicts),
    )


def test_junit(report: Report) -> None:
    suite = ElementTree.fromstring(formats.junit(report)).find("testsuite")  # noqa: S314
    assert suite is not None
    assert {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")} == {
        "tests": "6",
        "failures": "1",
        "errors": "1",
        "skipped": "1",
    }
    children = [[child.tag for child in case] for case in suite.iter("testcase")]
    assert children == [["system-out"], ["system-out"], ["failure"], ["skipped"], ["error"], ["system-out"]]
    assert suite.findall("testcase")[2][0].get("message", "").startswith("because of a|b<script>%")


def test_annotations_are_one_line_each_and_cannot_be_forged(report: Report) -> None:
    lines = formats.github_annotations(report).splitlines()
    assert [re.match(r"::(\w+) title=[^:,]*::", line)[1] for line in lines] == [  # type: ignore[index]
        "notice",
        "error",
        "warning",
        "error",
    ]
    assert all("%0A" in line for line in lines)


def test_the_step_summary_has_a_row_each_with_nothing_that_ends_a_cell(report: Report) -> None:
    text = formats.markdown(report)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(report.networks)
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {8}
    assert "<script>" not in text


def test_github_action_benchmark(report: Report) -> None:
    entries = json.loads(json.dumps(formats.action_benchmark(report)))
    assert len(entries) == 5
    for entry in entries:
        assert set(entry) == {"name", "unit", "value", "range", "extra"}
        assert (entry["unit"], entry["value"], entry["range"]) == ("ms", 12.0, "± 1")
        assert all(isinstance(entry[key], str) for key in ("name", "unit", "range", "extra"))


def test_bencher_metric_format_is_in_nanoseconds(report: Report) -> None:
    found = json.loads(json.dumps(formats.bencher(report)))
    assert len(found) == 5
    for measures in found.values():
        assert measures == {"latency": {"value": 12e6, "lower_value": 11e6, "upper_value": 13e6}}


def test_the_json_is_read_back(report: Report) -> None:
    plain = json.loads(json.dumps(report.to_json()))
    assert (plain.pop("schema"), plain.pop("exit_code")) == ("hwnas.check/1", 1)
    assert decode(Report, plain, "test") == report

"""A check's report in the forms that CI systems read."""

from __future__ import annotations

import re
import statistics
from typing import Any
from xml.etree import ElementTree

from hwnas.profiles.gate.report import Checked, Report
from hwnas.profiles.judgement import as_sentence

TITLES = {
    "pass": "pass",
    "improvement": "faster",
    "regression": "SLOWER",
    "inconclusive": "inconclusive",
    "unchanged": "unchanged",
    "failed": "could not run",
}
LEVELS = {"regression": "error", "failed": "error", "inconclusive": "warning", "improvement": "notice"}


def junit(report: Report) -> str:
    """JUnit XML: a regression is a failure, what could not run an error, an inconclusive one is skipped."""
    counted = [checked.verdict for checked in report.networks]
    suite = ElementTree.Element(
        "testsuite",
        name="hwnas check",
        tests=str(len(counted)),
        failures=str(counted.count("regression")),
        errors=str(counted.count("failed")),
        skipped=str(counted.count("inconclusive")),
    )
    kinds = {"regression": "failure", "failed": "error", "inconclusive": "skipped"}
    for checked in report.networks:
        case = ElementTree.SubElement(
            suite, "testcase", classname=f"hwnas.{report.device}", name=_xml_text(checked.model)
        )
        if checked.verdict in kinds:
            ElementTree.SubElement(
                case, kinds[checked.verdict], message=_xml_text(checked.reason), type=checked.verdict
            )
        else:
            ElementTree.SubElement(case, "system-out").text = _xml_text(checked.reason)
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def github_annotations(report: Report) -> str:
    """GitHub's workflow commands, one a line; a pass has none."""
    return "".join(
        f"::{LEVELS[checked.verdict]} title={_escaped(f'hwnas: {checked.model}', ':,')}::"
        f"{_escaped(checked.reason)}\n"
        for checked in report.networks
        if checked.verdict in LEVELS
    )


PLOT_COLUMNS = 41
NAME_COLUMNS = 24


def interval_plot(report: Report) -> str:
    """A line of text for each network that was decided: by how much it is slower, beside the threshold.

    `━` is the interval, `●` the effect, `│` no difference, `┊` the threshold. What lies beyond stands at the
    ends. Empty where nothing was decided.
    """
    decided = [
        (re.sub(r"[^\w./:@+-]", "·", each.model), each.decision)
        for each in report.networks
        if each.decision is not None
    ]
    if not decided:
        return ""
    ends = [abs(end) for _, each in decided for end in (each.low, each.effect, each.high) if end is not None]
    limit = max(2 * report.threshold, min(max(ends), 10 * report.threshold))
    half = PLOT_COLUMNS // 2

    def column(value: float) -> int:
        return round(half + half * max(-1.0, min(1.0, value / limit)))

    width = min(NAME_COLUMNS, max(len(model) for model, _ in decided))
    left, right = f"{-limit:+.1%}", f"{limit:+.1%}"
    lines = [" " * (width + 1) + left + "0".center(PLOT_COLUMNS - len(left) - len(right)) + right]
    for model, each in decided:
        cells = [" "] * PLOT_COLUMNS
        if each.low is not None and each.high is not None:
            first, last = column(each.low), column(each.high)
            cells[first : last + 1] = "━" * (last - first + 1)
        for value, mark in ((0.0, "│"), (report.threshold, "┊")):
            if cells[column(value)] == " ":
                cells[column(value)] = mark
        cells[column(each.effect)] = "●"
        lines.append(f"{model[-width:]:{width}} {''.join(cells).rstrip()}")
    return "\n".join(lines)


def markdown(report: Report) -> str:
    """A table and a plot for GitHub's step summary or a comment."""
    lines = [
        f"### hwnas check on {_cell(report.device)}, threshold {report.threshold:.1%}",
        "",
        "| network | result | baseline ms | now ms | slower by | noise floor | why, and what to do |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for checked in report.networks:
        cells = [checked.model, TITLES[checked.verdict], *figures(checked), checked.reason]
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    plot = interval_plot(report)
    if plot:
        lines += ["", "Slower by, with its interval; `┊` is the threshold:", "", *_indented(plot)]
    return "\n".join(
        [
            *lines,
            *(f"\n{as_sentence(_cell(text))}" for text in report.judgement),
            "",
            f"{_cell(report.fingerprint.chip)}; {_cell(report.fingerprint.runtime)}",
            "",
        ]
    )


def _indented(text: str) -> list[str]:
    """Text as a block of code of Markdown, out of which nothing leads."""
    return [f"    {line}" for line in text.splitlines()]


def figures(checked: Checked) -> list[str]:
    """Baseline ms, now ms, effect with its interval, noise floor; a dash for what is not known."""
    decision = checked.decision
    if decision is None:
        return ["–"] * 4
    interval = ""
    if decision.low is not None and decision.high is not None:
        interval = f" [{100 * decision.low:+.1f}, {100 * decision.high:+.1f}]"
    return [
        f"{statistics.median(checked.baseline_ms):.3f}",
        f"{statistics.median(checked.now_ms):.3f}",
        f"{decision.effect:+.1%}{interval}",
        "–" if decision.noise_floor is None else f"{decision.noise_floor:.1%}",
    ]


def action_benchmark(report: Report) -> list[dict[str, Any]]:
    """What github-action-benchmark reads with `tool: customSmallerIsBetter`: latencies in ms.

    It reads a range only in the form `± number`: here half of that of the repeats.
    """
    return [
        {
            "name": f"{checked.model} on {report.device}",
            "unit": "ms",
            "value": statistics.median(checked.now_ms),
            "range": f"± {(max(checked.now_ms) - min(checked.now_ms)) / 2:.4g}",
            "extra": f"{checked.verdict}: {checked.reason}",
        }
        for checked in report.networks
        if checked.now_ms
    ]


def bencher(report: Report) -> dict[str, Any]:
    """Bencher Metric Format; its measure `latency` is in nanoseconds."""
    return {
        f"{checked.model} on {report.device}": {
            "latency": {
                "value": 1e6 * statistics.median(checked.now_ms),
                "lower_value": 1e6 * min(checked.now_ms),
                "upper_value": 1e6 * max(checked.now_ms),
            }
        }
        for checked in report.networks
        if checked.now_ms
    }


def _escaped(text: str, more: str = "") -> str:
    """Text in a workflow command: `%`, line ends, and in a property `:` and `,` as well."""
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    for character in more:
        text = text.replace(character, f"%{ord(character):02X}")
    return text


def _cell(text: str) -> str:
    """Text in a cell of a Markdown table: no markup, no line ends."""
    for character in "\\|`*_<[]":
        text = text.replace(character, f"\\{character}" if character != "<" else "&lt;")
    return " ".join(text.split())


def _xml_text(text: str) -> str:
    """Text without the control characters that XML 1.0 has no place for."""
    return "".join(character for character in text if character in "\t\n\r" or character >= " ")

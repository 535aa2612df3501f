"""`hwnas explore`: fronts of parts of a library, against all networks that they span."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from shortest_run import LIBRARY, SEARCH
from tiny import run_hwnas, run_job

import hwnas
from hwnas.compress.quality.finetuned import block_metrics, metric_rows
from hwnas.compress.quality.predictor import fit_predictor
from hwnas.compress.report.explore import (
    Condition,
    Line,
    _Space,
    explore,
    parse_line,
)
from hwnas.compress.report.stored import StoredRun, device_folder, read_run
from hwnas.errors import InputError
from hwnas.progress import Progress


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of the tiny network with candidates of several families."""
    folder = tmp_path_factory.mktemp("explored")
    tiny.furnish(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        library = replace(LIBRARY, model="tinynet:make", data="digits")
        run_job(library, SEARCH, folder / "run", "hwnas compress …", Progress(), allow_code=True)
    yield folder / "run"


@pytest.fixture(scope="module")
def stored(run: Path) -> StoredRun:
    return read_run(run, device_folder(run, "sim-npu"))


LINES = ("convnext=family=convnext", "small=macs<40000", "residual or none=family=residual+convolution")


@pytest.mark.parametrize("text", LINES)
def test_a_front_is_that_of_all_networks_of_the_line(text: str, stored: StoredRun) -> None:
    (search, *_) = stored.searches
    line = parse_line(text)
    found = explore(stored, search, [line])
    space = _Space(stored, search)
    for each, asked in zip(found.lines, (Line(name="all"), line), strict=True):
        allowed = [
            [n for n, choice in enumerate(of) if asked.allows(space.properties(part, choice))]
            for part, of in enumerate(space.choices)
        ]
        networks = [
            (
                sum(float(table[n]) for table, n in zip(space.tables, rows, strict=True)),
                sum(float(table[n]) for table, n in zip(space.costs, rows, strict=True)),
            )
            for rows in itertools.product(*allowed)
        ]
        assert each.networks == len(networks)
        best = [
            (loss, cost)
            for loss, cost in set(networks)
            if not any(a <= loss and b <= cost and (a, b) != (loss, cost) for a, b in networks)
        ]
        shown = [(point.loss, point.cost_ratio) for point in each.front]
        assert np.allclose(sorted(shown), sorted(best), atol=1e-9)
        for ratio, loss in zip(found.ratios, each.losses, strict=True):
            within = [value for value, cost in networks if cost <= ratio]
            assert loss == pytest.approx(min(within)) if within else loss is None


def test_a_part_of_the_library_is_no_better_than_the_whole(stored: StoredRun) -> None:
    found = explore(stored, stored.searches[0], [parse_line(text) for text in LINES])
    whole, *others = found.lines
    assert whole.costlier == pytest.approx(0, abs=1e-9)
    for line in others:
        assert line.networks < whole.networks
        assert line.costlier is None or line.costlier >= -1e-9
        for loss, best in zip(line.losses, whole.losses, strict=True):
            assert loss is None or (best is not None and loss >= best - 1e-9)


def test_what_was_measured_lies_near_what_is_predicted(stored: StoredRun) -> None:
    (search, *_) = stored.searches
    space = _Space(stored, search)
    for point in search.measured:
        rows = [of.index(choice) for choice, of in zip(point.choices, space.choices, strict=True)]
        assert point.costs is not None
        predicted = sum(float(table[n]) for table, n in zip(space.costs, rows, strict=True))
        assert predicted == pytest.approx(point.costs[0], rel=0.1)


@given(
    value=st.floats(0, 10).map(lambda x: round(x, 1)),
    limit=st.floats(0, 10).map(lambda x: round(x, 1)),
    comparison=st.sampled_from(["=", "!=", "<", ">", "<=", ">="]),
)
def test_conditions_are_read_as_they_are_written(value: float, limit: float, comparison: str) -> None:
    line = parse_line(f"a name=width{comparison}{limit}")
    expected = {
        "=": value == limit,
        "!=": value != limit,
        "<": value < limit,
        ">": value > limit,
        "<=": value <= limit,
        ">=": value >= limit,
    }[comparison]
    assert line.allows({"own": "no", "width": value}) is expected
    assert line.name == "a name"
    assert not line.allows({"own": "no"})
    assert line.allows({"own": "yes"})


def test_a_predictor_gets_what_it_was_fitted_to(stored: StoredRun) -> None:
    """Whatever the blocks were trained with, that is the noise-to-signal ratio."""
    (search, *_) = stored.searches
    entries = list(stored.entries.values())
    networks = [point.choices for point in search.measured]
    rows = metric_rows(block_metrics(entries), networks)
    predictor = fit_predictor(rows, 0.9 - 0.01 * rows.sum(1))
    front = [replace(row, predicted_accuracy=0.5) for row in search.front.front]
    predicting = replace(search, front=replace(search.front, quality="predictor", front=tuple(front)))
    by_mse = replace(stored, predictor=predictor, settings=replace(stored.settings, loss="mse"))
    found = explore(by_mse, predicting, [])
    for point in found.lines[0].front:
        row = metric_rows(block_metrics(entries), [point.choices])
        assert point.loss == pytest.approx(1 - float(predictor.predict(row)[0]))


def test_stem_and_head_stay_where_no_variant_does(stored: StoredRun) -> None:
    found = explore(stored, stored.searches[0], [parse_line("x=own=no")])
    parts = len(stored.reference.parts)
    for point in found.lines[1].front:
        assert all(point.choices[n] for n in range(1, parts - 1))


def test_conditions_and_alternatives() -> None:
    line = parse_line("x = kernel=3+5, se=false ,own=no")
    assert line.conditions == (
        Condition(name="kernel", comparison="=", values=(3.0, 5.0)),
        Condition(name="se", comparison="=", values=("no",)),
        Condition(name="own", comparison="=", values=("no",)),
    )
    known: dict[str, str | float] = {"own": "no", "kernel": 5.0, "se": "no"}
    assert line.allows(known)
    assert not line.allows({**known, "kernel": 7.0})
    assert not line.allows({**known, "se": "yes"})
    assert not line.allows({"own": "yes"})
    assert not Condition(name="se", comparison="<", values=(1.0,)).holds(known)
    assert parse_line("everything=") == Line(name="everything")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "no line NAME=FILTER"),
        ("k7", "no line NAME=FILTER"),
        ("=kernel=7", "no line NAME=FILTER"),
        ("k7=kernel", "is no condition"),
        ("k7=kernel~7", "is no condition"),
        ("k7=kernel<", "is no condition"),
        ("k7=kernel<3+5", "compares with no single number"),
        ("k7=se<yes", "compares with no single number"),
    ],
)
def test_what_is_no_line_is_told(text: str, cause: str) -> None:
    with pytest.raises(InputError, match=cause) as error:
        parse_line(text)
    assert error.value.fix


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        (["x=colour=red"], "x: no candidate has 'colour'"),
        (["x=own=no,macs<1"], "the line x leaves nothing for block1"),
        (["x=own=no", "x=own=yes"], "two lines are called x"),
        (["all=own=no"], "two lines are called all"),
    ],
)
def test_lines_that_fit_no_library_are_told(lines: list[str], cause: str, stored: StoredRun) -> None:
    with pytest.raises(InputError, match=cause) as error:
        explore(stored, stored.searches[0], [parse_line(text) for text in lines])
    assert error.value.fix


@pytest.mark.slow
def test_the_command(run: Path) -> None:
    done = run_hwnas(run.parent, "explore", "run", "--line", LINES[0], "--json")
    assert done.returncode == 0, done.stderr
    plain = json.loads(done.stdout)
    assert plain["schema"] == "hwnas.exploration/1"
    assert [line["name"] for line in plain["lines"]] == ["all", "convnext"]
    page = (run.parent / plain["page"]).read_text()
    assert "convnext" in page and "plotly" in page
    found, path = hwnas.open_run(run).explore(LINES[0])
    assert [line.losses for line in found.lines] == [tuple(line["losses"]) for line in plain["lines"]]
    assert path == run / "devices" / "sim-npu" / "explore.html"
    shown = run_hwnas(run.parent, "explore", "run", "--line", LINES[0])
    assert "convnext" in shown.stdout and "explore.html" in shown.stdout
    refused = run_hwnas(run.parent, "explore", "run", "--line", "x=colour=red")
    assert refused.returncode == 2
    assert "fix: ask for" in refused.stderr

"""The report of a whole run: what it says, what a browser shows, and what it does with damage."""

from __future__ import annotations

import json
import re
import shutil
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browser import opened
from tiny import compress_arguments, furnish, run_hwnas

from hwnas.compress.emit.model_card import model_card
from hwnas.compress.emit.summary import CheckpointRecord, in_short
from hwnas.compress.report import write_reports
from hwnas.compress.report.plots import checkpoints_plot
from hwnas.compress.report.sections import _sum_error, duration, sections
from hwnas.compress.report.stored import device_folders, read_run
from hwnas.compress.run.directory import RunRecord
from hwnas.errors import HwnasError, InputError, RunDirectoryError
from hwnas.files import write_signed
from hwnas.measurement import Conditions, CpuTimes, Interval
from hwnas.page import Grid, Plot, Section, Table
from hwnas.profiles.statistics import median_interval

STEADY = Path("devices/steady")
SEVERAL = ("--objective=latency", "--objective=macs", "--objective=params")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two searches on one device."""
    place = tmp_path_factory.mktemp("place")
    furnish(place)
    for objectives in ((), SEVERAL):
        done = run_hwnas(place, *compress_arguments("run", *objectives, generations=4))
        assert done.returncode == 0, done.stderr
        *_, file, fast, good, small, _, report = done.stdout.splitlines()
        assert file.endswith("/model.onnx:") and (place / file[:-1]).is_file()
        record = CheckpointRecord.read((place / file).parent)
        assert [line.strip() for line in (fast, good, small)] == list(map(" ".join, in_short(record.summary)))
        assert report == "report with pictures: run/devices/steady/report.html"
    return place / "run"


def test_a_checkpoint_is_told_in_three_lines(finished: Path) -> None:
    folder = min(finished.glob("checkpoints/*"))
    summary = CheckpointRecord.read(folder).summary

    def told(change: Interval | None) -> list[tuple[str, str]]:
        now, before, ratio = (Interval(value=value, low=value, high=value) for value in (0.9, 0.92, 0.4))
        return in_short(
            replace(
                summary,
                accuracy=now,
                accuracy_reference=before,
                accuracy_difference=change,
                latency_ratio=ratio,
                params=500,
                params_reference=2000,
            )
        )

    lost = Interval(value=-0.02, low=-0.03, high=-0.01)
    fast, good, small = told(lost)
    assert fast[0] == "2.5 ×"
    assert fast[1].startswith("as fast as the reference on steady: ")
    assert good == (
        "90.0 %",
        "accuracy in the place of 92.0 %: -2.0 points [-3.0, -1.0] on the same images, more than chance",
    )
    assert small == ("0.25 ×", "as many parameters: 500 in the place of 2,000")
    assert told(replace(lost, high=0.01))[1][1].endswith("which may be chance")
    assert told(None)[1][1] == "agreement with the reference"


def test_quality_is_plotted_against_latency_with_both_intervals(finished: Path) -> None:
    checkpoints = read_run(finished, finished / STEADY).checkpoints
    shown = checkpoints_plot(checkpoints)
    assert shown is not None
    assert [trace["name"] for trace in shown.data] == ["reference", *(each.name for each in checkpoints)]
    for trace, each in zip(shown.data[1:], checkpoints, strict=True):
        quality, latency = each.summary.accuracy, each.summary.latency_ms
        assert quality is not None
        assert (trace["x"], trace["y"]) == ([latency.value], [quality.value * 100])
        assert trace["x"][0] + trace["error_x"]["array"][0] == pytest.approx(latency.high)
        assert trace["y"][0] - trace["error_y"]["arrayminus"][0] == pytest.approx(quality.low * 100)
    unlabelled = [
        replace(each, summary=replace(each.summary, accuracy=None, accuracy_reference=None))
        for each in checkpoints
    ]
    assert checkpoints_plot(unlabelled) is None


def test_bars_are_the_latencies_of_the_parts_that_each_network_has(finished: Path) -> None:
    stored = read_run(finished, finished / STEADY)
    (section,) = [each for each in content(finished) if each.heading == "Where the time goes"]
    (bars,) = [item for item in section.content if isinstance(item, Plot)]
    costs = stored_json(finished, "blocks.json")["parts"]
    networks = [[0] * len(costs), *(each.summary.choices for each in stored.checkpoints)]
    assert [trace["name"] for trace in bars.data] == [part["name"] for part in costs]
    for part, trace in zip(costs, bars.data, strict=True):
        by_choice = {row["choice"]: row["cost"] for row in part["choices"]}
        assert trace["x"] == [by_choice[choices[part["part"]]] for choices in networks]
    assert trace["y"] == ["reference", *(each.name for each in stored.checkpoints)]


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def content(run: Path) -> list[Section]:
    return sections(read_run(run, run / STEADY))


def plots(run: Path) -> list[Plot]:
    items = [item for section in content(run) for item in section.content]
    grids = [plot for item in items if isinstance(item, Grid) for plot in item.plots]
    return [item for item in items if isinstance(item, Plot)] + grids


def table(run: Path, heading: str) -> list[dict[str, str]]:
    (found,) = [section for section in content(run) if section.heading == heading]
    (rows,) = [item for item in found.content if isinstance(item, Table)]
    return [dict(zip(rows.columns, row, strict=True)) for row in rows.rows]


def stored_json(run: Path, name: str) -> Any:
    return json.loads((run / STEADY / name).read_text())


def edit(run: Path, name: str, change: Any) -> None:
    data = stored_json(run, name)
    change(data)
    del data["sha256"]
    write_signed(run / STEADY / name, data)


@pytest.mark.slow
def test_a_browser_shows_the_front_as_it_is_stored(finished: Path) -> None:
    front = stored_json(finished, "front.json")
    row = front["front"][1]
    with opened(finished / STEADY / "report.html") as seen:
        page = seen.page
        marker = page.locator(".plot").nth(2).locator(".scatterlayer .trace").nth(1).locator(".point").nth(1)
        marker.scroll_into_view_if_needed()
        box = marker.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        latency_ms, loss, width, height = page.evaluate(
            """([x, y]) => {
                const place = document.querySelectorAll(".plot")[2], layout = place._fullLayout;
                const box = place.getBoundingClientRect(), {xaxis, yaxis} = layout;
                return [xaxis.p2d(x - box.x - xaxis._offset), yaxis.p2d(y - box.y - yaxis._offset),
                        Math.abs(xaxis.p2d(1) - xaxis.p2d(0)), Math.abs(yaxis.p2d(1) - yaxis.p2d(0))];
            }""",
            [x, y],
        )
        # Read off the plot to within two pixels.
        assert latency_ms == pytest.approx(row["latency_ms"], abs=2 * width)
        assert loss == pytest.approx(row["loss"], abs=2 * height)
        page.mouse.move(x, y)
        page.wait_for_selector(".hoverlayer .hovertext")
        text = page.locator(".hoverlayer .hovertext").first.text_content()
        assert "-".join(map(str, row["choices"])) in text
        assert f"latency {row['latency_ms']:.3f} ms" in text
        for part, choice, name in zip(
            ("stem", "block1", "block2", "head"), row["choices"], row["parts"], strict=True
        ):
            assert f"{part}: {name if choice else 'the reference'}" in text
        assert seen.complaints == []
        assert seen.requests == []


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(390, True), (1400, False)])
def test_it_fits_a_phone_and_a_wide_window(finished: Path, width: int, dark: bool) -> None:
    with opened(finished / STEADY / "report.html", width=width, dark=dark) as seen:
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        assert seen.complaints == []


@pytest.mark.slow
def test_every_plot_is_one_that_plotly_knows(finished: Path) -> None:
    from plotly.graph_objects import Figure

    for plot in plots(finished):
        Figure(data=list(plot.data), layout=plot.layout)


@pytest.mark.slow
def test_several_objectives_are_shown_in_pairs(finished: Path) -> None:
    (found,) = [
        section for section in content(finished) if section.heading == "Front (latency, macs, params)"
    ]
    (first,) = [item for item in found.content if isinstance(item, Plot)]
    (grid,) = [item for item in found.content if isinstance(item, Grid)]
    shown = [first, *grid.plots]
    assert len(shown) == 3 + 3
    front = stored_json(finished, "front-latency-macs-params.json")
    marked = [plot.data[1] for plot in shown]
    assert {len(trace["x"]) for trace in marked} == {len(front["front"])}
    assert sorted(marked[1]["x"]) == pytest.approx(
        sorted(row["cost_ratios"]["macs"] for row in front["front"])
    )


@pytest.mark.slow
def test_a_pick_is_marked_in_its_own_search_alone(finished: Path) -> None:
    picked = json.loads((finished / "checkpoints/steady-knee/measurement.json").read_text())["summary"]
    rows = [row["network"] for row in table(finished, "Front (latency)")]
    assert [row for row in rows if "←" in row] == ["-".join(map(str, picked["choices"])) + " ← knee"]


@pytest.mark.slow
def test_figures_against_the_files(finished: Path) -> None:
    front, search = (stored_json(finished, name) for name in ("front.json", "search.json"))
    blocks = stored_json(finished, "blocks.json")
    errors = []
    for point in search["points"]:
        whole_ms = point["costs"][0] * front["reference_latency_ms"]
        total_ms = sum(blocks["parts"][n]["choices"][c]["cost"] for n, c in enumerate(point["choices"]))
        errors.append(total_ms / whole_ms - 1)
    (found,) = [
        s for s in content(finished) if s.heading == "Sums of block costs against whole networks (latency)"
    ]
    text = found.content[0]
    assert isinstance(text, str)
    figures = re.findall(r"([+-]\d+\.\d)%", text)
    interval = median_interval(errors)
    assert not interval.low <= 0 <= interval.high  # else no error in common is named
    expected = (statistics.median(errors), interval.low, interval.high, min(errors), max(errors))
    assert figures == [f"{100 * error:+.1f}" for error in expected]
    # MACs and parameters of networks are put together from the parts.
    stored = read_run(finished, finished / STEADY)
    for row in front["front"]:
        assert stored.counts(tuple(row["choices"])) == (row["macs"], row["params"])
    kept = [c["kept"] for part in blocks["parts"] for c in part["choices"] if c["choice"]]
    (text,) = [s.content[0] for s in content(finished) if s.heading == "Candidates of each block (latency)"]
    assert isinstance(text, str) and f"{kept.count(False)} of {len(kept)} candidates" in text


def test_an_error_in_common_is_named_only_where_the_networks_show_it() -> None:
    assert "is off the measured one by +5.0% [+4.0%, +6.0%] in the median" in _sum_error([0.04, 0.05, 0.06])
    both = _sum_error([-0.2, -0.01, 0.0, 0.02, 0.3])
    assert "off" not in both
    assert "no error in common" in both
    assert "from -20.0% to +30.0%" in both


@pytest.mark.slow
def test_what_disturbed_a_network_stands_in_its_card_and_in_the_report(finished: Path) -> None:
    stored = read_run(finished, finished / STEADY)
    checkpoint = stored.checkpoints[0]
    before = CpuTimes(cpus=2, clock_s=0, busy_s=0, own_s=0)
    after = replace(before, clock_s=10, busy_s=12, own_s=2)
    busy = replace(
        checkpoint.measurement, kind="measured", conditions=(Conditions(cpu=before), Conditions(cpu=after))
    )
    told = "Other work took 50% of the time of 2 CPUs"
    cards = [
        model_card(
            checkpoint.name,
            checkpoint.architecture,
            CheckpointRecord(summary=checkpoint.summary, measurement=measurement),
        )
        for measurement in (checkpoint.measurement, busy)
    ]
    assert [f"- {told}" in card for card in cards] == [False, True]
    front = replace(stored.searches[0].front, judgement=("other work took the night",))
    disturbed = replace(
        stored,
        checkpoints=(replace(checkpoint, measurement=busy),),
        searches=(replace(stored.searches[0], front=front),),
    )
    texts = [text for section in sections(disturbed) for text in section.content if isinstance(text, str)]
    assert [text for text in texts if text.startswith(told)]
    assert "Other work took the night." in texts


@pytest.mark.slow
def test_a_drift_between_blocks_and_networks_is_no_error_of_the_sums(run: Path) -> None:
    heading = "Sums of block costs against whole networks (latency)"
    before = [section.content[0] for section in content(run) if section.heading == heading]

    def slow_down(data: Any) -> None:
        for key in ("reference_latency_ms", "anchor_latency_ms"):
            data[key] *= 3
        for choice in (choice for part in data["parts"] for choice in part["choices"]):
            choice["cost"] *= 3

    edit(run, "blocks.json", slow_down)
    assert [section.content[0] for section in content(run) if section.heading == heading] == before


@pytest.mark.slow
def test_the_account_of_the_run(finished: Path) -> None:
    rows = {row["step"]: row for row in table(finished, "Time and epochs")}
    # 1,258 images make 4 batches of 256: two epochs, 6 candidates of 4 batches, two networks of two epochs.
    images = {"reference training": 2 * 1024, "distillation": 6 * 1024, "finetuning": 2 * 2 * 1024}
    for step, count in images.items():
        assert rows[step]["images trained on"] == f"{count:,}"
        assert rows[step]["epochs"] == f"{count / 1258:,.1f}"
    assert rows["search"]["images trained on"] == "0"
    assert {"block costs", "report measurements", "total"} <= set(rows)


@pytest.mark.slow
def test_again_it_is_the_same(run: Path) -> None:
    before = (run / STEADY / "report.html").read_bytes()
    assert write_reports(run, None) == [run / STEADY / "report.html"]
    assert (run / STEADY / "report.html").read_bytes() == before


@pytest.mark.slow
def test_names_and_reasons_are_text(run: Path) -> None:
    evil = "</script><img src=x onerror=alert(1)><b>"

    def fail(data: Any) -> None:
        data["points"][-1] |= {"costs": None, "reason": evil}

    edit(run, "search.json", fail)
    edit(run, "blocks.json", lambda data: data["parts"][1]["choices"][1].update(name=evil))
    record = RunRecord.read(run)
    replace(record, settings=replace(record.settings, model=evil)).write(run)
    write_reports(run, "steady")
    assert "<img" not in (run / STEADY / "report.html").read_text()
    with opened(run / STEADY / "report.html") as seen:
        assert evil in seen.page.locator("h1").inner_text()
        assert evil in seen.page.locator("section", has_text="Failures").last.inner_text()
        assert seen.complaints == []


@pytest.mark.slow
def test_without_blocks_account_or_checkpoints_the_rest_is_shown(run: Path) -> None:
    for path in (run / STEADY).glob("blocks*.json"):
        path.unlink()
    (run / "account.json").unlink()
    shutil.rmtree(run / "checkpoints")
    write_reports(run, None)
    headings = [section.heading for section in content(run)]
    assert "Front (latency)" in headings
    assert not [heading for heading in headings if "locks" in heading]


DAMAGED = (
    "devices/steady/front.json",
    "devices/steady/search.json",
    "devices/steady/blocks.json",
    "reference/reference.json",
    "checkpoints/steady-knee/measurement.json",
    "checkpoints/steady-knee/architecture.json",
    "account.json",
    "library/library.db",
)
MISSED = ("devices/steady/search.json", "reference/reference.json", "library/library.db")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "damage"),
    [*((name, damage) for name in DAMAGED for damage in ("half", "schema")), *((n, "gone") for n in MISSED)],
)
def test_a_damaged_file_is_named_and_the_old_report_stays(run: Path, name: str, damage: str) -> None:
    file = run / name
    whole = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(whole[: len(whole) // 2] if damage == "half" else b'{"schema": "another/1"}')
    before = (run / STEADY / "report.html").read_bytes()
    with pytest.raises(RunDirectoryError, match=re.escape(file.name)) as error:
        write_reports(run, None)
    assert error.value.fix
    assert (run / STEADY / "report.html").read_bytes() == before


@pytest.mark.slow
def test_a_damaged_device_leaves_the_reports_of_the_others(run: Path) -> None:
    shutil.copytree(run / STEADY, run / "devices/another")
    (run / "devices/another/front.json").write_bytes(b"{")
    report = run / STEADY / "report.html"
    before = report.read_bytes()
    report.unlink()
    with pytest.raises(RunDirectoryError, match=r"another/front\.json"):
        write_reports(run, None)
    assert report.read_bytes() == before


@pytest.mark.slow
def test_a_search_of_another_library_is_refused(run: Path) -> None:
    edit(run, "search.json", lambda data: data["points"][0].update(choices=[0, 99, 0, 0]))
    with pytest.raises(RunDirectoryError, match="0-99-0-0"):
        write_reports(run, None)


@pytest.mark.slow
def test_what_is_no_run_is_told(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run\.toml"):
        device_folders(tmp_path / "nothing")
    with pytest.raises(InputError, match="no front of a device 'cpu'") as error:
        write_reports(run, "cpu")
    assert "--device steady" in error.value.fix
    shutil.rmtree(run / "devices")
    with pytest.raises(HwnasError, match="no front yet"):
        write_reports(run, None)


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.44, "4.4 s"), (59.99, "1:00 min"), (123, "2:03 min"), (3723, "1:02:03 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text

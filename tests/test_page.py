"""The one-file page: what is written, and what a browser makes of it."""

from __future__ import annotations

import html
import re
import stat
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from browser import marker_place, opened

from hwnas.errors import InputError, RunDirectoryError
from hwnas.page import Drawing, Grid, Plot, Section, Table, is_available, plot_text, render, write_page

EVIL = "</script><script>alert(1)</script><b>&amp;\"'"

REDRAWN = """async (ink) => {
    for (let frame = 0; frame < 100; frame++) {
        if (document.querySelector(".plot")._fullLayout.font.color !== ink) return true;
        await new Promise(requestAnimationFrame);
    }
    return false;
}"""
"""Whether the plots take another colour of text within a hundred frames."""


def scatter(name: str, label: str = "a plot") -> Plot:
    return Plot(
        data=[
            {
                "type": "scatter",
                "mode": "markers",
                "x": [1, 2, 3],
                "y": [3, None, 1],
                "name": plot_text(name),
                "text": [plot_text(name)] * 3,
                "hoverinfo": "text",
                "marker": {"size": 12},
            }
        ],
        layout={"title": {"text": plot_text(name)}, "showlegend": True},
        label=label,
    )


def sections(name: str) -> list[Section]:
    svg = ElementTree.Element("svg", {"class": "drawing", "width": "300", "height": "20"})
    ElementTree.SubElement(svg, "text", {"y": "15"}).text = name
    return [
        Section(
            heading=name,
            content=[name, Table(columns=[name, "ms"], rows=[[name, "1.5"]]), scatter(name, name)],
        ),
        Section(heading="more", content=[Grid(plots=[scatter(name), scatter(name)]), Drawing(svg=svg)]),
    ]


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_untrusted_text_makes_no_tag() -> None:
    plain, evil = (Tags(render(name, sections(name))).tags for name in ("name", EVIL))
    assert [tag for tag, _ in plain] == [tag for tag, _ in evil]
    assert [set(attributes) for _, attributes in plain] == [set(attributes) for _, attributes in evil]


def test_nothing_is_loaded_from_elsewhere() -> None:
    for tag, attributes in Tags(render("title", sections("name"))).tags:
        assert not {"src", "href", "srcset", "action"} & set(attributes), tag


def test_columns_of_figures_are_aligned_to_the_right() -> None:
    text = render(
        "t", [Section(heading="h", content=[Table(columns=["a", "b"], rows=[["1", "−2"], ["3", "+4 [1]"]])])]
    )
    assert text.count('<td class="number">') == 2
    assert '<th class="number">b</th>' in text
    assert "<table>" in render("t", [Section(heading="h", content=[Table(columns=["a"], rows=[])])])


def test_a_folded_table_is_there_behind_its_words() -> None:
    table = Table(columns=["a"], rows=[["1"]], folded=EVIL)
    text = render("t", [Section(heading="h", content=[table])])
    (shown,) = re.findall("<details><summary>(.*?)</summary>.*<table>.*</table></div></details>", text)
    assert html.unescape(shown) == EVIL and "<script>alert" not in text
    assert "<details>" not in render("t", [Section(heading="h", content=[replace(table, folded="")])])


def test_the_page_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "page.html"
    write_page(path, "one", sections("name"))
    assert stat.S_IMODE(path.stat().st_mode) & 0o400
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        write_page(
            path,
            "two",
            [Section(heading="h", content=[Plot(data=[{"x": [float("nan")]}], layout={}, label="")])],
        )
    with pytest.raises(RunDirectoryError, match="cannot write"):
        write_page(tmp_path / "missing" / "page.html", "three", [])
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["page.html"]
    assert path.read_bytes() == before


def test_without_plotly_the_fix_is_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not is_available()
    with pytest.raises(InputError, match="plotly") as error:
        write_page(tmp_path / "page.html", "one", [])
    assert error.value.fix == "pip install 'hwnas[report]'"


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (390, True)])
def test_a_browser_shows_it_without_complaint_or_request(tmp_path: Path, width: int, dark: bool) -> None:
    path = tmp_path / "page.html"
    write_page(path, EVIL, sections(EVIL))
    with opened(path, width=width, dark=dark) as seen:
        assert seen.page.title() == EVIL
        assert seen.page.locator("h2").first.inner_text() == EVIL
        assert seen.page.locator("svg.drawing text").text_content() == EVIL
        seen.page.mouse.move(*marker_place(seen.page, 0, 0, 2))
        seen.page.wait_for_selector(".hoverlayer .hovertext")
        assert seen.page.locator(".hoverlayer .hovertext").text_content().strip() == EVIL
        assert seen.page.locator(".gtitle").first.text_content() == EVIL
        # Nothing is wider than the window.
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        background = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
        ink = seen.page.evaluate("document.querySelector('.plot')._fullLayout.font.color")
        brightness = [sum(map(int, re.findall(r"\d+", text)[:3])) for text in (background, _rgb(ink))]
        assert (brightness[0] < brightness[1]) == dark
        seen.page.emulate_media(color_scheme="light" if dark else "dark")
        assert seen.page.evaluate(REDRAWN, ink)
        titles = seen.page.locator(".modebar-btn").evaluate_all("all => all.map(b => b.dataset.title)")
        assert not [title for title in titles if "Share" in title or "loud" in title]
        assert bool(titles) == (width > 640)
        assert seen.complaints == []
        assert seen.requests == []


def _rgb(colour: str) -> str:
    return " ".join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))

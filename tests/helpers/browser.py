"""Chromium, driven by playwright: opens a page, takes down its complaints and what it asks for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = os.environ.get("HWNAS_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@dataclass
class Opened:
    """A page in the browser.

    Attributes:
        page: playwright's page.
        complaints: errors and warnings of its console, and exceptions that nobody caught.
        requests: addresses that it asked for, its own apart.
    """

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def opened(path: Path, width: int = 1200, height: int = 900, dark: bool = False) -> Iterator[Opened]:
    """Open an HTML file and wait until its plots are drawn; the test is skipped where there is no browser."""
    api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    address = path.resolve().as_uri()
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        try:
            page = browser.new_page(
                viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
            )
            found = Opened(page)
            page.on("console", lambda message: found.complaints.append(f"{message.type}: {message.text}"))
            page.on("pageerror", lambda error: found.complaints.append(str(error)))
            page.on("request", lambda request: found.requests.append(request.url))
            page.goto(address)
            for plot in page.locator(".plot").all():
                plot.locator(".main-svg").first.wait_for()
            found.requests.remove(address)
            yield found
        finally:
            browser.close()


def marker_place(page: Any, plot: int, trace: int, point: int) -> tuple[float, float]:
    """Where a point of a 2-D plot stands, in pixels of the window; it is scrolled into view."""
    page.locator(".plot").nth(plot).scroll_into_view_if_needed()
    x, y = page.evaluate(
        """([plot, trace, point]) => {
            const place = document.querySelectorAll(".plot")[plot];
            const layout = place._fullLayout, data = place._fullData[trace];
            const box = place.getBoundingClientRect();
            return [box.x + layout.xaxis._offset + layout.xaxis.d2p(data.x[point]),
                    box.y + layout.yaxis._offset + layout.yaxis.d2p(data.y[point])];
        }""",
        [plot, trace, point],
    )
    return x, y

"""Pages in headless Chromium: of what they do, and that nothing is wrong with them."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

WIDTHS = (1280, 390)  # of a desktop's window and of a phone
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM:
        pytest.skip("there is no chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, path: Path, width: int = WIDTHS[0]) -> Iterator[Any]:
    """A page that loads nothing, logs nothing to the console, and does not scroll sideways."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    wrong = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: wrong.append(request.url))
    page.goto(Path(path).as_uri())
    loaded = wrong.pop(0)
    assert loaded == page.url
    yield page
    own = page.url, "data:", "blob:"  # it may be loaded again, and export a file
    assert [x for x in wrong if not x.startswith(own)] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    broken = "[...document.images].filter(x => !x.naturalWidth).map(x => x.alt)"
    assert page.evaluate(broken) == []
    page.close()


def column(page: Any, index: int, table: str = "table.sortable") -> list[str]:
    """The cells of a column of the first such table."""
    return page.locator(table).first.locator(f"tbody td:nth-child({index + 1})").all_inner_texts()

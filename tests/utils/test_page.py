"""Pages: what enters them is escaped; tables sort and pictures zoom, on a desktop and a phone."""

import numpy as np
import pytest
from browser import WIDTHS, column, opened

from nrpn_d2.utils.page import (
    MAX_BOXES,
    Box,
    Cell,
    Html,
    details,
    element,
    figure,
    grid,
    legend,
    markup,
    number,
    page,
    paragraph,
    picture,
    section,
    table,
    tiles,
    write_page,
)

HOSTILE = "</td></script><img src=x onerror=alert(1)>&\"'"
ROWS = [("b", 9.0, Cell("1 of 2", 0.5)), ("a", 10.0, Cell("3 of 4", 0.75)), ("c", np.nan, "n/a")]


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A page with every part, and hostile text wherever text can be."""
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    boxes = [Box((10, 20, 200, 120), "hit", HOSTILE), Box((50, 60, 50, 60), "missed")]
    content = [
        tiles([(HOSTILE, HOSTILE, HOSTILE)]),
        legend("hit", "missed", hit=HOSTILE),
        section(HOSTILE, table(["name" + HOSTILE, "number", "cell"], ROWS)),
        table([HOSTILE] * 30, [[HOSTILE] * 30]),
        grid(*[figure(picture(image, boxes, HOSTILE), HOSTILE)] * 2),
        details(HOSTILE, paragraph(HOSTILE, class_=HOSTILE), "x" * 500),
    ]
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(str(path), HOSTILE + "\udcff", content, "document.body.dataset.own = 1;")
    return path


@pytest.mark.parametrize("width", WIDTHS)
def test_all_parts_in_a_browser(browser, everything, width):
    with opened(browser, everything, width) as shown:
        assert shown.locator("h1").inner_text() == HOSTILE + "\\udcff"
        assert shown.locator("body").get_attribute("data-own") == "1"  # its own script has run
        assert shown.locator("img").count() == 0  # nothing became markup


def test_a_click_on_a_header_sorts(browser, everything):
    with opened(browser, everything) as shown:
        header = shown.locator("table.sortable").first.locator("th button")
        for index, order in ((0, "abc"), (0, "cba"), (1, "abc"), (1, "bac"), (2, "abc")):
            header.nth(index).click()
            assert "".join(column(shown, 0)) == order
        sorted_by = shown.locator("th[aria-sort]")
        assert sorted_by.count() == 1 and sorted_by.get_attribute("aria-sort") == "descending"


def test_pictures_are_magnified_by_mouse_and_keyboard(browser, everything):
    with opened(browser, everything) as shown:
        first, second = shown.locator("svg.zoomable").all()
        small = first.bounding_box()["width"]
        first.click()
        picture = shown.locator("dialog[open] > svg")
        fitting = picture.bounding_box()["width"]
        picture.click()
        assert picture.bounding_box()["width"] > 2 * fitting > 4 * small
        picture.click()
        shown.keyboard.press("ArrowRight")  # to the second
        assert shown.locator("dialog[open] > p").inner_text() == HOSTILE
        shown.keyboard.press("Escape")
        assert not shown.locator("dialog[open]").count()
        second.focus()
        shown.keyboard.press("Enter")
        assert shown.locator("dialog[open] > svg").bounding_box()["width"] > 2 * small


def test_other_scripts_do_not_run(browser, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(page("x", [element("script", Html("document.title = 'run'"))]))
    shown = browser.new_page()
    shown.goto(path.as_uri())
    assert shown.title() == "x"
    shown.close()


def test_markup_is_made_by_markup_alone():
    assert markup("<", Html("<br>"), 1) == "&lt;<br>1"
    assert element("a", "&", class_='"', x=True, y=None) == '<a class="&quot;" x>&amp;</a>'
    assert isinstance(markup(), Html) and element("br") == "<br>"


def test_boxes_beside_the_picture_take_no_place():
    boxes = [Box((20, 0, 30, 9))] * MAX_BOXES + [Box((1, 1, 5, 5), label="inside")]
    assert "inside" in picture(np.zeros((10, 10, 3)), boxes)


@pytest.mark.parametrize(
    "value, text",
    [(66.781, "66.8"), (999.9, "1000"), (1234.5, "1234"), (0.0001, "0.0001"), (7, 7), ("x", "x")],
)
def test_numbers(value, text):
    assert number(value) == text


def test_no_number():
    assert number(None) == number(float("nan")) == "n/a"

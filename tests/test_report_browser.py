"""The report as a browser sees it: silent, offline, complete, and no wider than the window."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browsers import chromium, complaints, requests, start_afresh, waiting
from results_folder import INCUMBENT, build
from selfsight.reporting import render


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The three kinds of report, and one with what encoders look at."""
    base = tmp_path_factory.mktemp("reports")
    hostile = [
        "<script>alert(1)</script>",
        "</script><img src=http://127.0.0.1:9/x>",
        "<a href='http://127.0.0.1:9/'>a</a>",
        "a b",
    ]
    for name, classes, labels in (("labelled", hostile, True), ("silent", None, True), ("label-free", None, False)):
        build(base / name, classes=classes, labels=labels)
    build(base / "looking", looks=True)
    return {name: render(base / name, images=name != "silent") for name in ("labelled", "silent", "label-free", "looking")}


def open_page(browser: Any, page: Path, width: int) -> None:
    start_afresh(browser, width)
    browser.get(page.as_uri())
    drawn = "return [...document.querySelectorAll('.plot')].every(p => p.querySelector('.main-svg'))"
    waiting.WebDriverWait(browser, 60).until(lambda page: page.execute_script(drawn), "not all plots were drawn within a minute")


@pytest.mark.parametrize("width", [1280, 420])
@pytest.mark.parametrize("kind", ["labelled", "silent", "label-free", "looking"])
def test_the_page_is_silent_offline_and_complete(browser: Any, pages: dict[str, Path], kind: str, width: int) -> None:
    open_page(browser, pages[kind], width)
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('.plot')].map(p => { const s = p.querySelector('.main-svg');"
        " const r = s ? s.getBoundingClientRect() : {width: 0, height: 0}; return [p.id, r.width, r.height]; })"
    )
    assert len(sizes) == {"labelled": 15, "silent": 15, "label-free": 9, "looking": 16}[kind]
    assert [size for size in sizes if min(size[1:]) < 100] == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    sentence = browser.find_element("css selector", "#verdict .sentence")
    assert sentence.is_displayed()
    assert sentence.text.startswith("No labels, so no verdict" if kind == "label-free" else f"Keep {INCUMBENT}")
    assert complaints(browser) == []
    asked = requests(browser)
    assert asked and [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_every_picture_is_shown(browser: Any, pages: dict[str, Path]) -> None:
    open_page(browser, pages["labelled"], 1280)
    browser.execute_async_script("Promise.all([...document.images].map(i => i.decode())).then(arguments[0])")
    widths = browser.execute_script("return [...document.images].map(image => image.naturalWidth)")
    assert len(widths) > 20 and set(widths) == {64}


def test_pointing_at_the_map_shows_the_picture_and_the_class_as_text(browser: Any, pages: dict[str, Path]) -> None:
    open_page(browser, pages["labelled"], 1280)
    tip = browser.execute_script(
        "const map = document.getElementById('plot-map-0'), trace = map.data[0];"
        "const point = {data: trace, customdata: 0, text: 'a &lt;b&gt;'};"
        "map.emit('plotly_hover', {points: [point], event: {clientX: 40, clientY: 40}});"
        "const tip = document.getElementById('tip');"
        "return [tip.hidden, tip.querySelectorAll('img').length, tip.querySelectorAll('*').length, tip.innerText]"
    )
    assert tip == [False, 1, 3, "<script>alert(1)</script>\na <b>"]


def test_a_chosen_class_is_followed_through_all_maps(browser: Any, pages: dict[str, Path]) -> None:
    open_page(browser, pages["labelled"], 1280)
    faded = browser.execute_script(
        "document.querySelector('.chips button').click();"
        "return [...document.querySelectorAll('[id^=plot-map-]')].map(m => m.data.map(t => t.marker.opacity))"
    )
    assert faded == [[1, 0.06, 0.06, 0.06]] * 3


def test_what_encoders_look_at_stands_side_by_side_and_in_words(browser: Any, pages: dict[str, Path]) -> None:
    open_page(browser, pages["looking"], 1280)
    rows = browser.execute_script(
        "return [...document.querySelectorAll('table.looks tbody tr')].map(r => [...r.querySelectorAll('img')].map(i => {"
        " const b = i.getBoundingClientRect(); return [Math.round(b.top), Math.round(b.width)]; }))"
    )
    assert [len(row) for row in rows] == [4] * 8
    assert all(len({top for top, _ in row}) == 1 and min(width for _, width in row) > 90 for row in rows)
    findings = [item.text for item in browser.find_elements("css selector", ".findings li")]
    assert findings == [
        f"{INCUMBENT} (norm of the features, Jaccard 31.0 %) is below runs/demo and a centred box; "
        "not told apart from the whole picture.",
        "runs/demo (attention, Jaccard 46.5 %) is above efficientnet-lite0, runs/demo?weights=init, a centred box "
        "and the whole picture. Best head, in points above that of its own untrained copy: "
        "Jaccard at 60 % +24.5 (+20.0 to +29.0).",
    ]

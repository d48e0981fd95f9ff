"""The local page as a person uses it: a browser that opens pictures, clicks, types, and must not complain or reach elsewhere."""

from __future__ import annotations

import base64
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pictures
from bombs import BOMBS
from browsers import chromium, complaints, requests, start_afresh, waiting, webdriver
from encoded_pictures import encoded, oriented, scene
from exploring import Server, explored, serving

VIT, CNN = "random/vit_w32_d2_p8_h2?size=32", "random/test_efficientnet?size=64"
DEMO = Path(__file__).parent / "assets/demo.safetensors"
DOCS = Path(__file__).parent.parent / "docs"
NEAREST = (
    "[...document.querySelectorAll('.encoder')[1].querySelectorAll('.near-place button')]"
    ".slice(0, 8).map((button) => button.dataset.sample)"
)
HOSTILE = "<img src=x onerror=alert(1)>.png"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = pictures.folder(tmp_path_factory.mktemp("explore") / "photos", 70, labelled=False)
    pictures.noise(data / HOSTILE)
    with serving(explored(VIT, data, with_=CNN)) as running:
        yield running


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Page]:
    """A fresh page. In the end nothing was refused by its policy, nothing complained, and nobody else was asked."""
    opened = Page(browser, server.address)
    yield opened
    assert complaints(browser) == opened.expected
    asked = requests(browser)
    assert asked and [url for url in asked if not url.startswith((server.address, "data:"))] == []


class Page:
    def __init__(self, browser: Any, address: str, width: int = 1280) -> None:
        self.browser, self.expected = browser, []
        start_afresh(browser, width)
        browser.get(address)
        self.until("document.querySelectorAll('.encoder').length === 2 && document.querySelectorAll('#album-images li').length")

    def run(self, code: str, *given: Any) -> Any:
        return self.browser.execute_script(code, *given)

    def until(self, condition: str) -> None:
        waiting.WebDriverWait(self.browser, 60).until(lambda _: self.run(f"return Boolean({condition})"), condition)

    def settled(self) -> None:
        """Both encoders have answered, and every picture that is in view is there."""
        self.until(
            "!document.querySelector('.stage.busy') && document.getElementById('status').textContent.includes(' ms') && "
            "[...document.querySelectorAll('.picture')].every((image) => image.complete && image.naturalWidth)"
        )

    def upload(self, path: Path) -> None:
        self.run("document.getElementById('status').textContent = ''")
        self.browser.find_element("id", "file").send_keys(str(path))

    def pixels(self, panel: int) -> list[int]:
        """Of the map over the picture."""
        return self.run(
            "const canvas = document.querySelectorAll('.overlay')[arguments[0]];"
            "return [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]",
            panel,
        )

    def keys(self, panel: int, list_of: str = ".near-place") -> list[str]:
        return self.run(
            "return [...document.querySelectorAll('.encoder')[arguments[0]].querySelectorAll(arguments[1] + ' button')]"
            ".map((button) => button.dataset.sample)",
            panel,
            list_of,
        )

    def click_at(self, panel: int, x: float, y: float) -> None:
        """At shares of the width and height of the picture."""
        stage = self.browser.find_elements("css selector", ".stage")[panel]
        across, down = stage.size["width"], stage.size["height"]
        webdriver.ActionChains(self.browser).move_to_element_with_offset(
            stage, round((x - 0.5) * across), round((y - 0.5) * down)
        ).click().perform()

    @property
    def message(self) -> str:
        return self.run("const told = document.getElementById('message'); return told.hidden ? '' : told.textContent")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "mine.png"
    Image.fromarray(scene(90, 60)).save(path)
    return path


def test_a_picture_is_opened_and_a_click_moves_maps_and_neighbours_of_both(page: Page, picture: Path) -> None:
    page.upload(picture)
    page.settled()
    assert page.run("return document.getElementById('encoders').hidden") is False
    before = [(page.pixels(panel), page.keys(panel)) for panel in (0, 1)]
    for pixels, keys in before:
        assert len(set(pixels)) > 10 and len(keys) == 12
    page.click_at(0, 0.1, 0.1)
    page.until(
        "[...document.querySelectorAll('.point')].every(({ style }) => parseFloat(style.left) < 20 && parseFloat(style.top) < 20)"
    )
    page.until("document.getElementById('status').textContent.startsWith('answered in')")
    page.browser.execute_async_script("setTimeout(arguments[0], 300)")
    for panel, (pixels, _) in enumerate(before):
        assert page.pixels(panel) != pixels
    assert page.keys(0) != before[0][1]
    outlines = page.run("return document.querySelectorAll('.near-place .place').length")
    assert outlines == 24
    assert page.message == ""


def test_heads_objects_and_the_picture_itself_are_laid_over_it(page: Page, picture: Path) -> None:
    page.upload(picture)
    page.settled()
    shown = page.run(
        "const panel = document.querySelector('.encoder'), said = [];"
        "for (const head of panel.querySelectorAll('.heads button')) {"
        "  head.click(); said.push(panel.querySelector('.what').textContent); }"
        "return said"
    )
    assert shown == ["attention, mean of 2 heads", "attention of head 0", "attention of head 1"]
    page.run(
        "const panel = document.querySelector('.encoder'), select = panel.querySelector('select');"
        "panel.querySelector('input[value=object]').click();"
        "select.value = 'attention'; select.dispatchEvent(new Event('change'))"
    )
    page.until("document.querySelector('.result').textContent.startsWith('score ')")
    assert 1 <= page.run("return document.querySelectorAll('.boxes i').length") <= 3
    state = page.run(
        "const panel = document.querySelector('.encoder'); panel.querySelector('input[value=nothing]').click();"
        "return [panel.querySelector('.overlay').style.opacity, panel.querySelectorAll('.boxes i').length]"
    )
    assert state == ["0", 0]
    remarks = page.run("return [...document.querySelectorAll('.remark')].map((remark) => !remark.hidden && remark.textContent)")
    assert remarks[0] is False and remarks[1].startswith("A CNN, or a ViT without a CLS token, has no attention")
    assert page.run("return document.querySelectorAll('.encoder')[1].querySelector('.heads-of').hidden")


def test_the_keyboard_alone_is_enough(page: Page) -> None:
    page.run("document.querySelectorAll('#album-images button')[4].focus()")
    page.browser.switch_to.active_element.send_keys(webdriver.Keys.ENTER)
    page.settled()
    assert page.run("return document.querySelector('#album-images [aria-current=true]').dataset.sample") == "4"
    stage = page.browser.find_element("css selector", ".stage")
    left = page.run("return parseFloat(document.querySelector('.point').style.left)")
    stage.send_keys(webdriver.Keys.ARROW_LEFT)
    assert page.run("return parseFloat(document.querySelector('.point').style.left)") < left
    stage.send_keys(webdriver.Keys.SHIFT + webdriver.Keys.ARROW_RIGHT)
    assert page.run("return parseFloat(document.querySelector('.point').style.left)") == 75
    page.until("document.getElementById('status').textContent.startsWith('answered in')")


def test_a_neighbour_is_a_picture_to_go_on_from(page: Page, picture: Path) -> None:
    page.upload(picture)
    page.settled()
    sample = page.keys(0)[0]
    page.run("document.querySelector('.near-place button').click()")
    page.until(f"document.querySelector('#album-images [aria-current=true]')?.dataset.sample === '{sample}'")
    page.settled()
    assert sample not in page.keys(0) and sample not in page.keys(1, ".near-image")


def test_all_images_can_be_leafed_through_and_a_hostile_name_stays_text(page: Page) -> None:
    page.run("document.getElementById('more').click()")
    page.until("document.querySelectorAll('#album-images li').length === 71")
    assert page.run("return document.getElementById('more').hidden")
    names = page.run("return [...document.querySelectorAll('#album-images .key')].map((key) => key.textContent)")
    assert HOSTILE in names
    assert page.run("return document.querySelectorAll('[onerror]').length") == 0


@pytest.mark.parametrize("name", ["..\u2215..\u2215x", "<script>alert(1)<\u2215script>", "a b&quot;'\"", "x" * 240])
def test_hostile_names_are_shown_as_text(page: Page, tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.png"
    path.write_bytes(encoded(scene()))
    page.upload(path)
    page.settled()
    shown = page.run("return document.getElementById('status').textContent")
    assert shown.startswith(name[:79])
    assert page.run("return document.scripts.length") == 1


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"no picture at all", "no known image format"),
        (encoded(scene())[:300], "is no picture that can be read"),
        (BOMBS["png"](), "limit of 200000000"),
    ],
    ids=["text", "truncated", "bomb"],
)
def test_a_bad_upload_is_told_on_the_page_and_the_last_picture_stays(
    page: Page, tmp_path: Path, picture: Path, data: bytes, told: str
) -> None:
    page.upload(picture)
    page.settled()
    before = page.pixels(0)
    (tmp_path / "bad.png").write_bytes(data)
    page.upload(tmp_path / "bad.png")
    page.until("!document.getElementById('message').hidden")
    assert page.message.startswith("bad.png: is no picture that can be read") and told in page.message
    assert page.pixels(0) == before
    refused = "Failed to load resource: the server responded with a status of 415 (Unsupported Media Type)"
    page.expected = [f"{page.browser.current_url}api/pictures - {refused}"]
    page.click_at(0, 0.9, 0.9)
    page.until("document.getElementById('status').textContent.startsWith('answered in')")
    assert page.pixels(0) != before


def test_a_file_that_is_too_large_is_not_even_sent(page: Page, tmp_path: Path) -> None:
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(65 * 2**20)
    page.upload(tmp_path / "large.png")
    page.until("!document.getElementById('message').hidden")
    assert page.message == "large.png: is larger than 64 MiB, the most that is taken"


def test_a_turned_picture_stands_upright(page: Page, tmp_path: Path) -> None:
    (tmp_path / "turned.jpg").write_bytes(oriented(6, image=np.asarray(scene(90, 60))))
    page.upload(tmp_path / "turned.jpg")
    page.settled()
    sides = page.run("const image = document.querySelector('.picture'); return [image.naturalWidth, image.naturalHeight]")
    assert sides == [60, 90]


def test_a_dropped_picture_is_opened(page: Page) -> None:
    page.run(
        "const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));"
        "const carried = new DataTransfer(); carried.items.add(new File([bytes], 'dropped.png'));"
        "window.dispatchEvent(new DragEvent('drop', { dataTransfer: carried, cancelable: true }))",
        base64.b64encode(encoded(scene())).decode(),
    )
    page.settled()
    assert page.run("return document.getElementById('status').textContent").startswith("dropped.png, 45 x 30 pixels")


@pytest.mark.parametrize("width", [1280, 420])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_window_and_follows_the_colours_of_the_system(
    browser: Any,
    server: Server,
    picture: Path,
    width: int,
    scheme: str,
) -> None:
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    page = Page(browser, server.address, width)
    page.upload(picture)
    page.settled()
    assert page.run("return document.documentElement.scrollWidth") <= width
    ground = page.run("return getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(18, 22, 28)")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_style_in_the_markup_would_be_refused(browser: Any, server: Server) -> None:
    """That the tests above would see a violation: one is made on purpose."""
    page = Page(browser, server.address)
    page.run(
        "const script = document.createElement('script'); script.textContent = 'window.broken = 1';document.body.append(script)"
    )
    told = complaints(browser)
    assert len(told) == 1 and "Content Security Policy" in told[0]
    assert page.run("return window.broken === undefined")


def test_a_click_on_rings_finds_rings(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's network beside the CNN, among drawn things. `SELFSIGHT_REDRAW=1` keeps what it shows for the guide."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(DEMO, "demo.safetensors")
    Path("things").mkdir()
    for number in range(64):
        thing = pictures.drawn(3, number, 144)
        thing.image.save(f"things/{thing.name}-{number:03d}.png")
    each = [np.asarray(pictures.drawn(4, number, 144).image) for number in range(len(pictures.CLASSES))]
    Image.fromarray(np.vstack([np.hstack(each[:4]), np.hstack(each[4:])])).save("eight.png")
    ours = "file/demo.safetensors?arch=vit_w64_d3_p8_conv&size=144"
    with serving(explored(ours, Path("things"), with_="efficientnet-lite0")) as running:
        page = Page(browser, running.address, 1280)
        page.upload(tmp_path / "eight.png")
        page.settled()
        at = pictures.CLASSES.index("rings")
        page.click_at(1, (at % 4 + 0.5) / 4, (at // 4 + 0.5) / 2)
        names = sorted(path.name for path in Path("things").iterdir())
        rings = [str(number) for number, name in enumerate(names) if name.startswith("rings")]
        page.until(f"{NEAREST}.toSorted().join() === {sorted(rings)}.join()")
        page.until("document.getElementById('status').textContent.startsWith('answered in')")
        page.browser.execute_async_script("setTimeout(arguments[0], 300)")
        if os.environ.get("SELFSIGHT_REDRAW"):
            shot = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
            shot.quantize(128, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(DOCS / "explore.png", optimize=True)

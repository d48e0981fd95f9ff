"""`objects`: rows that are appended, bear being killed, and become a file once; and what it refuses before any work."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import pictures
from selfsight import api
from selfsight.attention.objects.looking import mask_of
from selfsight.cli import main
from selfsight.data.sources import open_source
from selfsight.errors import ConfigError, DataError, InputError, WeightsError
from selfsight.runs import read_jsonl

VIT = "random/vit_w32_d1_p8?size=32"
AT_THE_THIRD_WINDOW = """
import os, signal, sys
seen = []
def hook(event, args):
    if event == "open" and str(args[0]).endswith("rows.jsonl") and args[1] == "a":
        seen.append(args)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.{name})
sys.addaudithook(hook)
"""

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 pictures of two shapes, one of them damaged and one of a single colour."""
    folder = pictures.folder(tmp_path_factory.mktemp("pictures"), 20, classes=2)
    keys = open_source(folder).keys
    for number in (3, 4, 12):
        Image.open(folder / keys[number]).resize((72, 40)).save(folder / keys[number])
    (folder / keys[10]).write_bytes(b"\x89PNG damaged")
    Image.new("RGB", (48, 32), (200, 180, 20)).save(folder / keys[5])
    return folder


@pytest.fixture(scope="module")
def uninterrupted(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("whole") / "o.json"
    api.objects(VIT, images, out, method="attention", count=2, batch_size=2)
    return found_in(out)


def found_in(out: Path) -> dict[str, Any]:
    """All of a COCO file but how it was made."""
    found: dict[str, Any] = json.loads(out.read_text())
    del found["info"]
    return found


def words(images: Path, out: Path) -> list[str]:
    options = "--method attention --count 2 --batch-size 2 --max-bad 50"
    return ["objects", VIT, str(images), "--out", str(out), *options.split()]


def stopped_by(name: str, images: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own, which gets a signal when it is about to write for the third time."""
    code = f"{AT_THE_THIRD_WINDOW.format(name=name)}\nfrom selfsight.cli import main; main()"
    command = [sys.executable, "-c", code, *words(images, out)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def test_every_image_is_in_the_file_and_a_blank_one_has_no_object(images: Path, uninterrupted: dict[str, Any]) -> None:
    keys = open_source(images).keys
    assert [image["file_name"] for image in uninterrupted["images"]] == [key for key in keys if key != keys[10]]
    sizes = {image["id"]: (image["height"], image["width"]) for image in uninterrupted["images"]}
    assert [sizes[number + 1] for number in (0, 3, 5)] == [(32, 32), (40, 72), (32, 48)]
    holders = {each["image_id"] for each in uninterrupted["annotations"]}
    assert holders == set(sizes) - {6}
    for each in uninterrupted["annotations"]:
        mask = mask_of(each)
        assert mask.shape == sizes[each["image_id"]]
        left, top, width, height = each["bbox"]
        assert mask[top : top + height, left : left + width].sum() == mask.sum() == each["area"]


def test_a_killed_process_is_gone_on_with_and_nothing_is_lost_or_twice(
    images: Path, uninterrupted: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "o.json"
    done = stopped_by("SIGKILL", images, out)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not out.exists()
    rows = tmp_path / "o.json.parts" / "rows.jsonl"
    kept = len(read_jsonl(rows))
    assert 2 < kept < 20
    with rows.open("a") as file:
        file.write('{"sample": 99, "key": "cut o')
    said: list[str] = []

    class Listening(api.Silent):
        def say(self, text: str) -> None:
            said.append(text)

    summary = api.objects(VIT, images, out, method="attention", count=2, batch_size=2, max_bad=50, watch=Listening())
    assert said == [f"{out}: goes on after {kept} of 20 images"]
    assert (summary["resumed"], summary["images"], summary["bad_images"], summary["empty"]) == (kept, 19, 1, 1)
    assert found_in(out) == uninterrupted
    assert [row["key"] for row in read_jsonl(tmp_path / "o.json.bad_images.jsonl")] == [open_source(images).keys[10]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.json", "o.json.bad_images.jsonl"]


def test_a_signal_keeps_what_is_done_and_prints_the_command_that_goes_on(
    images: Path, uninterrupted: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "o.json"
    done = stopped_by("SIGINT", images, out)
    assert done.returncode == 130, done.stderr
    told = re.match(
        r"selfsight: stopped by SIGINT: (\d+) of 20 images are done; go on with: (selfsight objects .*)\n$", done.stderr
    )
    assert told, done.stderr
    with pytest.raises(SystemExit) as left:
        main(shlex.split(told[2])[1:])
    assert left.value.code == 0
    assert f"goes on after {told[1]} of 20 images" in capsys.readouterr().out
    assert found_in(out) == uninterrupted


class Impatient(api.Silent):
    def advance(self, what: str, done: int, total: int) -> None:
        if done > 10:
            raise KeyboardInterrupt


def test_what_was_begun_with_something_else_is_refused_in_one_line(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.json"
    begun: dict[str, Any] = {"encoder": VIT, "data": images, "out": out, "method": "attention", "batch_size": 2, "max_bad": 50}
    with pytest.raises(KeyboardInterrupt):
        api.objects(**begun, watch=Impatient())
    cases: list[tuple[dict[str, Any], str]] = [
        ({"encoder": f"{VIT}&seed=1"}, f"with encoder {VIT}, which is now {VIT}&seed=1; remove the folder"),
        ({"method": "kmeans"}, "with method attention, which is now kmeans; "),
        ({"count": 3}, "with count 1, which is now 3; "),
        ({"size": 48}, "with size 32, which is now 48; "),
        ({"mass": 0.8}, "with mass None, which is now 0.8; "),
        ({"refine": "guided"}, "with refine none, which is now guided; "),
        ({"limit": 7}, "with images 20, which is now 7; "),
    ]
    for change, message in cases:
        with pytest.raises(InputError, match="was begun") as refused:
            api.objects(**(begun | change))
        assert message in str(refused.value)
    assert api.objects(**begun, sheet=tmp_path / "s.png")["resumed"] > 0


def test_half_a_folder_of_a_killed_process_is_made_anew(images: Path, tmp_path: Path) -> None:
    begun: dict[str, Any] = {"method": "kmeans", "format": "masks", "batch_size": 2, "max_bad": 50}
    with pytest.raises(KeyboardInterrupt):
        api.objects(VIT, images, tmp_path / "set", watch=Impatient(), **begun)
    half = tmp_path / "set.parts" / "made"
    half.mkdir()
    (half / "of-before.png").touch()
    api.objects(VIT, images, tmp_path / "set", **begun)
    assert len(list((tmp_path / "set").rglob("*.png"))) == 19


@pytest.mark.parametrize(("name", "format"), [("o.json", "coco"), ("set", "yolo"), ("set", "masks")])
def test_what_is_finished_is_made_once_and_never_lost_to_other_settings(
    name: str, format: str, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / name
    call: dict[str, Any] = {"encoder": VIT, "data": images, "out": out, "method": "kmeans", "format": format, "max_bad": 50}
    first = api.objects(**call)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = api.objects(**call)
    assert again == first | {"resumed": 20, "images_per_second": None}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"encoder": f"{VIT}&seed=1"}, rf"made with encoder {re.escape(VIT)}, which is now .*seed=1; remove it to make it anew"),
        ({"count": 3}, "made with count 1, which is now 3"),
        ({"method": "tokencut"}, "made with method kmeans, which is now tokencut"),
        ({"limit": 7}, "made with images 20, which is now 7"),
        ({"sheet": tmp_path / "s.png"}, "is finished; give another --out"),
    ]
    for change, message in cases:
        with pytest.raises(InputError, match=message):
            api.objects(**(call | change))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_pictures_are_not_written_among_those_that_are_read(images: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(images)
    for out in (images / "masks", tmp_path / "link" / "masks"):
        with pytest.raises(InputError, match=r"--out .*masks: lies in .*, whose pictures are read; give a place outside"):
            api.objects(VIT, images, out, method="kmeans", format="masks")
    with pytest.raises(InputError, match=r"--sheet .*s\.png: lies in "):
        api.objects(VIT, images, tmp_path / "o.json", method="kmeans", sheet=images / "s.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link"]


def test_a_place_where_nothing_can_be_written_is_told(images: Path) -> None:
    with pytest.raises(InputError, match=r"--out /proc/set: nothing can be written in /proc \(.*\); give another place"):
        api.objects(VIT, images, "/proc/set", method="kmeans", format="masks")


def test_parts_of_somebody_else_and_damaged_ones_are_left_alone(images: Path, tmp_path: Path) -> None:
    parts = tmp_path / "o.json.parts"
    parts.mkdir()
    (parts / "notes.txt").touch()
    with pytest.raises(InputError, match=r"o\.json\.parts: holds what is not of objects"):
        api.objects(VIT, images, tmp_path / "o.json", method="kmeans")
    (parts / "notes.txt").unlink()
    (parts / "manifest.json").write_text("{")
    with pytest.raises(InputError, match=r"manifest\.json: is damaged"):
        api.objects(VIT, images, tmp_path / "o.json", method="kmeans")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "lots"}, ConfigError, r"--method: no method 'lots'\. Did you mean 'lost'\?"),
        ({"refine": "crf"}, ConfigError, r"--refine: no way 'crf'\. Valid are: guided, none"),
        ({"count": 0}, ConfigError, r"--count: expected 1 to 254\. Got 0\."),
        ({"mass": 0.5}, ConfigError, r"--mass 0\.5: is of --method attention alone; leave it out with tokencut"),
        ({"mass": 2.0, "method": "attention"}, ConfigError, r"--mass: expected a share above 0 and below 1.* Got 2\."),
        ({"sheet": "sheet.gif"}, InputError, r"--sheet sheet\.gif: expected a file that ends in \.png"),
        ({"size": 4}, InputError, r"--size 4: is less than one patch"),
        ({"encoder": "pixels"}, WeightsError, r"pixels: gives one vector a picture and no map of it"),
        (
            {"encoder": "random/resnet18?size=64", "method": "attention"},
            WeightsError,
            r"random/resnet18\?size=64: has no CLS .* take another --method: tokencut, lost, kmeans",
        ),
        ({"data": "nowhere"}, DataError, "nowhere"),
    ],
)
def test_what_cannot_be_is_told_before_any_work(
    options: dict[str, Any], error: type[Exception], message: str, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        api.objects(**({"encoder": VIT, "data": images, "out": tmp_path / "o.json"} | options))
    assert list(tmp_path.iterdir()) == []


def test_too_many_bad_images_and_none_that_can_be_read(images: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--strict stops at the first image") as stopped:
        api.objects(VIT, images, tmp_path / "o.json", method="kmeans", strict=True)
    assert "listed in" in str(stopped.value)
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "x.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(DataError, match=r"not one of 1 images can be read; first: x\.png"):
        api.objects(VIT, bad, tmp_path / "none.json", method="kmeans", max_bad=100)


@pytest.mark.parametrize("format", ["yolo", "masks"])
def test_folders_are_made_whole_and_the_sheet_shows_them(format: str, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    found = api.objects(
        VIT, images, out, method="attention", format=format, sheet=tmp_path / "s.png", refine="guided", max_bad=50, workers=1
    )
    assert found["files"] == [str(out), str(tmp_path / "s.png")]
    assert len(list(out.rglob("*.txt" if format == "yolo" else "*.png"))) >= 19
    sheet = np.asarray(Image.open(tmp_path / "s.png"))
    assert sheet.shape[1] > 1600
    assert (np.ptp(sheet, axis=-1) > 40).mean() > 0.01  # objects are in colours, these pictures are grey
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.png", "set", "set.bad_images.jsonl"]


def test_the_closing_line(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(words(images, tmp_path / "o.json"))
    assert left.value.code == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.match(rf"done: {tmp_path}/o\.json, \d+ objects in 19 images, none in 1, [\d.]+ images/s; 1 file skipped", last)


@pytest.mark.parametrize("method", ["tokencut", "lost", "kmeans"])
def test_a_cnn_finds_a_thing_in_a_picture(method: str, tmp_path: Path, a_scene: Callable[[Path], np.ndarray]) -> None:
    (tmp_path / "data").mkdir()
    there = a_scene(tmp_path / "data" / "scene.png")
    api.objects("efficientnet-lite0", tmp_path / "data", tmp_path / "o.json", method=method, size=320)
    each = found_in(tmp_path / "o.json")["annotations"][0]
    mask = mask_of(each)
    assert (mask & there).sum() / (mask | there).sum() > 0.4


@pytest.fixture
def a_scene() -> Callable[[Path], np.ndarray]:
    """Draws a speckled ball on soft ground; gives where it lies."""

    def draw(path: Path) -> np.ndarray:
        noise = np.random.default_rng(0)
        y, x = np.mgrid[:240, :320]
        ball = (y - 100) ** 2 + (x - 190) ** 2 < 62**2
        ground = ndimage.gaussian_filter(noise.standard_normal((240, 320, 3)), (12, 12, 0)) * 160 + (90, 120, 80)
        speckles = np.where((x // 9 + y // 9)[..., None] % 2, (220, 60, 40), (250, 230, 200))
        picture = np.where(ball[..., None], speckles, ground)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(path)
        return ball

    return draw

"""`selfsight attend`: an image, a folder, a video; what is gone on with, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

import films
import pictures
import selfsight
from selfsight.api import Silent
from selfsight.attention import films as attention_films
from selfsight.attention.colouring import heat
from selfsight.attention.components import Components
from selfsight.attention.films import rate_of, write_gif
from selfsight.attention.looking import Gaze, offers
from selfsight.attention.naming import label_of
from selfsight.attention.seeing import Eyes
from selfsight.cli import main
from selfsight.data.tolerance import TooManyBadError
from selfsight.encoders import load_encoder
from selfsight.errors import ConfigError, InputError, WeightsError

VIT = "random/vit_w32_d2_p8?size=32"
CNN = "random/test_efficientnet?size=64"


AT_THE_FIFTH_FILE = """
import os, signal, sys
seen = []
def hook(event, args):
    if event == "os.rename" and "/pictures/" in str(args[1]):
        seen.append(args)
        if len(seen) == 5:
            os.kill(os.getpid(), signal.{name})
sys.addaudithook(hook)
"""
"""Within the third picture of two maps."""


class Stopping(Silent):
    """Looks on, and stops the work after so many pictures, as Ctrl-C would."""

    def __init__(self, after: int) -> None:
        self.after, self.drawn, self.lines = after, 0, list[str]()

    def say(self, text: str) -> None:
        self.lines.append(text)

    def advance(self, what: str, done: int, total: int) -> None:
        self.drawn += what == "drawing maps"
        if self.drawn == self.after:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures.folder(tmp_path_factory.mktemp("attend") / "photos", 6, classes=2)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "one.png"
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((80, 60), Image.Resampling.BICUBIC).save(path)
    return path


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "pictures.jsonl").read_text().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    """Of the pictures; what a killed process was writing has a name that begins with a point."""
    return {name: (folder / name).read_bytes() for name in tree(folder) if name.endswith(".png") and "/." not in name}


def test_an_image_gives_pictures_arrays_and_a_sheet(image: Path, tmp_path: Path) -> None:
    summary = selfsight.attend(VIT, image, tmp_path / "out", query=(70, 10))
    names = ["attention", "heads", "mask", "rollout", "point", "similarity", "pca", "norm"]
    assert summary["maps"] == names
    assert summary["pictures"] == 1
    expected = ["arrays/one.png.npz", "manifest.json", "pictures.jsonl", "sheet.png"]
    assert tree(tmp_path / "out") == sorted([*expected, *(f"pictures/one.png.{name}.png" for name in names)])
    assert rows(tmp_path / "out") == [{"key": "one.png", "name": "one.png", "grid": [4, 5], "outliers": 0.0}]
    with np.load(tmp_path / "out/arrays/one.png.npz") as arrays:
        assert {name: arrays[name].shape for name in names} == {
            **dict.fromkeys(("attention", "mask", "rollout", "point", "similarity", "norm"), (4, 5)),
            "heads": (arrays["heads"].shape[0], 4, 5),
            "pca": (4, 5, 3),
        }
        np.testing.assert_allclose(arrays["attention"], arrays["heads"].mean(0), atol=1e-6)
        assert arrays["similarity"][0, 4] == pytest.approx(1, abs=1e-5)
        eyes = Eyes(load_encoder(VIT))
        with Image.open(image) as opened:
            look = Gaze(eyes, offers(eyes))(opened.convert("RGB"), (70 / 80, 10 / 60))
        np.testing.assert_array_equal(arrays["heads"].reshape(look.attention.shape), look.attention)  # type: ignore[union-attr]


def test_a_map_lies_on_its_picture_brightest_where_it_is_greatest(image: Path, tmp_path: Path) -> None:
    selfsight.attend(VIT, image, tmp_path, maps="norm")
    with np.load(tmp_path / "arrays/one.png.npz") as arrays:
        norm = arrays["norm"]
    with Image.open(tmp_path / "pictures/one.png.norm.png") as drawn:
        assert drawn.size == (320, 240)
        pixels = np.asarray(drawn, dtype=float)
    y, x = np.unravel_index(norm.argmax(), norm.shape)
    least_y, least_x = np.unravel_index(norm.argmin(), norm.shape)
    step_y, step_x = 240 // norm.shape[0], 320 // norm.shape[1]
    most = pixels[y * step_y + step_y // 2, x * step_x + step_x // 2]
    least = pixels[least_y * step_y + step_y // 2, least_x * step_x + step_x // 2]
    assert np.abs(most - heat(np.ones(()))).max() < 60
    assert most.mean() - least.mean() > 80


def test_colours_are_the_same_over_a_folder(photos: Path, tmp_path: Path) -> None:
    """One set of components, kept, colours the features of every picture."""
    selfsight.attend(VIT, photos, tmp_path, maps="pca,component", format="npz")
    with np.load(tmp_path / "components.npz") as kept:
        components = Components.of(dict(kept))
    gaze = Gaze(Eyes(load_encoder(VIT)))
    for row in rows(tmp_path):
        with Image.open(photos / row["key"]) as opened, np.load(tmp_path / "arrays" / f"{row['name']}.npz") as arrays:
            patches = gaze(opened.convert("RGB")).patches
            np.testing.assert_array_equal(arrays["pca"].reshape(-1, 3), components.colours(patches))
            np.testing.assert_array_equal(arrays["component"].ravel(), components.along(patches))


def test_a_cnn_has_maps_without_attention(image: Path, tmp_path: Path) -> None:
    summary = selfsight.attend(CNN, image, tmp_path, query="10,10", format="npz")
    assert summary["maps"] == ["similarity", "pca", "component", "norm"]
    assert summary["outliers"] is None
    with pytest.raises(ConfigError, match=r"--registers auto: .* is no transformer and has no outlier tokens"):
        selfsight.attend(CNN, image, tmp_path / "other", registers="auto")


def test_a_folder_is_gone_on_with_where_it_was_left(photos: Path, tmp_path: Path) -> None:
    whole = selfsight.attend(VIT, photos, tmp_path / "whole", rows=3)
    assert whole["pictures"] == 6
    with pytest.raises(KeyboardInterrupt):
        selfsight.attend(VIT, photos, tmp_path / "parts", rows=3, watch=Stopping(after=4))
    done = rows(tmp_path / "parts")
    assert len(done) == 4
    made = {name: (tmp_path / "parts" / name).stat().st_mtime_ns for name in tree(tmp_path / "parts") if "pictures/" in name}
    watch = Stopping(after=-1)
    summary = selfsight.attend(VIT, photos, tmp_path / "parts", rows=3, watch=watch)
    assert summary["resumed"] == 4
    assert watch.drawn == 2
    assert watch.lines == [f"{tmp_path / 'parts'}: goes on after 4 of 6 pictures"]
    assert all((tmp_path / "parts" / name).stat().st_mtime_ns == at for name, at in made.items())
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    again = Stopping(after=-1)
    assert selfsight.attend(VIT, photos, tmp_path / "parts", rows=3, watch=again)["pictures"] == 6
    assert again.drawn == 0
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGKILL", -9)])
def test_a_signal_costs_one_picture_at_most(name: str, code: int, photos: Path, tmp_path: Path) -> None:
    words = ["attend", VIT, str(photos), "--out", str(tmp_path / "parts"), "--maps", "norm,pca"]
    program = f"{AT_THE_FIFTH_FILE.format(name=name)}\nfrom selfsight.cli import main\nmain({words!r})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    if name == "SIGTERM":
        assert done.stderr.startswith("selfsight: stopped by SIGTERM; what is done is kept, go on with: selfsight")
    summary = selfsight.attend(VIT, photos, tmp_path / "parts", maps="norm,pca")
    assert summary["resumed"] == 2
    selfsight.attend(VIT, photos, tmp_path / "whole", maps="norm,pca")
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert [row["key"] for row in rows(tmp_path / "parts")] == [row["key"] for row in rows(tmp_path / "whole")]


def test_a_sheet_that_was_removed_is_drawn_again(photos: Path, tmp_path: Path) -> None:
    selfsight.attend(VIT, photos, tmp_path, maps="attention", rows=2)
    before = (tmp_path / "sheet.png").read_bytes()
    (tmp_path / "sheet.png").unlink()
    watch = Stopping(after=-1)
    selfsight.attend(VIT, photos, tmp_path, maps="attention", rows=2, watch=watch)
    assert (tmp_path / "sheet.png").read_bytes() == before
    assert watch.drawn == 2
    assert len(rows(tmp_path)) == 6


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"mass": 0.5}, "was begun with --mass 0.6, which is now 0.5"),
        ({"maps": "norm"}, "was begun with --maps attention, which is now norm"),
        ({"format": "png"}, "was begun with --format sheet, which is now png"),
        ({"registers": "auto"}, "was begun with --registers off, which is now auto"),
        ({"size": 40}, "was begun with --size 32, which is now 40"),
        ({"limit": 1}, "was begun with a list of images of length 2, which is now 1"),
        ({"encoder": VIT.replace("d2", "d1")}, "was begun with encoder random/vit_w32_d2"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused(photos: Path, tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    given = {"encoder": VIT, "input": photos, "out": tmp_path, "maps": "attention", "format": "sheet", "limit": 2}
    selfsight.attend(**given)
    before = tree(tmp_path)
    with pytest.raises(InputError, match=f"{said}.*; remove the folder to begin anew, or give another --out"):
        selfsight.attend(**{**given, **changed})
    assert tree(tmp_path) == before


def test_another_image_of_the_same_name_is_refused(image: Path, tmp_path: Path) -> None:
    copy = tmp_path / "one.png"
    shutil.copy(image, copy)
    selfsight.attend(VIT, copy, tmp_path / "out", maps="norm", format="npz")
    pictures.noise(copy)
    with pytest.raises(InputError, match="was begun with a list of images of length 1, which is now another of that name"):
        selfsight.attend(VIT, copy, tmp_path / "out", maps="norm", format="npz")


def test_bad_images_are_listed_and_too_many_of_them_stop_the_work(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    spoilt = min((tmp_path / "photos").rglob("*.png"))
    spoilt.write_bytes(b"no image")
    with pytest.raises(TooManyBadError, match=r"1 of 6 images cannot be read \(16.7 %\).*listed in .*bad_images.jsonl"):
        selfsight.attend(VIT, tmp_path / "photos", tmp_path / "out", maps="norm")
    summary = selfsight.attend(VIT, tmp_path / "photos", tmp_path / "out", maps="norm", max_bad=50)
    assert (summary["pictures"], summary["bad_images"]) == (5, 1)
    listed = [json.loads(line) for line in (tmp_path / "out/bad_images.jsonl").read_text().splitlines()]
    assert listed == [{"key": spoilt.relative_to(tmp_path / "photos").as_posix(), "reason": "no known image format"}]
    with pytest.raises(TooManyBadError, match="--strict stops at the first image"):
        selfsight.attend(VIT, tmp_path / "photos", tmp_path / "strict", maps="norm", strict=True)


def test_a_point_outside_a_picture_is_said(image: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^--query 90,10: lies outside of one\.png, which is 80 x 60 pixels$"):
        selfsight.attend(VIT, image, tmp_path, query=(90, 10))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"query": "10"}, "--query: expected x,y in pixels of the picture, from the left and from the top. Got '10'."),
        ({"query": "a,b"}, "--query: expected x,y in pixels"),
        ({"query": (-1, 3)}, "--query: expected x,y in pixels"),
        ({"mass": 0}, r"--mass: expected a share above 0 and up to 1. Got 0."),
        ({"registers": "on"}, "--registers: expected off or auto. Got 'on'."),
        ({"rows": 0}, "--rows: expected a whole number from 1. Got 0."),
        ({"format": "jpg"}, r"--format: no format 'jpg'. Did you mean 'png'\?"),
        ({"format": "mp4"}, "--format mp4: is for videos; take png, npz or sheet for images"),
        ({"maps": "colour"}, "--maps: no map 'colour'"),
        ({"block": 2}, "--block 2: random/.* has blocks 0 to 1"),
        ({"max_bad": 101}, "--max-bad: expected a percentage"),
        ({"device": "gpu"}, "expected auto, cpu, cuda"),
        ({"input": "nowhere.png"}, "nowhere.png: does not exist"),
        ({"encoder": "pixels"}, "pixels: gives one vector a picture"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(image: Path, tmp_path: Path, given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        selfsight.attend(**{"encoder": VIT, "input": image, "out": tmp_path / "out", **given})
    assert not (tmp_path / "out").exists()


def test_a_network_of_one_shape_is_refused(image: Path, tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError,
        match=r"swin_tiny_patch4_window7_224: does not take pictures of 224 x 288 .*; maps need one that takes any shape",
    ):
        selfsight.attend("random/swin_tiny_patch4_window7_224", image, tmp_path)


def test_a_call_that_made_nothing_may_be_corrected(image: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--query 5000,1: lies outside of one"):
        selfsight.attend(VIT, image, tmp_path / "out", query=(5000, 1))
    assert selfsight.attend(VIT, image, tmp_path / "out", query=(5, 1))["pictures"] == 1


def test_a_size_that_no_memory_holds_is_refused(image: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--size 1000000: is more than memory holds of a picture; expected a number up to 8192"):
        selfsight.attend(VIT, image, tmp_path / "out", size=1_000_000)


@pytest.mark.parametrize("rate", [24, 25, 30])
def test_a_gif_keeps_the_time_of_its_film(rate: int, tmp_path: Path) -> None:
    frames = [tmp_path / f"{number}.png" for number in range(31)]
    for number, frame in enumerate(frames):
        Image.new("RGB", (16, 16), (8 * number, 0, 0)).save(frame)
    write_gif(tmp_path / "film.gif", frames, [number / rate for number in range(31)])
    with Image.open(tmp_path / "film.gif") as film:
        lasted = 0
        for number in range(film.n_frames):
            film.seek(number)
            lasted += film.info["duration"]
    assert lasted == pytest.approx(1000 * 31 / rate, abs=6)


def test_a_folder_of_somebody_else_is_refused(image: Path, tmp_path: Path) -> None:
    (tmp_path / "sheet.png").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"holds 'sheet.png' and no manifest.json of attend; give a new folder"):
        selfsight.attend(VIT, image, tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match=r"its manifest.json is not of attend, or damaged"):
        selfsight.attend(VIT, image, tmp_path)
    assert (tmp_path / "sheet.png").read_bytes() == b"mine"


def test_keys_that_lead_out_of_the_folder_do_not(tmp_path: Path) -> None:
    table = tmp_path / "data" / "images.csv"
    pictures.noise(tmp_path / "out.png")
    table.parent.mkdir()
    table.write_text("path\n../out.png\n")
    selfsight.attend(VIT, table, tmp_path / "maps", maps="norm", format="png")
    (row,) = rows(tmp_path / "maps")
    assert (tmp_path / "maps" / "pictures" / f"{row['name']}.norm.png").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "maps", "out.png"]


# Videos


def shown_at(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]  # type: ignore[operator]


def test_a_video_gives_a_film_of_the_same_frames_at_the_same_times(tmp_path: Path) -> None:
    clip = films.film(tmp_path / "clip.mp4", 9, rate=25, stamps=[0, 1, 2, 3, 4, 8, 9, 10, 11])
    summary = selfsight.attend(VIT, clip, tmp_path / "out", maps="attention,pca", format="mp4,gif,sheet", rows=3)
    assert tree(tmp_path / "out") == [
        "components.npz",
        "films/clip.mp4.gif",
        "films/clip.mp4.mp4",
        "manifest.json",
        "pictures.jsonl",
        "sheet.png",
    ]
    film = Path(summary["films"][0])
    np.testing.assert_allclose(shown_at(film), shown_at(clip), atol=1e-4)
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        assert stream.width % 2 == stream.height % 2 == 0
    first = films.decoded(film)[0]
    left = first[21:, : first.shape[1] // 3]
    assert left[: len(left) // 2, 4].mean() < 60  # the bars of number 0 are black
    with Image.open(summary["films"][1]) as gif:
        assert gif.n_frames == 9  # type: ignore[attr-defined]
        assert gif.info["duration"] == 40


def test_a_film_without_h264_is_one_of_mpeg4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_films, "_CODECS", ("no such codec", "mpeg4"))
    clip = films.film(tmp_path / "clip.mp4", 4)
    (film,) = selfsight.attend(VIT, clip, tmp_path / "out", maps="norm", format="mp4")["films"]
    np.testing.assert_allclose(shown_at(Path(film)), shown_at(clip), atol=1e-4)


def test_a_film_is_gone_on_with(tmp_path: Path) -> None:
    clip = films.film(tmp_path / "clip.mp4", 6)
    whole = selfsight.attend(VIT, clip, tmp_path / "whole", maps="norm")
    with pytest.raises(KeyboardInterrupt):
        selfsight.attend(VIT, clip, tmp_path / "parts", maps="norm", watch=Stopping(after=4))
    watch = Stopping(after=-1)
    parts = selfsight.attend(VIT, clip, tmp_path / "parts", maps="norm", watch=watch)
    assert watch.drawn == 2
    ours, theirs = (films.decoded(Path(made["films"][0])) for made in (parts, whole))
    assert len(ours) == len(theirs) == 6
    np.testing.assert_array_equal(ours, theirs)


def test_maps_are_not_written_among_the_pictures(photos: Path, tmp_path: Path) -> None:
    for out in (photos, photos / "deep" / "maps"):
        with pytest.raises(InputError, match=r"--out .*: lies in .*photos, whose pictures are read; give a place outside"):
            selfsight.attend(VIT, photos, out, maps="norm")
    with pytest.raises(InputError, match=r"--out /proc/maps: nothing can be written in /proc"):
        selfsight.attend(VIT, photos, "/proc/maps", maps="norm")


def test_names_of_any_kind_are_one_line_on_a_sheet() -> None:
    assert label_of("a\nb\tc\u202egnp.exe\x07.png") == "a?b?c?gnp.exe?.png"
    assert label_of("Käse 漢字/1.png") == "Käse 漢字/1.png"


def test_another_video_of_the_same_name_is_refused(tmp_path: Path) -> None:
    clip = films.film(tmp_path / "clip.mp4", 4)
    selfsight.attend(VIT, clip, tmp_path / "out", maps="norm", format="sheet")
    films.film(clip, 4, first=9)
    with pytest.raises(InputError, match="list of images of length 4, which is now another of that name"):
        selfsight.attend(VIT, clip, tmp_path / "out", maps="norm", format="sheet")


def test_videos_of_a_folder_have_a_film_each(tmp_path: Path) -> None:
    for name in ("a", "b/c"):
        films.film(tmp_path / "clips" / f"{name}.mp4", 3)
    summary = selfsight.attend(VIT, tmp_path / "clips", tmp_path / "out", maps="norm", format="mp4")
    assert [Path(film).relative_to(tmp_path / "out").as_posix() for film in summary["films"]] == [
        "films/a.mp4.mp4",
        "films/b/c.mp4.mp4",
    ]
    few = selfsight.attend(VIT, f"{tmp_path / 'clips'}?every=2", tmp_path / "few", maps="norm", format="mp4")
    assert few["pictures"] == 4
    assert few["films"]


def test_the_rate_of_a_film() -> None:
    assert rate_of([0.0]) == 1
    assert rate_of([0, 0.04, 0.08]) == 25
    assert str(rate_of([n * 1001 / 30000 for n in range(300)])) == "30000/1001"


# The command line


def test_the_command_says_what_it_made(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["attend", VIT, str(photos), "--out", str(tmp_path / "out"), "--limit", "2", "--maps", "attention, mask"])
    assert not stopped.value.code
    assert (
        capsys.readouterr()
        .out.splitlines()[-1]
        .startswith(f"done: {tmp_path / 'out'}, 2 pictures, maps attention, mask; look at {tmp_path / 'out' / 'sheet.png'}")
    )
    with pytest.raises(SystemExit) as stopped:
        main(["attend", VIT, str(photos), "--out", str(tmp_path / "out"), "--limit", "2", "--maps", "mask"])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"selfsight: {tmp_path / 'out'}: was begun with --maps attention,mask, which is now mask;")
    assert error.count("\n") == 1


def test_one_picture_is_one(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb, options, said in (
        ("attend", ["--maps", "norm", "--out", str(tmp_path / "maps")], "maps, 1 picture, maps norm"),
        ("objects", ["--method", "attention", "--out", str(tmp_path / "o.json")], "1 object in 1 image, "),
    ):
        with pytest.raises(SystemExit) as left:
            main([verb, VIT, str(image if verb == "attend" else image.parent), *options])
        assert left.value.code == 0
        assert said in capsys.readouterr().out.splitlines()[-1]

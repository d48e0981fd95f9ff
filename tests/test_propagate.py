"""`propagate` on films whose masks are known: what it finds, what it leaves, how it goes on, what it refuses."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from films import decoded, still
from moving import HEIGHT, WIDTH, Film, film
from selfsight import api, masks
from selfsight.api.watch import Silent
from selfsight.cli import main
from selfsight.data.object_ids import palette, read_ids, write_ids
from selfsight.errors import DataError, InputError, WeightsError
from selfsight.evaluate.tracks import Tracks

ENCODER = "random/vit_w32_d2_p8?size=32"
SETTINGS: dict[str, Any] = {"size": 96, "radius": 4}


@pytest.fixture(scope="module")
def moving() -> Film:
    return film(10)


@pytest.fixture(scope="module")
def place(moving: Film, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of frames and a folder of true masks, the first of which is the start."""
    at = tmp_path_factory.mktemp("film")
    moving.folder(at / "frames")
    moving.truth(at / "truth")
    return at


@pytest.fixture(scope="module")
def made(place: Path) -> dict[str, Any]:
    """What an uninterrupted call leaves in `whole`."""
    return propagate(place, place / "whole", truth=place / "truth")


def propagate(place: Path, out: Path, **changes: Any) -> dict[str, Any]:
    given = {"encoder": ENCODER, "video": place / "frames", "mask": place / "truth/00000.png", **SETTINGS, **changes}
    return api.propagate(out=out, **given)


def found_in(out: Path) -> dict[str, np.ndarray]:
    return {path.name: read_ids(path) for path in sorted((out / "masks").iterdir())}


# --- what is found --------------------------------------------------------------------------------------------------


def test_things_that_move_are_followed_far_better_than_by_standing_still(made: dict[str, Any]) -> None:
    scores = made["scores"]
    assert made["frames"] == 10 and scores["frames"] == 8
    assert made["objects"] == [1, 2]
    assert made["grid"] == (12, 18)
    for each in ("1", "2"):
        assert scores["objects"][each]["j"]["mean"] > 70
    assert scores["j"]["mean"] > 2 * scores["floor"]["j"]
    assert scores["f"]["mean"] > 2 * scores["floor"]["f"]


def test_what_moves_further_than_the_radius_is_lost(tmp_path: Path) -> None:
    """Twelve pixels a frame are more than two places."""
    fast = film(6, shift=12)
    fast.folder(tmp_path / "frames")
    fast.truth(tmp_path / "truth")
    near, far = (
        propagate(tmp_path, tmp_path / f"radius{radius}", radius=radius, context=0, truth=tmp_path / "truth")["scores"]
        for radius in (1, 12)
    )
    assert far["objects"]["1"]["j"]["mean"] > 70 > 50 > near["objects"]["1"]["j"]["mean"]


def test_scores_are_those_of_the_masks_that_were_written(made: dict[str, Any], place: Path, moving: Film) -> None:
    found = [read_ids(place / f"whole/masks/{n:05d}.png") for n in range(10)]
    j = {each: [float(masks.jaccard(found[n] == each, moving.ids[n] == each)) for n in range(1, 9)] for each in (1, 2)}
    f = {each: [masks.boundary_f(found[n] == each, moving.ids[n] == each) for n in range(1, 9)] for each in (1, 2)}
    stays = [float(masks.jaccard(moving.ids[0] == each, moving.ids[n] == each)) for each in (1, 2) for n in range(1, 9)]
    kept = json.loads((place / "whole/scores.json").read_text())
    assert kept == made["scores"]
    assert kept["objects"]["2"]["j"] == pytest.approx(masks.course(j[2])._asdict())
    assert kept["j"]["mean"] == pytest.approx(50 * (np.mean(j[1]) + np.mean(j[2])))
    assert kept["f"]["decay"] == pytest.approx((masks.course(f[1]).decay + masks.course(f[2]).decay) / 2)
    assert kept["j_and_f"] == pytest.approx((kept["j"]["mean"] + kept["f"]["mean"]) / 2)
    assert kept["floor"]["j"] == pytest.approx(100 * np.mean(stays))


def test_masks_are_indexed_pictures_by_the_names_of_frames_and_the_first_is_the_given_one(
    made: dict[str, Any], place: Path, moving: Film
) -> None:
    found = found_in(place / "whole")
    assert list(found) == [f"{n:05d}.png" for n in range(10)]
    np.testing.assert_array_equal(found["00000.png"], moving.ids[0])
    with Image.open(place / "whole/masks/00004.png") as image:
        assert image.mode == "P" and image.size == (WIDTH, HEIGHT)
        assert image.getpalette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]  # type: ignore[index]
        assert set(np.unique(image)) == {0, 1, 2}


def test_the_film_shows_each_frame_with_its_objects(made: dict[str, Any], place: Path, moving: Film) -> None:
    shown = decoded(place / "whole/overlay.mp4")
    assert len(shown) == 10 and shown[0].shape == (HEIGHT, WIDTH, 3)
    found = read_ids(place / "whole/masks/00005.png")
    away, change = found == 0, np.abs(shown[5].astype(int) - moving.frames[5]).mean(2)
    assert change[away].mean() < 12
    assert change[found == 1].mean() > 30 and change[found == 2].mean() > 30


def test_a_file_of_video_is_followed_as_its_frames_are(moving: Film, place: Path, tmp_path: Path) -> None:
    clip = moving.file(tmp_path / "clip.mp4")
    made = propagate(place, tmp_path / "out", video=clip, truth=place / "truth")
    assert list(found_in(tmp_path / "out")) == [f"{n:05d}.png" for n in range(10)]
    assert made["scores"]["j_and_f"] > 70
    assert len(decoded(tmp_path / "out/overlay.mp4")) == 10


def test_numbers_of_objects_stay_and_a_mask_of_black_and_white_has_one(place: Path, moving: Film, tmp_path: Path) -> None:
    write_ids(tmp_path / "mask.png", np.where(moving.ids[0] == 2, 255, 0).astype(np.uint8))
    made = propagate(place, tmp_path / "out", mask=tmp_path / "mask.png")
    assert made["objects"] == [255] and made["scores"] is None
    last = read_ids(tmp_path / "out/masks/00009.png")
    assert set(np.unique(last)) == {0, 255}
    assert masks.jaccard(last == 255, moving.ids[9] == 2) > 0.6


def test_sides_that_are_odd_and_no_multiple_of_anything(tmp_path: Path) -> None:
    cut = Film(*(each[:, 1:, 3:] for each in film(3)))
    cut.folder(tmp_path / "frames")
    cut.truth(tmp_path / "truth")
    propagate(tmp_path, tmp_path / "out")
    assert read_ids(tmp_path / "out/masks/00002.png").shape == (HEIGHT - 1, WIDTH - 3)
    assert decoded(tmp_path / "out/overlay.mp4")[0].shape == (HEIGHT, WIDTH - 2, 3)


# --- scores ---------------------------------------------------------------------------------------------------------


def test_pixels_of_which_nobody_says_whose_they_are_take_no_part() -> None:
    first, true = np.zeros((20, 20), dtype=np.uint8), np.zeros((20, 20), dtype=np.uint8)
    first[5:15, 5:15] = true[5:15, 5:15] = 3
    found = true.copy()
    found[5:15, 15:18] = 3
    tracks, strict = Tracks(first, [3]), Tracks(first, [3])
    strict.add(found, true)
    true[5:15, 15:18] = 255
    tracks.add(found, true)
    assert strict.scores()["j"]["mean"] == pytest.approx(100 * 100 / 130)
    assert tracks.scores()["j"]["mean"] == 100
    assert tracks.scores()["floor"]["j_and_f"] == 100


def test_where_255_is_the_object_it_is_no_void() -> None:
    ids = np.zeros((4, 4), dtype=np.uint8)
    ids[:2] = 255
    tracks = Tracks(ids, [255])
    tracks.add(ids[::-1], ids)
    assert tracks.scores()["j"]["mean"] == 0


# --- going on -------------------------------------------------------------------------------------------------------


class StopsAt(Silent):
    """Whoever looks on and has had enough."""

    def __init__(self, frame: int) -> None:
        self.frame = frame
        self.said: list[str] = []
        self.seen: list[int] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def advance(self, what: str, done: int, total: int) -> None:
        if what == "frames":
            self.seen.append(done)
            if done == self.frame:
                raise KeyboardInterrupt


@pytest.mark.parametrize("frame", [1, 2, 9])
def test_it_goes_on_to_the_same_masks_wherever_it_stopped(frame: int, made: dict[str, Any], place: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        propagate(place, tmp_path / "out", watch=StopsAt(frame))
    assert len(found_in(tmp_path / "out")) == frame
    second = StopsAt(-1)
    again = propagate(place, tmp_path / "out", truth=place / "truth", watch=second)
    assert second.seen[0] == again["resumed"] == frame
    assert second.said == [f"{tmp_path / 'out'}: goes on after {frame} of 10 frames"]
    assert again["scores"] == made["scores"]
    whole, found = found_in(place / "whole"), found_in(tmp_path / "out")
    assert all(np.array_equal(whole[name], found[name]) for name in whole)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in (place / "whole").iterdir())


def test_what_is_done_is_not_done_again_and_can_be_measured_later(place: Path, tmp_path: Path) -> None:
    propagate(place, tmp_path / "out")
    before = (tmp_path / "out/overlay.mp4").stat().st_mtime_ns
    watch = StopsAt(-1)
    made = propagate(place, tmp_path / "out", truth=place / "truth", watch=watch)
    assert made["resumed"] == 10 and watch.seen == []
    assert made["scores"]["frames"] == 8
    assert (tmp_path / "out/overlay.mp4").stat().st_mtime_ns == before


def test_masks_that_went_missing_are_made_again(place: Path, tmp_path: Path, made: dict[str, Any]) -> None:
    with pytest.raises(KeyboardInterrupt):
        propagate(place, tmp_path / "out", watch=StopsAt(6))
    (tmp_path / "out/masks/00002.png").unlink()
    assert propagate(place, tmp_path / "out")["resumed"] == 0
    assert np.array_equal(found_in(tmp_path / "out")["00009.png"], found_in(place / "whole")["00009.png"])


def test_a_signal_ends_it_with_the_command_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    long = film(60, shift=0)
    long.folder(tmp_path / "frames")
    long.truth(tmp_path / "truth")
    out = tmp_path / "out"
    words = ["propagate", ENCODER, f"{tmp_path}/frames", f"{tmp_path}/truth/00000.png", "--out", f"{out}", "--size", "96"]
    monkeypatch.setattr(sys, "argv", ["selfsight", *words])

    over = threading.Event()

    def when_begun() -> None:
        while not (out / "masks/00003.png").is_file():
            if over.wait(0.001):
                return
        os.kill(os.getpid(), signal.SIGINT)

    waiting = threading.Thread(target=when_begun)
    waiting.start()
    try:
        with pytest.raises(SystemExit) as stopped:
            main(words)
    finally:
        over.set()
        waiting.join()
    told = capsys.readouterr().err
    assert stopped.value.code == 130
    assert told.startswith("selfsight: stopped by SIGINT; masks that are done are kept; go on with: selfsight propagate ")
    assert 4 <= len(found_in(out)) < 60
    with pytest.raises(SystemExit) as done:
        main(shlex.split(told.split("go on with: ")[1])[1:])
    assert done.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "of 60 frames" in shown
    assert "2 objects in 60 frames, seen as 12 x 18 places" in shown
    assert len(found_in(out)) == 60


# --- on the command line --------------------------------------------------------------------------------------------


def test_the_command_prints_measures_of_each_object_and_what_standing_still_would_have(
    place: Path, made: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    given = [ENCODER, f"{place}/frames", f"{place}/truth/00000.png", "--out", f"{place}/whole", "--truth", f"{place}/truth"]
    with pytest.raises(SystemExit) as left:
        main(["propagate", *given, "--size", "96", "--radius", "4"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    scores = made["scores"]
    assert f"{scores['objects']['2']['f']['mean']:.1f}" in shown
    still_there = scores["floor"]["j_and_f"]
    assert f"J&F {scores['j_and_f']:.1f} over 8 frames; {still_there:.1f} where the first mask stays where it is" in shown


# --- what is refused ------------------------------------------------------------------------------------------------


def changed(place: Path, folder: Path, what: str) -> dict[str, Any]:
    """One thing made wrong."""
    folder.mkdir()
    bad = folder / "bad.png"
    if what == "size of the mask":
        write_ids(bad, np.ones((10, 12), dtype=np.uint8))
    elif what == "no object":
        write_ids(bad, np.zeros((HEIGHT, WIDTH), dtype=np.uint8))
    elif what == "colours":
        Image.new("RGB", (WIDTH, HEIGHT)).save(bad)
    elif what == "blurred edges":
        Image.fromarray(np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)).save(bad)
    elif what == "no picture":
        bad.write_text("a mask")
    elif what == "damage":
        write_ids(bad, np.random.default_rng(0).integers(0, 9, (HEIGHT, WIDTH), dtype=np.uint8))
        bad.write_bytes(bad.read_bytes()[:-400])
    elif what == "a small object":
        ids = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        ids[20:40, 20:40], ids[0, 0] = 1, 4
        write_ids(bad, ids)
    return {"mask": bad}


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("size of the mask", r"bad\.png: has 12 x 10 pixels; expected 96 x 64 as the frames of .*frames have"),
        ("no object", r"bad\.png: shows no object, all is background; expected an indexed PNG"),
        ("colours", r"bad\.png: holds colours or wide numbers \(mode RGB\); expected an indexed PNG, whose numbers say"),
        ("blurred edges", r"bad\.png: holds 254 different numbers; expected at most 32 objects and no blurred edges"),
        ("no picture", r"bad\.png: cannot be read \(no known image format\); expected an indexed PNG"),
        ("damage", r"bad\.png: cannot be read \(.*truncated.*\); expected an indexed PNG"),
        ("nothing", r"bad\.png: does not exist; expected an indexed PNG"),
        ("a small object", r"bad\.png: object 4 is too small for a map of 12 x 18 places; give a larger --size"),
    ],
)
def test_a_wrong_mask_is_one_line_and_leaves_nothing(what: str, message: str, place: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as told:
        propagate(place, tmp_path / "out", **changed(place, tmp_path / "given", what))
    assert "\n" not in str(told.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (None, r"--truth .*: expected a folder of indexed PNGs, named like the frames \(00000\.png, \.\.\.\)"),
        ("00010.png", r"00010\.png: no frame has this name; frames go from 00000 to 00009"),
        ("00009.png", r"holds no mask of a frame between the first and the last, which DAVIS leaves out"),
        ("00003.png", r"00003\.png: has 8 x 8 pixels; expected 96 x 64"),
        ("00004.png", r"00004\.png: holds colours or wide numbers \(mode RGB\)"),
    ],
)
def test_wrong_true_masks_are_told_before_the_work(name: str | None, message: str, place: Path, tmp_path: Path) -> None:
    (tmp_path / "truth").mkdir()
    if name:
        side = (8, 8) if name == "00003.png" else (HEIGHT, WIDTH)
        write_ids(tmp_path / "truth" / name, np.ones(side, dtype=np.uint8))
    if name == "00004.png":
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "truth" / name)
    with pytest.raises(DataError, match=message):
        propagate(place, tmp_path / "out", truth=tmp_path / "truth")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"radius": 5}, r"\(radius was 4, is 5 now\)"),
        ({"encoder": "random/vit_w32_d1_p8?size=32"}, r"\(encoder was random/vit_w32_d2_p8\?size=32, is random/vit_w32_d1_p8"),
        ({"mask": "00002.png"}, r"\(the mask was another one\)"),
        ({"video": "fewer"}, r"\(video was .*/frames, is .*/fewer now\)"),
    ],
)
def test_a_folder_of_another_call_is_refused(
    changes: dict[str, Any], message: str, made: dict[str, Any], place: Path, tmp_path: Path
) -> None:
    if "mask" in changes:
        changes = {"mask": place / "truth" / changes["mask"]}
    if "video" in changes:
        changes = {"video": film(4).folder(tmp_path / "fewer")}
    with pytest.raises(InputError, match=r"--out .*whole: holds the masks of another call " + message):
        propagate(place, place / "whole", **changes)


def test_masks_are_not_written_among_the_frames(place: Path) -> None:
    for out in (place / "frames", place / "frames" / "out"):
        with pytest.raises(InputError, match=r"--out .*: lies in .*frames, whose pictures are read; give a place outside"):
            propagate(place, out)
    with pytest.raises(InputError, match="--out /proc/out: nothing can be written in /proc"):
        propagate(place, Path("/proc/out"))


def test_masks_of_somebody_else_are_not_written_over(place: Path, tmp_path: Path) -> None:
    write_ids(tmp_path / "masks/00003.png", np.ones((4, 4), dtype=np.uint8))
    with pytest.raises(InputError, match="holds 'masks', which propagate did not make; give a new folder"):
        propagate(place, tmp_path)


def test_a_frame_of_another_size_or_damaged_is_named_and_those_before_are_kept(moving: Film, place: Path, tmp_path: Path) -> None:
    frames = moving.folder(tmp_path / "frames")
    whole = (frames / "00004.png").read_bytes()
    Image.new("RGB", (80, 64)).save(frames / "00004.png")
    with pytest.raises(DataError, match=r"frames: frame 00004 has 80x64 pixels; expected 96x64 as the first has"):
        propagate(place, tmp_path / "out", video=frames)
    assert len(found_in(tmp_path / "out")) == 4
    (frames / "00004.png").write_bytes(whole[:200])
    with pytest.raises(DataError, match=r"frames: frame 00004 cannot be read \("):
        propagate(place, tmp_path / "another", video=frames)
    assert len(found_in(tmp_path / "another")) == 4


def test_an_encoder_without_places_or_of_other_channels_is_refused(place: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="pixels: gives one vector a picture and no map of it"):
        propagate(place, tmp_path / "out", encoder="pixels")


def test_without_pyav_a_folder_of_frames_gets_its_masks_and_a_file_is_refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = still(tmp_path / "clip.mkv", np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8))
    few = film(3).folder(tmp_path / "frames")
    monkeypatch.setitem(sys.modules, "av", None)
    watch = StopsAt(-1)
    made = propagate(place, tmp_path / "out", video=few, watch=watch)
    assert made["files"] == [str(tmp_path / "out/masks")]
    assert watch.said == ["no overlay.mp4: videos need av: pip install 'selfsight[video]'"]
    with pytest.raises(DataError, match=r"videos need av: pip install 'selfsight\[video\]'"):
        propagate(place, tmp_path / "other", video=clip)


def test_colours_of_objects_are_those_of_davis() -> None:
    assert palette()[[4, 7, 8, 20]].tolist() == [[0, 0, 128], [128, 128, 128], [64, 0, 0], [0, 64, 128]]
    assert len(np.unique(palette(), axis=0)) == 256

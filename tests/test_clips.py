"""The frames of one video in order, from files and from folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from films import decoded, film, number_in
from selfsight.data.clips import RATE, open_clip
from selfsight.errors import DataError


def grey(path: Path, value: int) -> None:
    Image.new("RGB", (8, 6), (value, value, value)).save(path)


@pytest.mark.parametrize("bframes", [0, 3])
def test_frames_of_a_file_are_those_of_the_decoder_in_any_order(bframes: int, tmp_path: Path) -> None:
    path = film(tmp_path / "clip.mp4", 30, rate=12, bframes=bframes)
    clip, expected = open_clip(path), decoded(path)
    assert clip.names == [f"{n:05d}" for n in range(30)]
    assert clip.size == (80, 32)
    assert clip.rate == pytest.approx(12)
    for place in (*range(12), 0, 29, 3):
        pixels = np.asarray(clip.frame(place))
        assert number_in(pixels) == place
        np.testing.assert_array_equal(pixels, expected[place])
    clip.close()


def test_frames_of_a_folder_come_in_the_order_of_the_numbers_in_their_names(tmp_path: Path) -> None:
    for number in (10, 2, 1, 33):
        grey(tmp_path / f"frame{number}.png", number)
    (tmp_path / "notes.txt").write_text("no frame")
    (tmp_path / ".frame3.png").write_text("hidden")
    clip = open_clip(tmp_path)
    assert clip.names == ["frame1", "frame2", "frame10", "frame33"]
    assert [np.asarray(clip.frame(place))[0, 0, 0] for place in range(4)] == [1, 2, 10, 33]
    assert clip.rate == RATE


def test_a_mark_changes_with_the_frames(tmp_path: Path) -> None:
    grey(tmp_path / "1.png", 0)
    first = open_clip(tmp_path).mark
    assert open_clip(tmp_path).mark == first
    grey(tmp_path / "2.png", 0)
    second = open_clip(tmp_path).mark
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)).save(tmp_path / "2.png")
    assert len({first, second, open_clip(tmp_path).mark}) == 3


def test_what_is_no_video_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "twice").mkdir()
    for ending in ("png", "jpg"):
        grey(tmp_path / f"twice/1.{ending}", 0)
    for name, message in {
        "nowhere": "does not exist; expected a video file or a folder of frames",
        "empty": r"holds no pictures; expected the frames of a video, such as 00000\.jpg",
        "text.mp4": "Invalid data found.*; expected a video file or a folder of frames",
        "twice": "holds 2 frames named 1; expected one picture a frame",
    }.items():
        with pytest.raises(DataError, match=f"{name}: {message}") as told:
            open_clip(tmp_path / name)
        assert "\n" not in str(told.value)

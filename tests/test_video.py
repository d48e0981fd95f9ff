"""Frames of videos: the right one, in any order of access, from files of every kind and state."""

from __future__ import annotations

import multiprocessing
import pickle
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from films import BAR, BITS, HEIGHT, decoded, film, number_in, numbered
from leaks import held, no_more
from selfsight.data.decode import decode
from selfsight.data.loader import read_image, view_batches
from selfsight.data.sources import BadImage, Source, first, open_source
from selfsight.data.sources.video_frames import OpenVideo, every_nth, list_frames, per_second
from selfsight.data.views import ViewSettings
from selfsight.errors import DataError

KINDS: dict[str, dict[str, Any]] = {
    "h264.mp4": {},
    "h264-b.mp4": {"bframes": 3},
    "h264-b.mkv": {"bframes": 3},
    "h264-b.mov": {"bframes": 2, "gop": 5},
    "h264-b.ts.mpg": {"bframes": 2, "codec": "mpeg2video", "rate": 25},
    "mpeg4.mp4": {"codec": "mpeg4"},
    "mpeg4-b.avi": {"codec": "mpeg4", "bframes": 2},
    "mjpeg.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "vp8.webm": {"codec": "libvpx"},
    "ffv1.mkv": {"codec": "ffv1", "pixels": "bgr0"},
    "fragments.mp4": {"bframes": 2, "options": {"movflags": "frag_keyframe+empty_moov"}},
    "varying.mp4": {"stamps": [n * n // 2 + 3 * n for n in range(40)]},
    "varying.mkv": {"stamps": [n * n // 2 + 3 * n for n in range(40)], "bframes": 2},
    "late.mkv": {"stamps": [n + 70 for n in range(40)]},
    "hevc.mp4": {"codec": "libx265", "bframes": 3},
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSIGHT_CACHE", str(tmp_path / "cache"))


def pixels(source: Source, index: int) -> np.ndarray:
    return np.asarray(decode(source.image_bytes(index)))


def numbers(source: Source) -> list[int]:
    return [number_in(pixels(source, index)) for index in range(len(source))]


# --- every kind of file ---------------------------------------------------------------------------------------------


@pytest.fixture(params=sorted(KINDS))
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return film(tmp_path / request.param, 40, **KINDS[request.param])


def test_every_frame_is_that_of_a_straight_decode_in_any_order_of_access(path: Path) -> None:
    whole = decoded(path)
    assert [number_in(picture) for picture in whole] == list(range(40))
    source = open_source(f"{path}?every=1")
    assert len(source) == len(set(source.keys)) == 40
    for order in (range(40), reversed(range(40)), np.random.default_rng(0).permutation(40), [39, 0, 20, 21, 19]):
        fresh = open_source(f"{path}?every=1&cache_mb=1")
        for index in order:
            np.testing.assert_array_equal(pixels(fresh, int(index)), whole[int(index)])


def test_every_third_frame_is_taken_in_the_order_in_which_they_are_shown(path: Path) -> None:
    assert numbers(open_source(f"{path}?every=3")) == list(range(0, 40, 3))


def test_a_frame_costs_no_more_than_the_way_from_its_keyframe(tmp_path: Path) -> None:
    for name in ("h264.mp4", "h264-b.mp4", "h264-b.mkv", "mpeg4.mp4", "vp9.webm", "ffv1.mkv", "varying.mkv", "hevc.mp4"):
        path = film(tmp_path / name, 60, **{**KINDS[name], "gop": 12, "stamps": None})
        frames = list_frames(str(path), every_nth(1))
        video = OpenVideo(str(path), frames.counted)
        for place in (50, 3, 30, 31, 32, 14):
            before = video.decoded
            assert number_in(video.frame(frames, place, lambda *_: None).to_ndarray(format="rgb24")) == place
            assert video.decoded - before <= 24 + 4, (name, place, video.decoded - before)
        video.close()


# --- which frames ---------------------------------------------------------------------------------------------------


def test_frames_per_second_take_the_first_of_each_stretch(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", 45, rate=10)
    assert numbers(open_source(path)) == [0, 10, 20, 30, 40]
    assert numbers(open_source(f"{path}?fps=2")) == list(range(0, 45, 5))
    assert numbers(open_source(f"{path}?fps=0.3")) == [0, 34]
    assert numbers(open_source(f"{path}?fps=100")) == list(range(45))
    source = open_source(f"{path}?fps=2")
    assert list(source.keys)[:3] == ["a.mp4@0.000s", "a.mp4@0.500s", "a.mp4@1.000s"]
    assert source.groups("second").tolist()[:3] == ["0.000", "0.500", "1.000"]


def test_frames_per_second_follow_the_clock_where_the_rate_varies(tmp_path: Path) -> None:
    stamps = [0, 1, 2, 3, 30, 31, 60, 95, 96, 97]  # tenths of a second
    assert numbers(open_source(film(tmp_path / "a.mkv", 10, stamps=stamps))) == [0, 4, 6, 7]


def test_time_is_counted_from_the_first_frame_even_if_stamps_begin_below_zero(tmp_path: Path) -> None:
    path = film(tmp_path / "a.nut.mkv", 30, stamps=[n - 7 for n in range(30)], codec="ffv1", pixels="bgr0")
    source = open_source(f"{path}?fps=1")
    assert numbers(source) == [0, 10, 20]
    assert next(iter(source.keys)) == "a.nut.mkv@0.000s"


def test_rules_choose_places_by_time() -> None:
    seconds = np.arange(100) / 30
    assert per_second(1)(seconds).tolist() == [0, 30, 60, 90]
    assert per_second(29.97)(np.arange(3000) / 29.97).tolist() == list(range(3000))
    assert every_nth(40)(seconds).tolist() == [0, 40, 80]
    assert per_second(1)(np.empty(0)).tolist() == []


def test_keys_stay_unique_where_frames_are_less_than_a_millisecond_apart(tmp_path: Path) -> None:
    source = open_source(f"{film(tmp_path / 'a.mkv', 9, rate=10, codec='ffv1', pixels='bgr0')}?every=1")
    assert len(set(source.keys)) == 9
    path = tmp_path / "fast.mov"
    film(path, 9, rate=12_000)
    keys = list(open_source(f"{path}?every=1").keys)
    assert len(set(keys)) == 9
    assert keys[1] == "fast.mov@0.00008s"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("?fps=1&every=2", "takes fps or every, not both"),
        ("?fps=0", "option 'fps': expected frames a second, above 0 and up to 1000, got '0'"),
        ("?fps=nan", "option 'fps': expected frames a second"),
        ("?every=0", "option 'every': expected a whole number from 1, got '0'"),
    ],
)
def test_options_that_make_no_sense_say_so(tmp_path: Path, options: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_source(f"{film(tmp_path / 'a.mp4', 3)}{options}")


# --- several videos -------------------------------------------------------------------------------------------------


def clips(root: Path, names: list[str], count: int = 12) -> Path:
    for number, name in enumerate(names):
        film(root / name, count, first=100 * number)
    return root


def test_a_folder_of_videos_is_labelled_by_its_first_level(tmp_path: Path) -> None:
    root = clips(tmp_path / "set", ["cat/deep/1.mp4", "cat/2.MKV", "dog/größe 漢字 🐦.mp4"])
    (root / "dog" / ".hidden.mp4").write_bytes(b"x")
    (root / "notes.txt").write_bytes(b"x")
    source = open_source(f"{root}?every=6")
    assert source.classes == ("cat", "dog")
    assert source.labels is not None
    assert source.labels.tolist() == [0, 0, 0, 0, 1, 1]
    assert list(source.keys)[2:5] == ["cat/deep/1.mp4@0.000s", "cat/deep/1.mp4@0.600s", "dog/größe 漢字 🐦.mp4@0.000s"]
    assert numbers(source) == [100, 106, 0, 6, 200, 206]
    assert source.groups("video").tolist()[::2] == ["cat/2.MKV", "cat/deep/1.mp4", "dog/größe 漢字 🐦.mp4"]
    assert source.groups("folder").tolist()[::2] == ["cat", "cat/deep", "dog"]


def test_a_video_outside_the_folders_makes_the_set_unlabelled(tmp_path: Path) -> None:
    root = clips(tmp_path / "set", ["cat/1.mp4", "dog/1.mp4", "2.mp4"], 3)
    assert open_source(root).labels is None


def test_a_few_samples_are_of_many_videos(tmp_path: Path) -> None:
    source = open_source(f"{clips(tmp_path / 'set', ['cat/1.mp4', 'cat/2.mp4', 'dog/1.mp4'])}?every=1")
    assert list(first(source, 4).groups("video")) == ["cat/1.mp4", "cat/1.mp4", "cat/2.mp4", "dog/1.mp4"]


def test_a_pattern_finds_videos_and_a_file_is_one(tmp_path: Path) -> None:
    root = clips(tmp_path / "set", ["a/1.mp4", "b/2.mp4", "b/3.mkv"], 3)
    source = open_source(f"{root}/*/*.mp4")
    assert list(source.keys) == ["a/1.mp4@0.000s", "b/2.mp4@0.000s"]
    assert source.labels is not None
    assert list(open_source(root / "b" / "3.mkv").keys) == ["3.mkv@0.000s"]
    with pytest.raises(DataError, match="does not exist"):
        open_source(f"{root}/*.mp4")


@pytest.mark.parametrize("name", ["a:b.mp4", "http:x.mp4", "two words.mp4", "%03d.mp4", "semi;colon'quote.mp4", "[x]{1,2}.mp4"])
def test_any_name_is_a_name(tmp_path: Path, name: str) -> None:
    assert numbers(open_source(f"{clips(tmp_path / 'set', [name], 3)}?every=1")) == [0, 1, 2]


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    root = clips(tmp_path / "set", ["a/1.mp4"], 3)
    (root / "a" / "loop").symlink_to(root, target_is_directory=True)
    assert len(open_source(root)) == 1


def test_only_videos_that_changed_are_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = clips(tmp_path / "set", ["a.mp4", "b.mp4"])
    (root / "c.mp4").write_bytes(b"no video")
    looked: list[str] = []

    def listed(path: str, sampling: Any) -> Any:
        looked.append(Path(path).name)
        return list_frames(path, sampling)

    monkeypatch.setattr("selfsight.data.sources.video_index.list_frames", listed)
    before = open_source(f"{root}?every=4")
    assert sorted(looked) == ["a.mp4", "b.mp4", "c.mp4"]
    looked.clear()
    again = open_source(f"{root}?every=4")
    assert (looked, list(again.keys), list(again.rejected)) == ([], list(before.keys), list(before.rejected))
    film(root / "b.mp4", 5, first=300)
    film(root / "d.mp4", 5, first=400)
    assert numbers(open_source(f"{root}?every=4")) == [0, 4, 8, 300, 304, 400, 404]
    assert "a.mp4" not in looked


# --- what is broken -------------------------------------------------------------------------------------------------


def sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_files_that_are_no_videos_are_rejected_with_the_reason(tmp_path: Path) -> None:
    root = clips(tmp_path / "set", ["good.mp4"], 3)
    (root / "empty.mp4").write_bytes(b"")
    (root / "text.mp4").write_bytes(b"some words " * 100)
    whole = film(tmp_path / "cut.mp4", 40).read_bytes()
    (root / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (root / "playlist.mp4").write_bytes(b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n")
    (root / "gone.mp4").symlink_to(root / "nowhere.mp4")
    sound(root / "sound.mp4")
    source = open_source(root)
    assert list(source.keys) == ["good.mp4@0.000s"]
    assert {bad.key: bad.reason for bad in source.rejected} == {
        "cut.mp4": "Invalid data found when processing input",
        "empty.mp4": "is empty",
        "gone.mp4": "is no file",
        "playlist.mp4": "Invalid data found when processing input",
        "sound.mp4": "holds no video",
        "text.mp4": "Invalid data found when processing input",
    }
    with pytest.raises(DataError, match=r"holds no video with frames; first: empty\.mp4 is empty"):
        open_source(root / "empty.mp4")


@pytest.mark.parametrize("name", ["h264.mp4", "h264-b.mkv", "mpeg4-b.avi", "fragments.mp4", "ffv1.mkv", "vp9.webm"])
@pytest.mark.parametrize("part", [0.4, 0.7, 0.95])
def test_of_a_video_cut_off_the_frames_before_the_cut_are_read(tmp_path: Path, name: str, part: float) -> None:
    options = KINDS[name] if name != "h264.mp4" else {"options": {"movflags": "faststart"}}
    path = film(tmp_path / name, 120, grain=True, **{**options, "stamps": None})
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    source = open_source(f"{path}?every=1")
    images = [read_image(source, index) for index in range(len(source))]
    good = [number_in(np.asarray(image)) for image in images if not isinstance(image, BadImage)]
    shown = [round(float(second) * 10) for second in source.groups("second")]
    assert good == [number for number, image in zip(shown, images, strict=True) if not isinstance(image, BadImage)]
    # FFmpeg itself finds but few frames of an AVI without its index; near a cut it may do without a frame or invent one.
    assert abs(len(good) - len(decoded(path))) <= 4
    assert len(images) - len(good) <= 4


def test_damage_inside_a_video_gives_bad_images_and_the_rest_is_read(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", 60, codec="ffv1", pixels="bgr0")
    data = bytearray(path.read_bytes())
    for place in range(len(data) // 2, len(data) // 2 + 40):
        data[place] ^= 0xFF
    path.write_bytes(data)
    source = open_source(f"{path}?every=1")
    images = [read_image(source, index) for index in reversed(range(len(source)))]
    right = [image for image in images if not isinstance(image, BadImage)]
    assert len(right) > 25


def test_a_video_that_vanished_gives_bad_images(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", 12)
    source = open_source(path)
    path.unlink()
    bad = read_image(source, 0)
    assert isinstance(bad, BadImage)
    assert bad.key == "a.mp4@0.000s"
    assert bad.reason.startswith("cannot be read (No such file or directory")


def test_no_bytes_whatever_stop_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = film(tmp_path / "a.mp4", 20, options={"movflags": "faststart"}).read_bytes()
    for turn in range(40):
        data = np.frombuffer(whole, dtype=np.uint8).copy()
        data[rng.integers(len(data), size=20)] = rng.integers(256, size=20)
        path = tmp_path / f"{turn}.mp4"
        path.write_bytes(data.tobytes())
        try:
            source = open_source(f"{path}?every=5")
        except DataError as error:
            assert len(str(error).splitlines()) == 1
            continue
        for index in range(min(len(source), 6)):
            image = read_image(source, index)
            assert image.reason if isinstance(image, BadImage) else image.mode == "RGB"


def test_without_pyav_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = film(tmp_path / "a.mp4", 3)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DataError, match=r"^videos need av: pip install 'selfsight\[video\]'$"):
        open_source(path)


def test_a_remote_video_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(DataError, match="videos are read from local files only; download them first"):
        open_source("https://127.0.0.1/a.mp4")


# --- pictures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_a_video_taken_with_a_turned_phone_is_upright(tmp_path: Path, rotation: int) -> None:
    path = film(tmp_path / "a.mp4", 3, first=5, rotation=rotation)
    picture = pixels(open_source(f"{path}?every=1"), 0)
    assert picture.shape[:2] == ((HEIGHT, BITS * BAR) if rotation == 180 else (BITS * BAR, HEIGHT))
    expected = np.rot90(numbered(5), rotation // 90)
    assert np.abs(picture.astype(int) - expected).mean() < 10


def test_a_lossless_video_gives_the_very_pixels(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", 3, codec="ffv1", pixels="bgr0")
    np.testing.assert_array_equal(pixels(open_source(f"{path}?every=1"), 2), numbered(2))


# --- order, workers, processes --------------------------------------------------------------------------------------


def test_frames_of_one_keyframe_stand_together_in_blocks_of_eight_or_more(tmp_path: Path) -> None:
    root = clips(tmp_path / "set", [f"{n}.mp4" for n in range(4)], 40)
    source = open_source(f"{root}?every=1")
    assert source.blocks is not None
    sizes = np.diff(source.blocks, append=len(source))
    assert sizes.tolist() == [12, 12, 12, 16, 12, 12, 16, 12, 12, 16, 12, 12, 4]
    assert 400 < source.window * sizes.mean() < 600
    assert open_source(f"{root}?every=1&window=2").window == 2
    sparse = open_source(f"{root}?every=20").blocks
    assert sparse is not None
    assert sparse.tolist() == [0]


def views(source: Source, workers: int) -> list[torch.Tensor]:
    settings = ViewSettings(global_size=16, local_size=8, local_count=2)
    crew = view_batches(source, settings, batch_size=6, seed=1, workers=workers, finish=True)
    found = list(crew.items(0, 9))
    assert [bad for batch in found for bad in batch.bad] == []
    return [view for batch in found for view in batch.views]


def test_views_are_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    root = clips(tmp_path / "set", ["a.mp4", "b.mkv", "c.mp4", "d.mp4", "e.mp4", "f.mp4"], 24)
    source = open_source(f"{root}?every=2&window=2")
    alone = views(source, 0)  # this process has decoders open by now
    for workers in (1, 2):
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(alone, views(source, workers), strict=True))


def test_a_fork_does_not_move_the_decoders_of_its_parent(tmp_path: Path) -> None:
    source = open_source(f"{film(tmp_path / 'a.mp4', 60)}?every=1&cache_mb=1")
    assert number_in(pixels(source, 5)) == 5
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    process = context.Process(target=lambda: answers.put(numbers(source)), daemon=True)
    process.start()
    for index in range(6, 60):
        assert number_in(pixels(source, index)) == index
    assert answers.get(timeout=30) == list(range(60))
    process.join(30)


def test_a_source_is_pickled_and_read_again(tmp_path: Path) -> None:
    source = open_source(f"{film(tmp_path / 'a.mp4', 40)}?every=1&window=3")
    numbers(source)
    packed = pickle.dumps(source)
    assert len(packed) < 1500
    again: Source = pickle.loads(packed)
    assert (numbers(again), again.window, list(again.keys)) == (numbers(source), 3, list(source.keys))


def test_frames_passed_on_the_way_are_kept_within_the_limit(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", 40, gop=40)
    source = open_source(f"{path}?every=1&cache_mb=1")
    numbers(source)
    size = BITS * BAR * HEIGHT * 3
    decoders = source._decoders  # type: ignore[attr-defined]
    assert 40 * size < decoders.size <= 2**20
    decoders.limit = 5 * size
    decoders.images.clear()
    decoders.size = 0
    for index in (39, 0, 20):
        assert number_in(pixels(source, index)) == index
    assert decoders.size <= 5 * size


def test_reading_leaves_no_file_open_and_no_thread(tmp_path: Path) -> None:
    root = clips(tmp_path / "set", [f"{n}.mp4" for n in range(8)], 6)
    (root / "bad.mp4").write_bytes(b"no video")
    numbers(open_source(root))
    before = held()
    for _ in range(3):
        source = open_source(f"{root}?every=2")
        numbers(source)
        assert no_more(before, files=2 + 4)  # the index, the decoders
        del source
    assert no_more(before)

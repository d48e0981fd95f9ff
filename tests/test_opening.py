"""An opened image knows its size before it decodes, and has the very pixels that `decode` gives."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from bombs import BOMBS
from encoded_pictures import BANDS, HEIGHT, RGB, WIDTH, encoded, oriented, png_chunk, scene
from selfsight.data.decode import DecodeSettings, UndecodableError, decode
from selfsight.data.jpeg import FastJpeg
from selfsight.data.opening import open_image

BY_TURBO = [
    name
    for name in RGB
    if name.startswith("jpeg ") and name not in ("jpeg CMYK", "jpeg YCCK", "jpeg garbage within", "jpeg 2000")
]


@pytest.mark.parametrize("name", RGB)
def test_every_encoding_opens_to_the_pixels_of_decode_bit_for_bit(name: str) -> None:
    data = RGB[name]()
    expected = np.asarray(decode(data))
    image = open_image(data)
    pixels = image.pixels()
    assert (pixels.dtype, pixels.flags.c_contiguous) == (np.uint8, True)
    assert (image.height, image.width, 3) == pixels.shape
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize(
    "name", [n for n in RGB if not any(word in n for word in ("16", "float", "RGBA", "planar of", "LA", "transp", "alpha"))]
)
def test_every_encoding_has_the_pixels_that_pillow_gives_it(name: str) -> None:
    data = RGB[name]()
    if name == "tiff big":
        assert data[:4] == b"II+\0"
    pillow = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    np.testing.assert_array_equal(open_image(data).pixels(), np.asarray(pillow))


@pytest.mark.parametrize("name", BY_TURBO)
def test_jpegs_in_colour_or_grey_take_the_fast_way(name: str) -> None:
    assert isinstance(open_image(RGB[name]()), FastJpeg)


@pytest.mark.parametrize("shrink", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(45, 30), (16, 16), (17, 33), (1, 1), (9, 1), (3, 250), (7, 8), (640, 479)])
def test_a_jpeg_is_decoded_at_a_fraction_of_its_size_rounded_up(shrink: int, size: tuple[int, int]) -> None:
    width, height = size
    image = open_image(encoded(scene(width, height), "JPEG", quality=95))
    assert (image.width, image.height) == size
    assert image.pixels(shrink).shape == (-(-height // shrink), -(-width // shrink), 3)


@pytest.mark.parametrize(
    "options", [{"subsampling": 0}, {"subsampling": 2}, {"progressive": True}], ids=["4:4:4", "4:2:0", "progressive"]
)
@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_a_small_decode_shows_the_same_picture(options: dict[str, object], shrink: int) -> None:
    """Against block means of the whole in luminance: libjpeg leaves high frequencies out, a mean smooths them; the eighth is the
    mean itself but for rounding."""
    image = open_image(encoded(scene(160, 96), "JPEG", quality=95, **options))
    small, whole = (image.pixels(by) @ np.array([0.299, 0.587, 0.114]) for by in (shrink, 1))
    means = whole.reshape(96 // shrink, shrink, 160 // shrink, shrink).mean((1, 3))
    assert np.abs(small - means).mean() < {2: 3, 4: 2, 8: 1}[shrink]


def test_other_formats_give_the_whole_whatever_fraction_is_asked() -> None:
    assert open_image(RGB["png"]()).pixels(8).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}], ids=["plain", "progressive", "4:4:4"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_a_turned_jpeg_stands_upright_at_every_size(turn: int, options: dict[str, object]) -> None:
    """Orientation 1 to 8 on a picture with four different corners, as Pillow's `exif_transpose` turns it."""
    data = oriented(turn, "JPEG", **options)
    image = open_image(data)
    assert isinstance(image, FastJpeg)
    assert (image.width, image.height) == ((HEIGHT, WIDTH) if turn >= 5 else (WIDTH, HEIGHT))
    np.testing.assert_array_equal(image.pixels(), np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))))
    stored = open_image(oriented(1, "JPEG", **options)).pixels(2)
    exchanged = {5: (1, 0, 2), 6: (1, 0, 2), 7: (1, 0, 2), 8: (1, 0, 2)}.get(turn, (0, 1, 2))
    small = image.pixels(2)
    assert small.shape == stored.transpose(exchanged).shape
    assert sorted(small.ravel().tolist()) == sorted(stored.ravel().tolist())


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_a_turned_picture_of_another_format_stands_upright(turn: int, kind: str) -> None:
    data = oriented(turn, kind)
    with Image.open(io.BytesIO(data)) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"))
    np.testing.assert_array_equal(open_image(data).pixels(), expected)


@pytest.mark.parametrize("turn", [0, 9, 255])
def test_an_orientation_that_means_nothing_leaves_the_picture_as_it_is(turn: int) -> None:
    np.testing.assert_array_equal(open_image(oriented(turn)).pixels(), open_image(oriented(1)).pixels())


def test_broken_metadata_do_not_cost_the_picture() -> None:
    whole = oriented(6)
    place = whole.find(b"Exif\0\0") + 6
    broken = whole[:place] + b"\xff" * 12 + whole[place + 12 :]
    np.testing.assert_array_equal(open_image(broken).pixels(), open_image(oriented(1)).pixels())


def test_an_orientation_far_behind_other_metadata_is_found() -> None:
    """Colour profiles and editors' notes come in segments of up to 64 KB and may stand before the EXIF."""
    data = oriented(6)
    note = b"\xff\xe2" + (60_002).to_bytes(2, "big") + b"n" * 60_000
    late = data[:2] + note * 3 + data[2:]
    assert late.find(b"Exif\0\0") > 2**17
    np.testing.assert_array_equal(open_image(late).pixels(), open_image(data).pixels())


def test_an_orientation_in_xmp_alone_is_heeded_as_pillow_heeds_it() -> None:
    words = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    plain = encoded(scene(), "JPEG")
    data = plain[:2] + b"\xff\xe1" + (len(words) + 2).to_bytes(2, "big") + words + plain[2:]
    image = open_image(data)
    assert (image.width, image.height) == (HEIGHT, WIDTH)
    np.testing.assert_array_equal(image.pixels(), np.asarray(decode(data)))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "MPO"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ((200, 0, 0), (0, 200, 0), (0, 0, 200))]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.abs(open_image(data).pixels().astype(int) - [200, 0, 0]).max() <= 8


def test_an_image_that_is_cut_short_says_so_in_pillows_words() -> None:
    """Its head is whole, so it opens and knows its size; the pixels are refused by both ways of decoding alike."""
    data = encoded(scene(200, 150), "JPEG", quality=95)
    for keep in (0.3, 0.6, 0.9):
        cut = data[: int(len(data) * keep)]
        image = open_image(cut)
        assert (image.width, image.height) == (200, 150)
        for shrink in (1, 2, 8):
            with pytest.raises(UndecodableError, match=r"^image file is truncated \(\d+ bytes not processed\)$"):
                image.pixels(shrink)
        with pytest.raises(UndecodableError, match="truncated"):
            decode(cut)


def test_what_libjpeg_only_warns_of_is_a_picture_both_ways() -> None:
    """A stray marker within the scan: corrupt to the letter, shown by every viewer. It comes whole whatever is asked."""
    data = encoded(scene(200, 150), "JPEG")
    place = data.find(b"\xff\xda") + 400
    data = data[:place] + b"\xff\xd3" + data[place:]
    for shrink in (1, 8):
        np.testing.assert_array_equal(open_image(data).pixels(shrink), np.asarray(decode(data)))


@pytest.mark.parametrize("name", ["jpeg 4:2:0", "png", "tiff of 16 bits", "webp animated"])
def test_an_image_larger_than_the_limit_is_refused_with_its_size(name: str) -> None:
    data = RGB[name]()
    fits = DecodeSettings(max_pixels=WIDTH * HEIGHT)
    assert open_image(data, fits).pixels().shape == (HEIGHT, WIDTH, 3)
    for channels in (1, 3):
        with pytest.raises(UndecodableError, match=f"^{WIDTH}x{HEIGHT} pixels, more than the limit of 1349$"):
            open_image(data, DecodeSettings(channels=channels, max_pixels=WIDTH * HEIGHT - 1)).pixels()


def test_a_format_that_starts_programs_is_not_read() -> None:
    """PostScript is a programming language; Pillow hands it to an interpreter."""
    with pytest.raises(UndecodableError, match="no known image format"):
        open_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")


def test_a_picture_under_another_formats_name_is_known_by_its_bytes() -> None:
    """Nothing looks at file names; a JPEG whose first bytes are a PNG's is neither."""
    with pytest.raises(UndecodableError):
        open_image(b"\x89PNG\r\n\x1a\n" + encoded(scene(), "JPEG"))


def test_text_chunks_that_swell_do_not_cost_the_memory_they_claim() -> None:
    """A compressed note of a hundred million letters in a small PNG."""
    note = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * 100_000_000, 9))
    data = encoded(scene())
    with pytest.raises(UndecodableError):
        open_image(data[:33] + note + data[33:])


# --- memory and the terminal ----------------------------------------------------------------------------------------


def test_small_files_that_claim_or_swell_to_much_are_refused_before_memory_is_used(tmp_path: Path) -> None:
    """Each in every way of opening, in a process of its own whose memory is measured: 60 MB is half of what one of them swells
    to and a ten-thousandth of what others claim. Those of which a strip holds more than it should may also give their picture."""
    for name, make in BOMBS.items():
        (tmp_path / name).write_bytes(make())
    command = [sys.executable, str(Path(__file__).parent / "bombs.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=90)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["name"] for row in rows] == list(BOMBS)
    for row in rows:
        assert row["bytes"] < 2_100_000
        assert row["grown_mb"] < 60, row
        pictures = {found for found in row["found"] if re.fullmatch(r"\d+x\d+x\d", found)}
        assert pictures <= ({"16x16x1", "16x16x3"} if row["name"].endswith(" strip") else set()), row
    assert done.stderr == ""


def test_a_limit_above_pillows_own_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for data in (encoded(scene()), oriented(6)):
        assert open_image(data, DecodeSettings(max_pixels=WIDTH * HEIGHT)).pixels().shape in [(30, 45, 3), (45, 30, 3)]
        with pytest.raises(UndecodableError, match="pixels"):
            open_image(data, DecodeSettings(max_pixels=1000)).pixels()


def open_damaged() -> None:
    for make in (*RGB.values(), *BANDS.values()):
        data = make()
        many_samples = data.replace(struct.pack("<HHIHH", 277, 3, 1, 3, 0), struct.pack("<HHIHH", 277, 3, 33, 3, 0))
        cut, holed, wiped = data[: len(data) // 2], data[:200] + bytes(40) + data[240:], data[:-400] + b"\xff" * 400
        for damaged, channels in itertools.product((data, many_samples, cut, holed, wiped), (1, 3, 5)):
            with contextlib.suppress(UndecodableError):
                open_image(damaged, DecodeSettings(channels=channels)).pixels(2)


def test_decoders_write_nothing_to_the_terminal() -> None:
    """A heap of a million images has thousands of bad ones; libtiff alone would write a line for each row of a bad fax. In a
    process of its own, since pytest takes in what would be logged."""
    command = [sys.executable, "-c", "import test_opening; test_opening.open_damaged()"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=90, cwd=Path(__file__).parent)
    assert (done.stdout, done.stderr) == ("", "")

"""Encoded bytes become an upright RGB picture, or one line that says why not."""

from __future__ import annotations

import random
import struct
import warnings

import numpy as np
import pytest
from PIL import Image

from encoded_pictures import bands, encoded, png_claiming, tiff, wide
from selfsight.data.decode import MAX_PIXELS, UndecodableError, decode
from selfsight.data.undecodable import reasons


def pixels(data: bytes) -> np.ndarray:
    image = decode(data)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def noise(channels: int = 3, size: tuple[int, int] = (11, 7)) -> np.ndarray:
    shape = (size[1], size[0], channels) if channels > 1 else (size[1], size[0])
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_rgb_keeps_its_pixels() -> None:
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(noise()))), noise())


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000"])
def test_every_common_format_is_read(kind: str) -> None:
    found = pixels(encoded(Image.new("RGB", (32, 16), (200, 100, 50)), kind))
    assert found.shape == (16, 32, 3)
    assert np.abs(found - [200, 100, 50]).max() <= 4


def test_grey_becomes_three_equal_channels() -> None:
    grey = noise(1)
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(grey))), np.repeat(grey[..., None], 3, 2))


def test_one_bit_becomes_black_and_white() -> None:
    bits = noise(1) > 127
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(bits)))[..., 0], bits * 255)


def test_a_palette_becomes_its_colours_and_its_transparent_entry_white() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    assert pixels(encoded(image)).tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]
    assert pixels(encoded(image, transparency=1)).tolist() == [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_laid_on_white(mode: str) -> None:
    colour = {"RGBA": (100, 100, 100), "LA": (100,)}[mode]
    image = Image.new(mode, (3, 1))
    for x, alpha in enumerate((0, 128, 255)):
        image.putpixel((x, 0), (*colour, alpha))
    blended = round(255 - (255 - 100) * 128 / 255)
    np.testing.assert_allclose(pixels(encoded(image))[0, :, 0], [255, blended, 100], atol=1)


def test_the_transparent_colour_of_an_rgb_png_is_white_too() -> None:
    image = Image.new("RGB", (2, 1), (10, 20, 30))
    image.putpixel((1, 0), (255, 0, 0))
    assert pixels(encoded(image, transparency=(255, 0, 0))).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_cmyk_becomes_rgb() -> None:
    found = pixels(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "TIFF"))
    assert np.abs(found - [255, 0, 0]).max() <= 2


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("kind", ["uint16", "int16", "float32"])
def test_a_tiff_of_more_than_eight_bits_is_scaled(kind: str, planar: bool) -> None:
    """Pillow reads planar ones of 16 bits as noise, and neither signed ones nor floats."""
    levels = noise()
    white = {"uint16": 65535, "int16": 32767, "float32": 1}[kind]
    stored = (levels / 255 * white).astype(kind)
    data = bands(stored, planar, photometric="rgb")
    assert np.abs(pixels(data) - levels.astype(int)).max() <= 1


@pytest.mark.parametrize(("alpha", "premultiplied"), [("unassalpha", False), ("assocalpha", True)])
def test_alpha_of_sixteen_bits_is_laid_on_white(alpha: str, premultiplied: bool) -> None:
    colour, opacity = np.array([[[100, 50, 20]]] * 3), np.array([[[0]], [[128]], [[255]]])
    stored = np.concatenate([colour * opacity // 255 if premultiplied else colour, opacity], 2)
    found = pixels(bands(wide(stored.astype(np.uint8)), photometric="rgb", extrasamples=[alpha]))
    expected = 255 + (colour - 255) * opacity / 255
    np.testing.assert_allclose(found, expected, atol=2)


def test_a_fourth_band_that_is_no_alpha_is_left_out() -> None:
    levels = noise(4)
    for stored in (levels, wide(levels)):
        data = bands(stored, photometric="rgb", extrasamples=["unspecified"])
        assert np.abs(pixels(data) - levels[:, :, :3].astype(int)).max() <= 1


def test_floats_run_from_zero_to_one() -> None:
    stored = np.array([[0, 0.5, 1, 2, -1, np.nan]], dtype=np.float32)
    assert pixels(tiff(stored, photometric="minisblack"))[0, :, 1].tolist() == [0, 128, 255, 255, 0, 0]


def test_whatever_a_decoder_raises_becomes_one_line_of_reason() -> None:
    """They raise struct.error, AssertionError, errors of their own without a common base, and some with no text at all."""
    for error, text in (
        (struct.error("unpack requires a buffer of 4 bytes"), "unpack requires a buffer of 4 bytes"),
        (AssertionError(), "AssertionError"),
        (KeyError(257), "257"),
        (RecursionError("too deep"), "too deep"),
        (MemoryError(), "MemoryError"),
        (RuntimeError("\nsecond line"), "RuntimeError"),
        (OSError("x" * 1000), "x" * 150),
        (
            Image.DecompressionBombError("Image size (9 pixels) exceeds limit of 4 pixels, could be an attack."),
            "Image size (9 pixels) exceeds limit of 4 pixels",
        ),
        (UndecodableError("empty file"), "empty file"),
    ):
        with pytest.raises(UndecodableError) as found, reasons():
            raise error
        assert str(found.value) == text
    with pytest.raises(KeyboardInterrupt), reasons():
        raise KeyboardInterrupt


def test_odd_metadata_are_no_reason() -> None:
    with reasons():
        warnings.warn("corrupt EXIF data", stacklevel=1)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled(kind: str) -> None:
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    found = pixels(encoded(Image.fromarray(values), kind))
    np.testing.assert_allclose(found[0], np.repeat([[0], [1], [128], [255]], 3, 1), atol=1)


def test_a_dark_sixteen_bit_picture_stays_dark() -> None:
    """The scale is that of the format; were it that of the content, one bright pixel would turn the rest black."""
    dark = np.array([[0, 100, 200]], dtype=np.uint16)
    assert pixels(encoded(Image.fromarray(dark))).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_picture_upright(orientation: int) -> None:
    upright = noise(1, (5, 3))
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = pixels(encoded(Image.fromarray(np.ascontiguousarray(stored)), exif=exif))
    np.testing.assert_array_equal(found[..., 0], upright)


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "green", "blue")]
    found = pixels(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert (found == [255, 0, 0]).all()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"these are words, not pixels", "no known image format"),
        (b"\0" * 64, "no known image format"),
        (encoded(Image.fromarray(noise(3, (64, 64))), "JPEG")[:900], "truncated"),
        (encoded(Image.fromarray(noise(3, (64, 64))))[:3000], "truncated"),
        (encoded(Image.fromarray(noise()))[:20], ""),
        (png_claiming(20_000, 20_000), "pixels"),
        (png_claiming(200_000, 200_000), "pixels"),
    ],
    ids=["empty", "text", "zeros", "half a jpeg", "half a png", "a header", "bomb", "big bomb"],
)
def test_what_cannot_be_read_gives_one_line_of_reason(data: bytes, reason: str) -> None:
    with pytest.raises(UndecodableError) as error:
        decode(data)
    text = str(error.value)
    assert reason in text
    assert 0 < len(text) < 200
    assert "\n" not in text


def test_the_limit_of_pixels_is_above_a_large_photograph() -> None:
    assert MAX_PIXELS >= 100_000_000


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM", "JPEG2000"])
def test_damage_of_any_kind_is_undecodable_or_a_picture_and_nothing_else(kind: str) -> None:
    """A hundred copies with some bytes changed or cut: an error of the decoder may never get out under its own name."""
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"exif": exif} if kind in ("PNG", "JPEG", "WEBP") else {}
    good = encoded(Image.fromarray(noise(3, (24, 18))), kind, **options)
    rng = random.Random(kind)
    outcomes = {"picture": 0, "undecodable": 0}
    for _ in range(100):
        data = bytearray(good)
        for _ in range(rng.choice([1, 4, 16])):
            data[rng.randrange(min(len(data), rng.choice([40, 400, len(data)])))] = rng.randrange(256)
        if rng.random() < 0.2:
            data = data[: rng.randrange(len(data))]
        try:
            assert decode(bytes(data)).mode == "RGB"
            outcomes["picture"] += 1
        except UndecodableError as error:
            assert str(error)
            outcomes["undecodable"] += 1
    assert outcomes["undecodable"] > 0


def test_the_limit_of_pixels_is_the_same_for_every_format() -> None:
    """Pillow alone would stop at 179 million; a PNG of 190 million that is empty is cut short, not too large."""
    with pytest.raises(UndecodableError, match=r"truncated|broken"):
        decode(png_claiming(19_000, 10_000))
    with pytest.raises(UndecodableError, match=r"exceeds limit of 200000000 pixels$"):
        decode(png_claiming(21_000, 10_000))

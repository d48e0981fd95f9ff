"""Grey images and bands of multispectral TIFFs become [height, width, channels] of 0 to 255, or one line that says why not."""

from __future__ import annotations

import io
import itertools
import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from pydantic import ValidationError

from encoded_pictures import BANDS, HEIGHT, RGB, WIDTH, bands, encoded, oriented, scene, tiff, wide
from selfsight.data.decode import DecodeSettings, UndecodableError, decode
from selfsight.data.multichannel import decode_channels
from selfsight.data.opening import open_image


def read(data: bytes, channels: int, values: tuple[float, float] | None = None) -> np.ndarray:
    pixels = open_image(data, DecodeSettings(channels=channels, values=values)).pixels()
    assert pixels.dtype in (np.uint8, np.float32)
    assert pixels.flags.c_contiguous
    assert pixels.shape[2] == channels
    return pixels


# --- bands ----------------------------------------------------------------------------------------------------------

_FULL = {"uint8": (0, 255), "uint16": (0, 65535), "int16": (0, 32767), "float32": (0, 1)}


@pytest.mark.parametrize("planar", [False, True], ids=["contiguous", "planar"])
@pytest.mark.parametrize("kind", list(_FULL))
@pytest.mark.parametrize("count", [2, 4, 5, 8, 13])
def test_bands_of_every_number_type_and_layout_are_read(count: int, kind: str, planar: bool) -> None:
    """Black and white are those of the type; a band keeps its place, its values and as many bits as it had."""
    black, white = _FULL[kind]
    levels = scene(17, 11, count)
    stored = levels.astype(kind) if kind == "uint8" else (black + levels / 255 * (white - black)).astype(kind)
    found = read(bands(stored, planar), count)
    assert found.dtype == (np.uint8 if kind == "uint8" else np.float32)
    expected = (stored.astype(np.float64) - black) / (white - black) * 255
    np.testing.assert_allclose(found, expected, atol=3e-5)


@pytest.mark.parametrize("name", BANDS)
def test_every_encoding_of_five_bands_has_the_same_pixels(name: str) -> None:
    tolerance = 10 if name == "pages of jpeg" else 3e-5
    np.testing.assert_allclose(read(BANDS[name](), 5), scene(channels=5), atol=tolerance)


def test_compressions_tiles_and_byte_orders_go_together() -> None:
    levels = scene(37, 23, 4)
    seen = 0
    for compression, tile, order, planar in itertools.product(
        (None, "lzw", "zlib", "zstd", "lzma", "packbits"), (None, (16, 16)), "<>", (False, True)
    ):
        data = bands(wide(levels), planar, compression=compression, tile=tile, byteorder=order)
        np.testing.assert_allclose(read(data, 4), levels, atol=3e-5)
        seen += 1
    assert seen == 48


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)])
@pytest.mark.parametrize("planar", [False, True])
def test_sides_of_one_pixel_are_kept(shape: tuple[int, int], planar: bool) -> None:
    levels = scene(*shape[::-1], 5)
    np.testing.assert_array_equal(read(bands(levels, planar), 5), levels)


def test_given_black_and_white_take_the_place_of_the_full_range() -> None:
    """Reflectance of satellites: 10,000 is white, what is above stays white, below black."""
    stored = np.array([[[0, 2500], [5000, 10_000], [12_000, -300]]], dtype=np.int16)
    expected = [[[0, 63.75], [127.5, 255], [255, 0]]]
    np.testing.assert_allclose(read(bands(stored), 2, (0, 10_000)), expected, atol=1e-4)
    np.testing.assert_allclose(read(bands(stored.astype(np.float32)), 2, (0, 10_000)), expected, atol=1e-4)


def test_black_may_be_above_zero_or_above_white() -> None:
    stored = np.array([[[100, 150, 200, 250]]], dtype=np.uint16)
    np.testing.assert_allclose(read(bands(stored), 4, (100, 200)), [[[0, 127.5, 255, 255]]], atol=1e-4)
    np.testing.assert_allclose(read(bands(stored), 4, (200, 100)), [[[255, 127.5, 0, 0]]], atol=1e-4)


def test_eight_bits_are_left_as_they_are_by_a_range_for_more() -> None:
    np.testing.assert_array_equal(read(bands(scene(channels=5)), 5, (0, 10_000)), scene(channels=5))


def test_a_range_of_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="black and white must differ, got 7 for both"):
        DecodeSettings(values=(7, 7))


def test_missing_values_of_floats_are_black_and_infinite_ones_the_ends() -> None:
    stored = np.array([[[np.nan, np.inf, -np.inf, 0.5]]], dtype=np.float32)
    np.testing.assert_allclose(read(bands(stored), 4), [[[0, 255, 0, 127.5]]], atol=1e-4)


def test_masks_of_one_bit_are_black_and_white() -> None:
    masks = scene(16, 9, 5) > 128
    np.testing.assert_array_equal(read(bands(masks, planar=True), 5), masks * 255)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_packed_bits_know_their_white(bits: int) -> None:
    white = 2**bits - 1
    stored = np.array([[0, white // 3, white]], dtype=np.uint16)
    packed = imagecodecs.packints_encode(stored.ravel(), bits)
    data = tiff_of_packed(packed, bits)
    np.testing.assert_allclose(read(data, 1)[0, :, 0], [0, 85, 255], atol=1e-3)
    np.testing.assert_allclose(read(data, 1, (0, white / 3))[0, :, 0], [0, 255, 255], atol=1e-3)
    assert np.asarray(decode(data))[0, :, 0].tolist() == [0, 85, 255]


def tiff_of_packed(packed: bytes, bits: int) -> bytes:
    """One row of three grey samples of so many bits, written tag by tag."""
    tags = [(256, 3), (257, 1), (258, bits), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, len(packed))]
    body = b"".join(struct.pack("<HHII", code, 4, 1, value) for code, value in tags)
    padded = packed + b"\0" * (-len(packed) % 2)
    return struct.pack("<4sI", b"II*\0", 8 + len(padded)) + padded + struct.pack("<H", len(tags)) + body + b"\0" * 4


@pytest.mark.parametrize("turn", range(1, 9))
def test_bands_stand_upright_too(turn: int) -> None:
    """The same turn as Pillow gives a picture of three colours."""
    levels = scene(channels=5)
    found = read(bands(levels, extratags=[(274, 3, 1, turn, True)]), 5)
    picture = tiff(levels[:, :, :3], photometric="rgb", extratags=[(274, 3, 1, turn, True)])
    np.testing.assert_array_equal(found[:, :, :3], np.asarray(decode(picture)))


# --- the number of channels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("held", "asked"), [(5, 4), (4, 5), (2, 13), (5, 1), (1, 5)])
@pytest.mark.parametrize("planar", [False, True])
def test_a_wrong_number_of_channels_is_named(held: int, asked: int, planar: bool) -> None:
    levels = scene(channels=held)
    data = tiff(levels, photometric="minisblack") if held == 1 else bands(levels, planar)
    with pytest.raises(UndecodableError, match=f"^{held} channels?, not {asked}$"):
        read(data, asked)


@pytest.mark.parametrize("name", BANDS)
def test_five_bands_are_no_picture_of_three_colours_unless_they_are_pages(name: str) -> None:
    """The first page of several is what every viewer shows of them."""
    if "pages" in name or name == "microscope":
        assert decode(BANDS[name]()).size == (WIDTH, HEIGHT)
        return
    with pytest.raises(UndecodableError, match=r"^5 channels, not 3$"):
        decode(BANDS[name]())


@pytest.mark.parametrize(("mode", "count"), [("LA", 2), ("RGBA", 4), ("CMYK", 4)])
def test_channels_of_other_formats_are_taken_as_they_are(mode: str, count: int) -> None:
    levels = scene(channels=count)
    data = encoded(Image.frombytes(mode, (WIDTH, HEIGHT), levels.tobytes()), "TIFF" if mode == "CMYK" else "PNG")
    np.testing.assert_array_equal(read(data, count), levels)


@pytest.mark.parametrize("count", [2, 4])
def test_sixteen_bits_of_a_png_are_kept(count: int) -> None:
    stored = wide(scene(channels=count)) + np.arange(count, dtype=np.uint16)
    found = read(imagecodecs.png_encode(stored), count)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.minimum(stored / 257, 255), atol=3e-5)


@pytest.mark.parametrize("planar", [False, True])
def test_three_channels_with_a_range_are_scaled_by_it(planar: bool) -> None:
    """Without one they are a picture of 8 bits, with it values of more."""
    stored = np.array([[[0, 5000, 10_000]]], dtype=np.uint16)
    tif, png = bands(stored, planar, photometric="rgb"), imagecodecs.png_encode(stored)
    for data in (tif, png):
        np.testing.assert_allclose(read(data, 3, (0, 10_000)), [[[0, 127.5, 255]]], atol=1e-4)
        assert np.abs(read(data, 3) - np.array([[[0, 19, 39]]])).max() <= 1


def test_deep_grey_with_a_range_becomes_three_equal_channels() -> None:
    """Radiographs for a network of three channels."""
    stored = np.array([[0, 1000, 4000]], dtype=np.uint16)
    for data in (tiff(stored, photometric="minisblack"), encoded(stored)):
        np.testing.assert_allclose(read(data, 3, (0, 4000)), [[[0] * 3, [63.75] * 3, [255] * 3]], atol=1e-4)


@pytest.mark.parametrize("name", [name for name in RGB if "16" not in name and "float" not in name])
def test_a_range_changes_no_picture_of_eight_bits(name: str) -> None:
    np.testing.assert_array_equal(read(RGB[name](), 3, (0, 10_000)), np.asarray(decode(RGB[name]())))


# --- grey -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RGB)
def test_one_channel_of_every_encoding_is_its_grey(name: str) -> None:
    """Within a level of the luminance of the picture, which is all that 8 bits can say of 16."""
    data = RGB[name]()
    expected = np.asarray(decode(data).convert("L")).astype(float)
    found = read(data, 1)
    assert found.shape == (*expected.shape, 1)
    assert np.abs(found[:, :, 0] - expected).max() <= (1 if "16" in name else 0)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "bool"])
def test_where_zero_is_white_grey_is_turned_around(kind: str) -> None:
    """Scanners and faxes write so."""
    levels = np.array([[0, 51, 255]], dtype=np.uint8)
    stored = {"uint8": levels, "uint16": wide(levels), "bool": levels > 128}[kind]
    expected = [255, 255, 0] if kind == "bool" else [255, 204, 0]
    data = tiff(stored, photometric="miniswhite")
    assert read(data, 1)[0, :, 0].tolist() == expected
    assert np.asarray(decode(data))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_of_grey_are_kept(kind: str) -> None:
    stored = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    found = read(encoded(stored, kind), 1)
    assert found.dtype == np.float32
    assert len(np.unique(found)) == 65_536
    np.testing.assert_allclose(found[:, :, 0], stored / 257, atol=3e-5)


def test_a_dark_pgm_of_sixteen_bits_stays_dark() -> None:
    """The scale is that of the format: were a small greatest value taken for 8 bits, a night would turn to day."""
    dark = encoded(Image.fromarray(np.array([[0, 100, 200]], dtype=np.int32)), "PPM")
    assert np.asarray(decode(dark)).max() <= 1
    np.testing.assert_allclose(read(dark, 1)[0, :, 0], [0, 100 / 257, 200 / 257], atol=1e-3)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_grey_stands_upright(turn: int, kind: str) -> None:
    data = oriented(turn, kind, scene(channels=1))
    np.testing.assert_array_equal(read(data, 1)[:, :, 0], np.asarray(decode(data).convert("L")))


def test_nothing_at_all_is_an_empty_file() -> None:
    for channels in (1, 3, 5):
        with pytest.raises(UndecodableError, match=r"^empty file$"):
            open_image(b"", DecodeSettings(channels=channels))
    with pytest.raises(UndecodableError, match=r"^empty file$"):
        decode_channels(b"", DecodeSettings(channels=3))


def test_an_array_that_was_stored_without_saying_what_its_axes_are_is_read_as_rows_of_bands() -> None:
    values = np.random.default_rng(3).integers(0, 256, (20, 14, 5), dtype=np.uint8)
    file = io.BytesIO()
    tifffile.imwrite(file, values)  # twenty pages of 14 x 5
    np.testing.assert_array_equal(open_image(file.getvalue(), DecodeSettings(channels=5)).pixels(), values)

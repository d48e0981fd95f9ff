"""Bytes damaged in every way give an upright picture of the size that was announced, or one line of reason: nothing else.

SELFSIGHT_FUZZ_EXAMPLES sets how many damaged files are tried (the default takes some twenty seconds); for a long run:

    SELFSIGHT_FUZZ_EXAMPLES=200000 python -m pytest tests/test_decode_fuzz.py --timeout 0
"""

from __future__ import annotations

import functools
import io
import logging
import os
from typing import NamedTuple

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from encoded_pictures import BANDS, RGB
from selfsight.data import tiff
from selfsight.data.decode import DecodeSettings, UndecodableError, decode
from selfsight.data.opening import open_image

EXAMPLES = int(os.environ.get("SELFSIGHT_FUZZ_EXAMPLES", "3000"))
LIMIT = 1_000_000
"""Pixels: damage may make a picture claim any size, and a test of thousands need not allow the largest."""

fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(autouse=True)
def no_log_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pytest would hold every line that tifffile logs of thousands of damaged files."""
    monkeypatch.setattr(logging.getLogger("tifffile"), "disabled", True)


class Damage(NamedTuple):
    """Something done to bytes at a share of their length."""

    kind: str
    place: float
    length: int
    block: bytes
    other: str


@functools.cache
def sound(name: str) -> bytes:
    return (RGB[name] if name in RGB else BANDS[name.removeprefix("bands: ")])()


NAMES = [*RGB, *(f"bands: {name}" for name in BANDS)]
_BLOCKS = st.binary(min_size=1, max_size=12) | st.sampled_from(
    [
        b"\xff" * 4,
        b"\0" * 4,
        b"\x7f\xff\xff\xff",
        b"\xff\xff\xff\x7f",
        b"\0\0\0\x80",
        b"\xff\xd8",
        b"\xff\xda",
        b"\xff\xc4",
        b"\1\0",
        b"\0\1",
    ]
)
# Heads are small and decide everything: half of the damage falls on the first bytes.
_PLACES = st.floats(0, 1) | st.floats(0, 0.05)
DAMAGE = st.builds(
    Damage,
    st.sampled_from(["flip", "overwrite", "insert", "remove", "cut", "repeat", "splice"]),
    _PLACES,
    st.integers(1, 64),
    _BLOCKS,
    st.sampled_from(NAMES),
)


def damaged(data: bytes, damage: Damage) -> bytes:
    at = int(damage.place * (len(data) - 1)) if data else 0
    before, after = data[:at], data[at:]
    if damage.kind == "flip":
        return before + bytes(b ^ (1 << damage.length % 8) for b in after[:1]) + after[1:]
    if damage.kind == "overwrite":
        return before + damage.block + after[len(damage.block) :]
    if damage.kind == "insert":
        return before + damage.block * damage.length + after
    if damage.kind == "remove":
        return before + after[damage.length :]
    if damage.kind == "cut":
        return before
    if damage.kind == "repeat":
        return before + after[: damage.length] * 3 + after
    other = sound(damage.other)
    return before + other[int(damage.place * len(other)) :]


def checked_pixels(data: bytes, channels: int, shrink: int) -> np.ndarray | None:
    """Pixels after checking what must hold of them, or None with a reason of one short line."""
    try:
        image = open_image(data, DecodeSettings(channels=channels, max_pixels=LIMIT))
        pixels = image.pixels(shrink)
    except UndecodableError as error:
        assert 0 < len(str(error)) <= 200
        assert len(str(error).splitlines()) == 1
        return None
    whole, small = (image.height, image.width, channels), (-(-image.height // shrink), -(-image.width // shrink), channels)
    assert pixels.shape in (whole, small)
    assert 1 <= image.height * image.width <= LIMIT
    assert pixels.dtype in (np.uint8, np.float32)
    assert pixels.flags.c_contiguous
    assert pixels.dtype == np.uint8 or (float(pixels.min()) >= 0 and float(pixels.max()) <= 255)
    return pixels


def checked_picture(data: bytes) -> np.ndarray | None:
    try:
        image = decode(data, LIMIT)
    except UndecodableError as error:
        assert 0 < len(str(error)) <= 200
        return None
    assert image.mode == "RGB"
    return np.asarray(image)


def by_lzw(data: bytes) -> bool:
    """imagecodecs takes some damaged LZW for whole and leaves parts of its output as it found the memory."""
    if not tiff.is_tiff(data):
        return False
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        return file.pages.first.compression == tifffile.COMPRESSION.LZW


@fuzzed
@given(
    st.sampled_from(NAMES),
    st.lists(DAMAGE, min_size=1, max_size=4),
    st.sampled_from([1, 3, 3, 4, 5]),
    st.sampled_from([1, 1, 2, 4, 8]),
)
def test_damage_gives_a_picture_or_a_reason(name: str, damages: list[Damage], channels: int, shrink: int) -> None:
    data = functools.reduce(damaged, damages, sound(name))
    checked_pixels(data, channels, shrink)
    ours, theirs = checked_pixels(data, 3, 1), checked_picture(data)
    assert (ours is None) == (theirs is None)
    if ours is not None and theirs is not None and not by_lzw(data):
        np.testing.assert_array_equal(ours, theirs)


@settings(fuzzed, max_examples=max(1, EXAMPLES // 10))
@given(
    st.sampled_from([sound(name)[:n] for name in NAMES for n in (2, 4, 8, 12, 26)]),
    st.binary(max_size=400),
    st.sampled_from([1, 3, 5]),
)
@example(b"", b"", 3)
def test_noise_behind_a_sound_beginning_gives_a_picture_or_a_reason(head: bytes, noise: bytes, channels: int) -> None:
    checked_pixels(head + noise, channels, 2)
    checked_picture(head + noise)


@pytest.mark.parametrize("name", NAMES)
def test_the_undamaged_files_are_pictures(name: str) -> None:
    """Otherwise there would be nothing to damage."""
    assert checked_pixels(sound(name), 5 if name.startswith("bands") else 3, 1) is not None

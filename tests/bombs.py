"""Small files that claim, or swell to, far more pixels than they hold.

Run as a program it opens each of them in every way and prints one line of JSON: what became of it and the memory it took.
"""

from __future__ import annotations

import json
import resource
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np

from encoded_pictures import bands, encoded, jpeg_claiming, png_chunk, png_claiming, scene, tiff, tiff_claiming, wide

SIDE = 100_000


def png_with(chunk: bytes) -> bytes:
    """A sound picture with one more chunk behind its head."""
    data = encoded(scene())
    return data[:33] + chunk + data[33:]


def strip_of(compression: int, data: bytes, side: int = 16) -> bytes:
    """A grey TIFF of one strip that holds some compressed data."""
    tags = [(256, side), (257, side), (258, 8), (259, compression), (262, 1), (273, 8), (277, 1), (278, side), (279, len(data))]
    body = b"".join(struct.pack("<HHII", code, 4, 1, value) for code, value in tags)
    padded = data + b"\0" * (-len(data) % 2)
    return struct.pack("<4sI", b"II*\0", 8 + len(padded)) + padded + struct.pack("<H", len(tags)) + body + b"\0" * 4


def webp_claiming(side: int) -> bytes:
    """The canvas of an animation; 16,384 is the most that a WebP may have."""
    data = bytearray(encoded(scene(), "WEBP", save_all=True, append_images=[], lossless=True, exif=b"Exif\0\0"))
    place = data.find(b"VP8X") + 12
    data[place : place + 6] = struct.pack("<I", side - 1)[:3] * 2
    return bytes(data)


def bmp_claiming(side: int) -> bytes:
    data = bytearray(encoded(scene(), "BMP"))
    struct.pack_into("<ii", data, 18, side, side)
    return bytes(data)


def gif_claiming(side: int) -> bytes:
    data = bytearray(encoded(scene(channels=1), "GIF"))
    struct.pack_into("<HH", data, 6, side, side)
    place = data.find(b"\x2c\0\0\0\0")
    struct.pack_into("<HH", data, place + 5, side, side)
    return bytes(data)


def jpeg_2000_claiming(side: int) -> bytes:
    data = bytearray(encoded(scene(), "JPEG2000"))
    struct.pack_into(">II", data, data.find(b"ihdr") + 4, side, side)
    struct.pack_into(">II", data, data.find(b"\xff\x51") + 6, side, side)
    return bytes(data)


_ZEROS = bytes(120_000_000)

BOMBS: dict[str, Callable[[], bytes]] = {
    "png": lambda: png_claiming(SIDE, SIDE),
    "png in rows": lambda: png_claiming(2**31 - 1, 1),
    "jpeg": lambda: jpeg_claiming(65_500, 65_500, encoded(scene(), "JPEG")),
    "jpeg progressive": lambda: jpeg_claiming(65_500, 65_500, encoded(scene(), "JPEG", progressive=True)),
    "gif": lambda: gif_claiming(65_535),
    "bmp": lambda: bmp_claiming(SIDE),
    "webp": lambda: webp_claiming(16_384),
    "ppm": lambda: b"P6 100000 100000 255 " + bytes(64),
    "jpeg 2000": lambda: jpeg_2000_claiming(SIDE),
    "tiff": lambda: tiff_claiming(encoded(scene(), "TIFF"), t256=SIDE, t257=SIDE, t278=SIDE),
    "tiff lzw": lambda: tiff_claiming(encoded(scene(), "TIFF", compression="tiff_lzw"), t256=SIDE, t257=SIDE, t278=SIDE),
    "tiff of 16 bits": lambda: tiff_claiming(tiff(wide(scene()), photometric="rgb"), t256=SIDE, t257=SIDE, t278=SIDE),
    "bands": lambda: tiff_claiming(bands(scene(channels=5)), t256=SIDE, t257=SIDE, t278=SIDE),
    "bands of floats": lambda: tiff_claiming(
        bands(scene(channels=5).astype(np.float32), compression="zlib"), t256=SIDE, t257=SIDE, t278=SIDE
    ),
    "tile": lambda: tiff_claiming(bands(scene(channels=5), tile=(16, 16), compression="zlib"), t322=2**20, t323=2**20),
    "tile of colours": lambda: tiff_claiming(
        tiff(scene(), photometric="rgb", tile=(16, 16), compression="zlib"), t322=2**20, t323=2**20
    ),
    "jpeg in a tiff": lambda: strip_of(7, jpeg_claiming(65_500, 65_500, encoded(scene(channels=1), "JPEG"))),
    "jpeg 2000 in a tiff": lambda: strip_of(34_712, jpeg_2000_claiming(60_000)),
    "webp in a tiff": lambda: strip_of(50_001, webp_claiming(16_384)),
    "deflated strip": lambda: strip_of(8, zlib.compress(_ZEROS, 9)),
    "lzw strip": lambda: strip_of(5, imagecodecs.lzw_encode(_ZEROS)),
    "zstd strip": lambda: strip_of(50_000, imagecodecs.zstd_encode(_ZEROS, 19)),
    "lzma strip": lambda: strip_of(34_925, imagecodecs.lzma_encode(_ZEROS)),
    "packbits strip": lambda: strip_of(32_773, b"\x81\0" * 1_000_000),
    "note": lambda: png_with(png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(_ZEROS, 9))),
    "note of the world": lambda: png_with(png_chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(_ZEROS, 9))),
    "colour profile": lambda: png_with(png_chunk(b"iCCP", b"name\0\0" + zlib.compress(_ZEROS, 9))),
}


def main() -> None:
    """Memory counts from when the decoders are loaded and have decoded something."""
    from selfsight.data.decode import DecodeSettings, UndecodableError, decode
    from selfsight.data.opening import open_image

    def opened(data: bytes, channels: int, shrink: int) -> str:
        try:
            return "x".join(map(str, open_image(data, DecodeSettings(channels=channels)).pixels(shrink).shape))
        except UndecodableError as error:
            return str(error)

    folder = Path(sys.argv[1])
    for kind in ("jpeg", "png"):
        decode(encoded(scene(), kind))
    opened(bands(scene(channels=5), compression="zlib"), 5, 1)
    for name in BOMBS:
        data = (folder / name).read_bytes()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found = [opened(data, channels, shrink) for channels in (1, 3, 4, 5) for shrink in (1, 8)]
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(json.dumps({"name": name, "bytes": len(data), "found": found, "grown_mb": grown / 1024}), flush=True)


if __name__ == "__main__":
    main()

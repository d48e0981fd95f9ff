"""One small picture in every encoding that images come in."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

WIDTH, HEIGHT = 45, 30


def scene(width: int = WIDTH, height: int = HEIGHT, channels: int = 3) -> np.ndarray:
    """Smooth colours with noise on them: compresses like a photograph, and no two corners are alike."""
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(1).normal(0, 12, (height, width, channels))
    bands = [60 + 140 * (np.sin(x / (7 + c)) * np.cos(y / (9 - c % 5)) + 1) / 2 + x - y / 2 for c in range(channels)]
    values = np.clip(np.stack(bands, 2) + noise, 0, 255).astype(np.uint8)
    return values[:, :, 0] if channels == 1 else values


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def tiff(values: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **({"metadata": None} | options))
    return file.getvalue()


def bands(values: np.ndarray, planar: bool = False, **options: object) -> bytes:
    """A TIFF of [height, width, bands], band after band or pixel after pixel."""
    stored = values.transpose(2, 0, 1) if planar else values
    return tiff(stored, **({"photometric": "minisblack", "planarconfig": "separate" if planar else "contig"} | options))


def oriented(turn: int, kind: str = "JPEG", image: np.ndarray | None = None, **options: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = turn
    return encoded(scene() if image is None else image, kind, exif=exif, **options)


def wide(values: np.ndarray) -> np.ndarray:
    """8 bits to 16 of the same brightness."""
    return values.astype(np.uint16) * 257


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_claiming(width: int, height: int, data: bytes = b"\0") -> bytes:
    """A PNG whose head states a size, whatever data it has."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = png_chunk(b"IHDR", head) + png_chunk(b"IDAT", zlib.compress(data)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def jpeg_claiming(width: int, height: int, jpeg: bytes) -> bytes:
    """The same JPEG with another size in its frame head."""
    place = next(p for p in (jpeg.find(b"\xff\xc0"), jpeg.find(b"\xff\xc2")) if p > 0)
    return jpeg[: place + 5] + struct.pack(">HH", height, width) + jpeg[place + 9 :]


def tiff_claiming(data: bytes, **tags: int) -> bytes:
    """The same TIFF (little-endian, classic) with other numbers in tags `t256=...`; those that it lacks stay away."""
    out = bytearray(data)
    (place,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, place)
    for entry in range(place + 2, place + 2 + 12 * count, 12):
        code, _ = struct.unpack_from("<HH", data, entry)
        if f"t{code}" in tags:
            struct.pack_into("<HII", out, entry + 2, 4, 1, tags[f"t{code}"])
    return bytes(out)


def _frames() -> list[Image.Image]:
    return [Image.fromarray(np.roll(scene(), shift, 1)) for shift in (0, 9, 18)]


def _animated(kind: str, **options: object) -> bytes:
    first, *rest = _frames()
    return encoded(first, kind, save_all=True, append_images=rest, duration=50, **options)


def _palette() -> Image.Image:
    return Image.fromarray(scene()).quantize(32)


def _with_alpha(channels: int) -> np.ndarray:
    values = scene(channels=channels)
    values[:, :, -1] = np.arange(WIDTH) * 255 // (WIDTH - 1)
    return values


RGB: dict[str, Callable[[], bytes]] = {
    "jpeg 4:4:4": lambda: encoded(scene(), "JPEG", subsampling=0, quality=92),
    "jpeg 4:2:2": lambda: encoded(scene(), "JPEG", subsampling=1),
    "jpeg 4:2:0": lambda: encoded(scene(), "JPEG", subsampling=2),
    "jpeg 4:4:0": lambda: imagecodecs.jpeg8_encode(scene(), subsampling="440"),
    "jpeg 4:1:1": lambda: imagecodecs.jpeg8_encode(scene(), subsampling="411"),
    "jpeg progressive": lambda: encoded(scene(), "JPEG", progressive=True),
    "jpeg with restarts": lambda: encoded(scene(), "JPEG", restart_marker_blocks=2),
    "jpeg grey": lambda: encoded(scene(channels=1), "JPEG"),
    "jpeg grey progressive": lambda: encoded(scene(channels=1), "JPEG", progressive=True),
    "jpeg in RGB": lambda: encoded(scene(), "JPEG", keep_rgb=True),
    "jpeg CMYK": lambda: encoded(Image.fromarray(scene(channels=4), "CMYK"), "JPEG"),
    "jpeg YCCK": lambda: imagecodecs.jpeg8_encode(scene(channels=4), colorspace="CMYK", outcolorspace="YCCK"),
    "jpeg and garbage": lambda: encoded(scene(), "JPEG") + b"garbage" * 50,
    "jpeg garbage within": lambda: _garbage_between_segments(encoded(scene(), "JPEG")),
    "jpeg turned": lambda: oriented(6),
    "jpeg in many pictures": lambda: _animated("MPO"),
    "png": lambda: encoded(scene()),
    "png grey": lambda: encoded(scene(channels=1)),
    "png one bit": lambda: encoded(scene(channels=1) > 128),
    "png palette": lambda: encoded(_palette()),
    "png transparent palette": lambda: encoded(_palette(), transparency=3),
    "png palette of alphas": lambda: encoded(_palette(), transparency=bytes(range(0, 256, 8))),
    "png transparent colour": lambda: encoded(scene(), transparency=tuple(scene()[3, 4].tolist())),
    "png RGBA": lambda: encoded(_with_alpha(4)),
    "png LA": lambda: encoded(_with_alpha(2)),
    "png grey of 16 bits": lambda: encoded(wide(scene(channels=1))),
    "png of 16 bits": lambda: imagecodecs.png_encode(wide(scene())),
    "png RGBA of 16 bits": lambda: imagecodecs.png_encode(wide(_with_alpha(4))),
    "png animated": lambda: _animated("PNG"),
    "png turned": lambda: oriented(5, "PNG"),
    "gif": lambda: encoded(_palette(), "GIF"),
    "gif animated": lambda: _animated("GIF"),
    "gif transparent": lambda: encoded(_palette(), "GIF", transparency=3),
    "webp": lambda: encoded(scene(), "WEBP"),
    "webp lossless with alpha": lambda: encoded(_with_alpha(4), "WEBP", lossless=True),
    "webp animated": lambda: _animated("WEBP", lossless=True),
    "webp turned": lambda: oriented(8, "WEBP"),
    "bmp": lambda: encoded(scene(), "BMP"),
    "bmp palette": lambda: encoded(_palette(), "BMP"),
    "bmp one bit": lambda: encoded(scene(channels=1) > 128, "BMP"),
    "ppm": lambda: encoded(scene(), "PPM"),
    "pgm of 16 bits": lambda: encoded(Image.fromarray(wide(scene(channels=1)).astype(np.int32)), "PPM"),
    "jpeg 2000": lambda: encoded(scene(), "JPEG2000"),
    "avif": lambda: encoded(scene(), "AVIF"),
    "tiff": lambda: encoded(scene(), "TIFF"),
    "tiff lzw": lambda: encoded(scene(), "TIFF", compression="tiff_lzw"),
    "tiff deflate": lambda: encoded(scene(), "TIFF", compression="tiff_adobe_deflate"),
    "tiff jpeg": lambda: encoded(scene(), "TIFF", compression="jpeg"),
    "tiff fax": lambda: encoded(scene(channels=1) > 128, "TIFF", compression="group4"),
    "tiff palette": lambda: encoded(_palette(), "TIFF"),
    "tiff CMYK": lambda: encoded(Image.fromarray(scene(channels=4), "CMYK"), "TIFF"),
    "tiff RGBA": lambda: encoded(_with_alpha(4), "TIFF"),
    "tiff LA": lambda: encoded(_with_alpha(2), "TIFF"),
    "tiff planar": lambda: tiff(scene().transpose(2, 0, 1), photometric="rgb", planarconfig="separate"),
    "tiff tiled": lambda: tiff(scene(), photometric="rgb", tile=(16, 16), compression="zlib"),
    "tiff big-endian": lambda: tiff(scene(), photometric="rgb", byteorder=">"),
    "tiff big": lambda: tiff(scene(), photometric="rgb", bigtiff=True),
    "tiff grey of 16 bits": lambda: tiff(wide(scene(channels=1)), photometric="minisblack"),
    "tiff of 16 bits": lambda: tiff(wide(scene()), photometric="rgb", compression="lzw"),
    "tiff planar of 16 bits": lambda: tiff(wide(scene()).transpose(2, 0, 1), photometric="rgb", planarconfig="separate"),
    "tiff RGBA of 16 bits": lambda: tiff(wide(_with_alpha(4)), photometric="rgb", extrasamples=["unassalpha"]),
    "tiff of floats": lambda: tiff((scene() / 255).astype(np.float32), photometric="rgb"),
    "tiff turned": lambda: tiff(scene(), photometric="rgb", extratags=[(274, 3, 1, 7, True)]),
}
"""Encodings that `decode` gives as a picture of three colours."""

BANDS: dict[str, Callable[[], bytes]] = {
    "contiguous": lambda: bands(scene(channels=5)),
    "planar": lambda: bands(scene(channels=5), planar=True),
    "pages": lambda: tiff(scene(channels=5).transpose(2, 0, 1), photometric="minisblack", metadata={}),
    "lzw": lambda: bands(wide(scene(channels=5)), compression="lzw", predictor=True),
    "deflate tiles": lambda: bands(scene(channels=5), compression="zlib", tile=(16, 32)),
    "zstd of 16 bits": lambda: bands(wide(scene(channels=5)), compression="zstd", rowsperstrip=7),
    "floats": lambda: bands((scene(channels=5) / 255).astype(np.float32), compression="zlib", predictor=3),
    "big-endian big": lambda: bands(wide(scene(channels=5)), byteorder=">", bigtiff=True),
    "colours and more": lambda: bands(scene(channels=5), photometric="rgb", extrasamples=["unspecified"] * 2),
    "microscope": lambda: tiff(wide(scene(channels=5)).transpose(2, 0, 1), imagej=True, metadata={"axes": "CYX"}),
    "pages of jpeg": lambda: tiff(scene(channels=5).transpose(2, 0, 1), photometric="minisblack", compression="jpeg"),
    "planar tiles of jpeg 2000": lambda: bands(wide(scene(channels=5)), planar=True, compression="jpeg2000", tile=(32, 32)),
}
"""TIFFs of five bands."""


def _garbage_between_segments(jpeg: bytes) -> bytes:
    """Bytes that belong to no segment, before the first table: libjpeg warns of them and goes on."""
    place = jpeg.find(b"\xff\xdb")
    return jpeg[:place] + b"\x12\x34\x56" + jpeg[place:]

"""`attend`: images or a video in, maps of what an encoder sees in them out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selfsight import device as devices
from selfsight.api.drawing import Drawing
from selfsight.api.tolerance import tolerance
from selfsight.api.watch import Silent, Watch
from selfsight.attention import kinds
from selfsight.attention.inputs import Input, opened
from selfsight.attention.kinds import Asked
from selfsight.attention.looking import Gaze
from selfsight.attention.output import FILMS, OutputFolder, checked_formats
from selfsight.attention.placing import check_outside
from selfsight.attention.seeing import Eyes
from selfsight.attention.tiling import TiledGaze
from selfsight.data.sources import absolute
from selfsight.data.sources.video_frames import import_av
from selfsight.data.tolerance import BadImages, Tolerance
from selfsight.encoders import Encoder, load_encoder
from selfsight.errors import ConfigError, InputError
from selfsight.runs import alone, place_for_folder

REGISTERS = ("off", "auto")


def attend(
    encoder: str,
    input: str | Path,
    out: str | Path,
    *,
    maps: str | Sequence[str] = (),
    format: str | Sequence[str] = (),
    size: int | None = None,
    tile: int | None = None,
    block: int = -1,
    mass: float = 0.6,
    query: str | tuple[float, float] | None = None,
    registers: str = "off",
    rows: int = 24,
    limit: int | None = None,
    device: str = "auto",
    strict: bool = False,
    max_bad: float = 5.0,
    max_pixels: int | None = None,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Write maps of an image, of the images of any source, or of the frames of a video to the folder `out`.

    `maps` are names of `selfsight.attention.kinds.MAPS`, those that are usual for the encoder if none is given; `format` is any
    of png (each map on its picture), npz (numbers), sheet (the first `rows` pictures beside their maps; of a video such as lie
    evenly apart), mp4 and gif (a video beside its maps). Both may be text with commas. `size` is the side to which the shorter
    side of a picture is brought, that of the encoder's own input by default; above `tile` it is seen in tiles of that side.
    `block` is that whose attention is shown, `mass` the share of it that a mask holds, `query` a point in pixels of the picture,
    and with `registers` auto what outlier tokens hold is replaced by what their neighbours hold.

    Pictures are made one after the other; what is held in memory does not grow with their number, but for their keys. The same
    call goes on after an interruption; it raises `InputError` where a setting has changed. See `selfsight.attention.output` for
    what `out` holds.

    Returns a summary: pictures, resumed (pictures of earlier calls), bad_images, maps, formats, sheet and films (paths, if any),
    outliers (the share of outlier tokens in the pictures of this call; None where there were none to make).
    """
    watch = watch or Silent()
    path, on = place_for_folder(out), devices.resolve(device)
    bearing = tolerance(strict, max_bad)
    at = _checked(query, mass, registers, rows)
    loaded = _loaded(encoder, max_pixels, watch)
    eyes = Eyes(loaded, size, block)
    names = kinds.chosen(_listed(maps), eyes, at is not None)
    if registers == "auto" and loaded.kind != "vit":
        raise ConfigError(f"--registers auto: {encoder} is no transformer and has no outlier tokens; leave it out")
    wanted = kinds.rows_of(names)
    gaze = Gaze(eyes, wanted) if tile is None else TiledGaze(eyes, wanted, tile)
    given = opened(str(input), limit)
    check_outside(path, given.source.location)
    formats = checked_formats(_listed(format), given.kind == "video")
    if set(formats) & set(FILMS):
        import_av()
    settings = {"size": eyes.prepare.size, "tile": tile, "block": eyes.block, "mass": mass, "registers": registers, "rows": rows}
    manifest = {**_of(loaded, given), **settings, "maps": names, "formats": formats, "query": None if at is None else list(at)}
    with alone(path):
        folder = OutputFolder(path, manifest)
        loaded.to(on)
        work = Drawing(given, loaded, gaze, folder, names, Asked(mass), at, registers == "auto", rows)
        return _drawn(work, bearing, watch) | {"maps": names, "formats": formats}


def _drawn(work: Drawing, bearing: Tolerance, watch: Watch) -> dict[str, Any]:
    """What the summary says of the pictures."""
    folder, source = work.folder, work.given.source
    resumed = len(folder)
    if resumed:
        watch.say(f"{folder.path}: goes on after {resumed} of {len(source)} pictures")
    folder.begin()
    bad = BadImages(folder.bad_images, bearing, len(source), source.location, source.rejected)
    bad.add(source.rejected, 0)
    work.run(bad, watch)
    made = work.finish(watch)
    return {"pictures": len(folder), "resumed": resumed, "bad_images": len(bad), **made}


def _checked(query: str | tuple[float, float] | None, mass: float, registers: str, rows: int) -> tuple[float, float] | None:
    """The point."""
    if not 0 < mass <= 1:
        raise ConfigError(f"--mass: expected a share above 0 and up to 1. Got {mass:g}.")
    if registers not in REGISTERS:
        raise ConfigError(f"--registers: expected off or auto. Got '{registers}'.")
    if rows < 1:
        raise ConfigError(f"--rows: expected a whole number from 1. Got {rows}.")
    if query is None:
        return None
    try:
        x, y = (float(number) for number in (query.split(",") if isinstance(query, str) else query))
    except ValueError:
        x = y = -1.0
    if not (0 <= x < np.inf and 0 <= y < np.inf):
        raise InputError(f"--query: expected x,y in pixels of the picture, from the left and from the top. Got '{query}'.")
    return x, y


def _listed(names: str | Sequence[str]) -> list[str]:
    return [name.strip() for name in (names.split(",") if isinstance(names, str) else names) if name.strip()]


def _loaded(spec: str, max_pixels: int | None, watch: Watch) -> Encoder:
    encoder = load_encoder(spec)
    for note in encoder.notes:
        watch.say(f"{spec}: {note}")
    if max_pixels is not None:
        encoder.read = encoder.read.model_copy(update={"max_pixels": max_pixels})
    return encoder


def _of(encoder: Encoder, given: Input) -> dict[str, Any]:
    """Whose maps they are."""
    keys = hashlib.blake2b(digest_size=20)
    for name in given.source.keys:
        keys.update(name.encode("utf-8", "surrogateescape") + b"\0")
    files = [0] if given.kind == "image" else [clip.samples[0] for clip in given.clips]
    for index in files:
        keys.update(given.source.mark(index))
    return {
        "encoder": encoder.spec,
        "fingerprint": encoder.fingerprint,
        "input": absolute(given.source.location),
        "images": len(given.source),
        "keys": keys.hexdigest(),
        "read": encoder.read.model_dump(mode="json"),
    }

"""`explore`: encoders and images to a page on this machine."""

from __future__ import annotations

import importlib.util
import socket
import webbrowser
from pathlib import Path

import torch

from selfsight import device as devices
from selfsight.api import Silent, Watch
from selfsight.attention.seeing import Eyes
from selfsight.data.sources import first, open_source
from selfsight.encoders import load_encoder
from selfsight.errors import ConfigError, WeightsError
from selfsight.explorer.album import Album
from selfsight.explorer.indexing import Reading, indexed
from selfsight.explorer.onlooker import Onlooker
from selfsight.explorer.viewer import Viewer

DEFAULT = "efficientnet-lite0"
LIMIT = 2000
_NONE_GIVEN = f"no ENCODER was given, so it is {DEFAULT}, a CNN trained on ImageNet; a ViT has attention to look at as well"


def explore(
    encoder: str | None = None,
    data: str | Path | None = None,
    *,
    with_: str | None = None,
    size: int | None = None,
    limit: int = LIMIT,
    host: str = "127.0.0.1",
    port: int = 0,
    open: bool = False,
    device: str = "auto",
    workers: int = 0,
    max_pixels: int | None = None,
    watch: Watch | None = None,
) -> None:
    """Serve a page on which to look at pictures as an encoder sees them, maybe beside another (`with_`), until Ctrl-C.

    Every image of `data`, `limit` at most, is looked at before the page is there; what was seen stays in the cache. `size` is the
    side to which the shorter side of a picture is brought. The page is for this machine alone unless `host` says otherwise, at
    `port` or any that is free, and is shown in a browser with `open`. Raises `InputError`.
    """
    _check_extra()
    from selfsight.explorer import app, serving

    watch = watch or Silent()
    place = serving.bound(host, port)
    try:
        viewer, notes = opened(encoder, data, with_, size, limit, device, workers, max_pixels, watch)
        if not serving.is_private(place):
            watch.say(f"--host {host}: whoever reaches this machine over the network sees these images; there is no password")
        url = serving.address(host, place)
        place.listen()
        watch.say(f"{url}  (Ctrl-C ends it)")
        if open:
            webbrowser.open(url)
        serving.serve(app.application(viewer, notes, (host, socket.gethostname())), place)
    finally:
        place.close()


def opened(
    encoder: str | None,
    data: str | Path | None,
    other: str | None,
    size: int | None,
    limit: int,
    device: str,
    workers: int,
    max_pixels: int | None,
    watch: Watch,
) -> tuple[Viewer, tuple[str, ...]]:
    """What the page looks through, and what is to be said on it."""
    notes = [] if encoder else [_NONE_GIVEN]
    on = devices.resolve(device)
    specs = dict.fromkeys([encoder or DEFAULT, *([other] if other else [])])
    eyes = [_eyes(spec, size, max_pixels, on, data is None, watch) for spec in specs]
    source = None if data is None else open_source(data)
    if source is None:
        notes.append("no DATA was given, so there are no neighbours: pictures are what you bring")
    elif len(source) > limit:
        notes.append(f"{limit:,} of {len(source):,} images are indexed; --limit takes more")
    for note in notes:
        watch.say(note)
    if source is None:
        return Viewer([Onlooker(each, on) for each in eyes], None), tuple(notes)
    source = first(source, limit)
    album = Album(source, eyes[0].encoder.read)
    onlookers = [_with_index(each, album, Reading(on, workers, watch.advance, watch.say)) for each in eyes]
    return Viewer(onlookers, album), tuple(notes)


def _eyes(spec: str, size: int | None, max_pixels: int | None, on: torch.device, alone: bool, watch: Watch) -> Eyes:
    """`alone` says that nothing was given beside encoders: one that is none may have been meant as images."""
    try:
        loaded = load_encoder(spec, on)
    except WeightsError as error:
        if alone and Path(spec).exists():
            raise WeightsError(f"{str(error).rstrip('.')}; if it holds images: selfsight explore {DEFAULT} {spec}") from None
        raise
    for note in loaded.notes:
        watch.say(f"{spec}: {note}")
    if max_pixels is not None:
        loaded.read = loaded.read.model_copy(update={"max_pixels": max_pixels})
    return Eyes(loaded, size)


def _with_index(eyes: Eyes, album: Album, reading: Reading) -> Onlooker:
    found = indexed(eyes, album.source, reading)
    if found.bad:
        worst = found.bad[0]
        reading.say(f"left out, as not to be read: {len(found.bad)}, first {worst.key} ({worst.reason})")
    onlooker = Onlooker(eyes, reading.device, album, found)
    reading.say(f"{eyes.encoder.spec}: {onlooker.about()['memory']}")
    return onlooker


def _check_extra() -> None:
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"explore: needs {' and '.join(missing)}; pip install 'selfsight[explore]'")

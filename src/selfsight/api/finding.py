"""`objects`: images in, objects out that no label told of."""

from __future__ import annotations

import hashlib
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from selfsight import device as devices
from selfsight.api.tolerance import tolerance
from selfsight.api.watch import Silent, Watch
from selfsight.attention.objects import FINDERS, Finder
from selfsight.attention.objects.files import Form, check_names, form_and_place
from selfsight.attention.objects.looking import REFINEMENTS, Looking
from selfsight.attention.objects.progress import Progress, check_same
from selfsight.attention.objects.sheet import SHOWN, Drawn, objects_sheet
from selfsight.attention.objects.threshold import MASS, Threshold
from selfsight.attention.placing import check_outside
from selfsight.attention.seeing import Eyes
from selfsight.data.decode import Picture
from selfsight.data.loader import read_picture
from selfsight.data.object_ids import VOID
from selfsight.data.sheet import rgb
from selfsight.data.sources import BadImage, Source, absolute, first, open_source
from selfsight.data.tolerance import Tolerance, listed
from selfsight.data.windows import image_windows
from selfsight.encoders import load_encoder
from selfsight.encoders.features import none_readable
from selfsight.errors import ConfigError, InputError, Interrupted, WeightsError, nearest
from selfsight.runs import alone, append_jsonl, bad_list_of, environment, remove_folder, write_atomic
from selfsight.ssl.signals import Asked, Stop

_MOST = VOID - 1
"""Objects of a picture: what a PNG of a byte a pixel numbers."""


def objects(
    encoder: str,
    data: str | Path,
    out: str | Path,
    *,
    method: str = "tokencut",
    count: int = 1,
    size: int | None = None,
    mass: float | None = None,
    refine: str = "none",
    format: str | None = None,
    sheet: str | Path | None = None,
    limit: int | None = None,
    device: str = "auto",
    batch_size: int = 8,
    workers: int = 0,
    strict: bool = False,
    max_bad: float = 5.0,
    max_pixels: int | None = None,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Find up to `count` objects in each image, without a label, and write them to `out`.

    `method` is one of `FINDERS` (tokencut, lost, attention, kmeans); `attention` needs a ViT with CLS and keeps the share `mass`
    of it (0.6). `size` is the side to which the shorter side of an image is brought, by default that of the encoder's input; the
    more patches, the finer the masks. Masks are enlarged to the pixels of the image, and with `refine` guided drawn to its edges.

    `format` is coco (by default for .json), yolo, yolo-seg or masks, which are folders. `sheet`, a .png, shows the first images.
    Files that are no images are listed beside it in `out.bad_images.jsonl`. Until it is whole, `out` is a folder `out.parts`; the
    same call goes on from there, and does nothing where `out` is whole; it raises `InputError` where anything that decides an
    object has changed.

    Returns a summary: images, objects, empty (images without an object), resumed (samples of earlier calls), bad_images,
    images_per_second (None where nothing was left to do), files. Raises `InputError`, and `Interrupted` on Ctrl-C and SIGTERM,
    once what is done is written.
    """
    watch = watch or Silent()
    form, path = form_and_place(out, format)
    sheet_path = None if sheet is None else _place_for_sheet(sheet)
    finder = _finder(method, mass, count, refine)
    bearing = tolerance(strict, max_bad)
    eyes = _eyes(encoder, size, finder, method, device, max_pixels, watch)
    source = _source(data, limit, form, path, sheet_path)
    about = _about(encoder, eyes, source) | {"method": method, "count": count, "mass": mass, "refine": refine}
    about |= _same_images(source, eyes)
    with alone(path):
        made = form.about(path)
        if made is not None:
            return _finished(made, about, path, sheet_path, watch)
        progress = Progress(path, about, len(source))
        looking, start = Looking(source, eyes, finder, count, refine), time.perf_counter()
        with listed(bad_list_of(path)):
            _look(looking, progress, bearing, watch, batch_size, workers)
        rate = (progress.done - progress.resumed) / (time.perf_counter() - start)
        if sheet_path is not None:
            _draw(sheet_path, progress, looking, f"{Path(source.location).name}: {method}, {encoder}")
        summary = _summary(progress, source)
        _write(form, path, progress, source, about | {"found": summary, "environment": environment()})
    return summary | {"images_per_second": rate or None, "files": _files(path, sheet_path)}


def _finished(made: dict[str, Any], about: dict[str, Any], path: Path, sheet: Path | None, watch: Watch) -> dict[str, Any]:
    """The summary of what an earlier call of the same settings has made; `InputError` where they were others."""
    check_same(made, about, f"--out {path}: was made", "remove it to make it anew, or give another --out")
    if sheet is not None and not sheet.is_file():
        raise InputError(f"--sheet {sheet}: is drawn while objects are looked for, and {path} is finished; give another --out")
    watch.say(f"{path}: was finished before")
    return made["found"] | {"resumed": made["images"], "images_per_second": None, "files": _files(path, sheet)}


def _files(path: Path, sheet: Path | None) -> list[str]:
    return [str(file) for file in (path, sheet) if file is not None]


def _place_for_sheet(sheet: str | Path) -> Path:
    path = Path(sheet)
    if path.suffix.lower() != ".png" or path.is_dir():
        raise InputError(f"--sheet {sheet}: expected a file that ends in .png")
    return path


def _finder(method: str, mass: float | None, count: int, refine: str) -> Finder:
    if method not in FINDERS:
        raise ConfigError(f"--method: no method '{method}'. {nearest(method, FINDERS)}")
    if refine not in REFINEMENTS:
        raise ConfigError(f"--refine: no way '{refine}'. {nearest(refine, REFINEMENTS)}")
    if not 1 <= count <= _MOST:
        raise ConfigError(f"--count: expected 1 to {_MOST}. Got {count}.")
    if mass is None:
        return FINDERS[method]()
    if FINDERS[method] is not Threshold:
        raise ConfigError(f"--mass {mass:g}: is of --method attention alone; leave it out with {method}")
    if not 0 < mass < 1:
        raise ConfigError(f"--mass: expected a share above 0 and below 1, such as {MASS:g}. Got {mass:g}.")
    return Threshold(mass)


def _eyes(spec: str, size: int | None, finder: Finder, method: str, device: str, max_pixels: int | None, watch: Watch) -> Eyes:
    encoder = load_encoder(spec)
    for note in encoder.notes:
        watch.say(f"{spec}: {note}")
    if max_pixels is not None:
        encoder.read = encoder.read.model_copy(update={"max_pixels": max_pixels})
    eyes = Eyes(encoder.to(devices.resolve(device)), size)
    if finder.needs_attention and eyes(_black(eyes)).attention is None:
        others = ", ".join(name for name, other in FINDERS.items() if not other.needs_attention)
        raise WeightsError(f"{spec}: has no CLS whose attention could be looked at; take another --method: {others}")
    return eyes


def _black(eyes: Eyes) -> Picture:
    channels = eyes.encoder.read.channels
    pixels = np.zeros((eyes.patch, eyes.patch, channels), dtype=np.uint8)
    return Image.fromarray(pixels) if eyes.encoder.read.rgb else pixels


def _source(data: str | Path, limit: int | None, form: Form, out: Path, sheet: Path | None) -> Source:
    """Its images; `InputError` where `out` or `sheet` would be among them, or files of two of them would have one name."""
    source = first(open_source(data), limit)
    if form.folder:
        check_names(source)
        check_outside(out, source.location)
    if sheet is not None:
        check_outside(sheet, source.location, "--sheet")
    return source


def _about(spec: str, eyes: Eyes, source: Source) -> dict[str, Any]:
    """How objects are found, in words and numbers that do not change on the way."""
    return {"encoder": spec, "data": absolute(source.location), "images": len(source), "size": eyes.prepare.size}


def _same_images(source: Source, eyes: Eyes) -> dict[str, Any]:
    """What else must be as it was for rows to be gone on with."""
    names = hashlib.blake2b(digest_size=20)
    for key in source.keys:
        names.update(key.encode("utf-8", "surrogateescape") + b"\0")
    read = eyes.encoder.read.model_dump(mode="json")
    return {"fingerprint": eyes.encoder.fingerprint, "names of images": names.hexdigest(), "images read as": read}


def _look(looking: Looking, progress: Progress, bearing: Tolerance, watch: Watch, batch_size: int, workers: int) -> None:
    """Look at what no row is of yet. On Ctrl-C and SIGTERM `Interrupted` is raised at once; the windows before are written."""
    if progress.done:
        watch.say(f"{progress.out}: goes on after {progress.done} of {progress.total} images")
    source, eyes, what = looking.source, looking.eyes, f"looking for objects in {Path(looking.source.location).name}"
    windows = image_windows(
        source,
        eyes.prepare,
        batch_size=batch_size,
        workers=workers,
        read=eyes.encoder.read,
        start=progress.done,
        pin=next(eyes.backbone.parameters()).is_cuda,
    )
    with Stop() as stop:
        try:
            for window in stop.waiting(windows):
                with stop.at_once():
                    rows = looking.rows(window, lambda done: watch.advance(what, progress.done + done, progress.total))
                progress.add(rows)
                bearing.check(progress.bad, progress.done, progress.total, source.location)
                stop.check()
        except Asked as asked:
            done = f"{progress.done} of {progress.total} images are done"
            raise Interrupted(asked.number, f"stopped by {asked.name}: {done}") from None
    if not any(True for _ in progress.found()):
        progress.remove()
        raise none_readable(source, progress.bad)


def _draw(path: Path, progress: Progress, looking: Looking, title: str) -> None:
    """The first images, as far as they can still be read."""
    shown = []
    for row in islice(progress.found(), SHOWN):
        picture = read_picture(looking.source, row["sample"], looking.eyes.encoder.read)
        if not isinstance(picture, BadImage):
            shown.append(Drawn(rgb(np.asarray(picture)), row))
    settings = f"shorter side {looking.eyes.prepare.size} px, at most {looking.count} a picture, refine {looking.refine}"
    sheet = objects_sheet(shown, title, f"{settings}; masks and boxes, under each picture its scores")
    write_atomic(path, lambda temporary: sheet.save(temporary, "PNG"))


def _write(form: Form, path: Path, progress: Progress, source: Source, about: dict[str, Any]) -> None:
    """Make `out` of the rows, whole or not at all, list what could not be read, and remove the rows."""
    if form.folder:
        made = progress.folder / "made"
        remove_folder(made)  # of a process that was killed meanwhile
        form.write(progress.found, source, about, made)
        made.replace(path)
    else:
        write_atomic(path, lambda temporary: form.write(progress.found, source, about, temporary))
    bad = [*source.rejected, *progress.bad]
    bad_list_of(path).unlink(missing_ok=True)
    if bad:
        append_jsonl(bad_list_of(path), [{"key": image.key, "reason": image.reason} for image in bad])
    progress.remove()


def _summary(progress: Progress, source: Source) -> dict[str, Any]:
    counts = [len(row["objects"]) for row in progress.found()]
    return {
        "images": len(counts),
        "objects": sum(counts),
        "empty": counts.count(0),
        "resumed": progress.resumed,
        "bad_images": len(source.rejected) + len(progress.bad),
    }

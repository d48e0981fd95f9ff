"""Indexing a set: each image is looked at once, and what was seen of it stays in the cache.

A folder of the cache holds `trained.faiss`, which says how numbers become bytes, and a part for each stretch of images. A part is
there as a whole or not at all, so that the next start goes on behind the last one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from selfsight import metrics
from selfsight.attention.seeing import Eyes
from selfsight.data.loader import evenly_apart, read_picture
from selfsight.data.sources import BadImage, Source, absolute
from selfsight.data.windows import Window, image_windows
from selfsight.encoders.features import none_readable
from selfsight.errors import InputError, SelfsightError
from selfsight.explorer.places import Places, filled, trained
from selfsight.retrieval.store import state_of
from selfsight.runs import alone, cache_folder, counted, remove_folder, write_atomic

FORMAT = 2
BATCH = 16
"""Images that are seen at once. Between two parts lie as many, or four times as many where their shapes differ."""
SAMPLE = 64
"""Images from which it is learnt how numbers become bytes."""
_TRAINED = "trained.faiss"

Arrays = dict[str, npt.NDArray[Any]]


class Reading(NamedTuple):
    """Where and how images are read; `progress` hears (what, done, total), `say` a remark."""

    device: torch.device
    workers: int
    progress: Callable[[str, int, int], None]
    say: Callable[[str], None]


class Indexed(NamedTuple):
    """`places` of the images that could be read, the number in the source of each (`samples` [n]), and those that could not."""

    places: Places
    samples: npt.NDArray[np.int64]
    bad: list[BadImage]


class _Look(NamedTuple):
    """One image: `patches` [N, D] over its grid, and the `summary` [W]."""

    sample: int
    grid: tuple[int, int]
    patches: npt.NDArray[np.float32]
    summary: npt.NDArray[np.float32]


class _Part(NamedTuple):
    """What was seen of samples up to `stop`."""

    stop: int
    arrays: Arrays
    bad: list[BadImage]


def indexed(eyes: Eyes, source: Source, reading: Reading) -> Indexed:
    """Everything that `eyes` see of a source, from the cache as far as it is there.

    `DataError` where no image can be read, `InputError` where another process indexes the same, `SelfsightError` where a feature
    is not finite.
    """
    at = _place(eyes, source)
    at.mkdir(parents=True, exist_ok=True)
    _remove_others(at)
    with ExitStack() as held:
        try:
            held.enter_context(alone(at))
        except InputError:
            who = f"another process is indexing it for {eyes.encoder.spec}"
            raise InputError(f"{source.location}: {who}; wait for its end, or explore other images meanwhile") from None
        return _joined(_parts(at, eyes, source, reading), at, source)


def _remove_others(at: Path) -> None:
    """Those of images that have changed since; but none that another process is at work on."""
    for other in at.parent.iterdir():
        if other != at and other.is_dir():
            with suppress(InputError), alone(other):
                remove_folder(other)


def _place(eyes: Eyes, source: Source) -> Path:
    """A folder for encoder, size and set; in it one for the images as they are now."""
    who = f"{FORMAT} {eyes.encoder.fingerprint} {eyes.prepare!r} {len(source)} {absolute(source.location)}"
    name = hashlib.blake2b(who.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
    return cache_folder("explore") / name / state_of(source, eyes.encoder.read)


def _parts(at: Path, eyes: Eyes, source: Source, reading: Reading) -> list[_Part]:
    parts = _kept(at, len(source))
    start = parts[-1].stop if parts else 0
    spec = eyes.encoder.spec
    if start == len(source):
        reading.say(f"{spec}: index of {counted(len(source), 'image')} from {at.parent}")
        return parts
    if start:
        reading.say(f"{spec}: {start} of {len(source)} images were indexed before")
    elif len(source) > BATCH:
        _learn(at, eyes, source)
    windows = image_windows(source, eyes.prepare, batch_size=BATCH, workers=reading.workers, read=eyes.encoder.read, start=start)
    for window in windows:
        part = _Part(window.stop, _seen(window, eyes, reading.device, at), window.bad)
        write_atomic(at / f"part-{len(parts):06d}.safetensors", partial(_save, part))
        parts.append(part)
        reading.progress(f"looking at {source.location} with {spec}", window.stop, len(source))
    return parts


def _seen(window: Window, eyes: Eyes, device: torch.device, at: Path) -> Arrays:
    """Codes of all places, image by image in the order of the source, their grids, summaries and samples; empty without any."""
    found: list[_Look] = []
    for numbers, images in window.batches:
        tokens = eyes.encoder.tokens(images.to(device))
        patches, summaries = tokens.patches.float().cpu().numpy(), tokens.summary.float().cpu().numpy()
        if not (np.isfinite(patches).all() and np.isfinite(summaries).all()):
            raise SelfsightError(f"{eyes.encoder.spec}: its features are not finite numbers; are its weights whole?")
        found += [_Look(number, tokens.grid, *pair) for number, *pair in zip(numbers, patches, summaries, strict=True)]
    if not found:
        return {}
    found.sort(key=lambda look: look.sample)
    unit = metrics.normalize(np.concatenate([look.patches for look in found]))
    return {
        "codes": _engine(at, unit).sa_encode(unit),
        "grids": np.array([look.grid for look in found], dtype=np.int64),
        "summaries": metrics.normalize(np.stack([look.summary for look in found])),
        "samples": np.array([look.sample for look in found], dtype=np.int64),
    }


def _learn(at: Path, eyes: Eyes, source: Source) -> None:
    """Make codes for images that lie evenly apart, so that the range of their features is that of all."""
    pictures = (read_picture(source, index, eyes.encoder.read) for index in evenly_apart(len(source), SAMPLE))
    patches = [eyes(picture).patches for picture in pictures if not isinstance(picture, BadImage)]
    finite = [each for each in patches if np.isfinite(each).all()]
    if finite:
        _keep_engine(at, metrics.normalize(np.concatenate(finite)))


def _engine(at: Path, unit: npt.NDArray[np.float32]) -> Any:
    """What makes codes; where none of a sample could be read, learnt from the first places that there are."""
    if not (at / _TRAINED).is_file():
        _keep_engine(at, unit)
    return faiss.read_index(str(at / _TRAINED))


def _keep_engine(at: Path, unit: npt.NDArray[np.float32]) -> None:
    write_atomic(at / _TRAINED, lambda temporary: faiss.write_index(trained(unit), str(temporary)))


def _save(part: _Part, path: Path) -> None:
    bad = json.dumps([[image.key, image.reason] for image in part.bad])
    save_file(part.arrays, path, {"stop": str(part.stop), "bad": bad})


def _kept(at: Path, total: int) -> list[_Part]:
    """The parts that are there and whole, up to the first that is not; none where it is not known how they were made."""
    parts: list[_Part] = []
    while (path := at / f"part-{len(parts):06d}.safetensors").is_file() and (not parts or parts[-1].stop < total):
        try:
            with safe_open(path, framework="numpy") as file:
                told = file.metadata()
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
                bad = [BadImage(*pair) for pair in json.loads(told["bad"])]
                parts.append(_Part(int(told["stop"]), arrays, bad))
        except (SafetensorError, ValueError, KeyError, TypeError):
            break
    return parts if (at / _TRAINED).is_file() or not any(part.arrays for part in parts) else []


def _joined(parts: list[_Part], at: Path, source: Source) -> Indexed:
    bad = [image for part in parts for image in part.bad]
    full = [part.arrays for part in parts if part.arrays]
    if not full:
        raise none_readable(source, bad)
    codes, grids, summaries, samples = (
        np.concatenate([arrays[name] for arrays in full]) for name in ("codes", "grids", "summaries", "samples")
    )
    engine = filled(faiss.read_index(str(at / _TRAINED)), codes)
    return Indexed(Places(engine, grids, summaries), samples, bad)

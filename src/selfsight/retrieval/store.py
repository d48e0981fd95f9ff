"""An index that is kept: known again by its encoder and its images, and built anew when these have changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from selfsight.data.decode import DecodeSettings
from selfsight.data.sources import Source
from selfsight.errors import DataError, DiskFullError
from selfsight.retrieval.features_file import Gathered
from selfsight.retrieval.index import EXACT_BELOW, Contents, Index
from selfsight.runs import cache_folder

Say = Callable[[str], None]


@dataclass(frozen=True)
class Origin:
    """Where features come from: `gather` gets them, which may take long; the rest tells whether that is needed again."""

    location: str
    encoder: str
    fingerprint: str
    state: str
    gather: Callable[[], Gathered]


def kept_index(origin: Origin, folder: Path | None, say: Say, exact_below: int = EXACT_BELOW) -> Index:
    """The index in `folder` (by default one of the cache) if it still holds; else a new one, which is left there.

    A `DataError` where a folder of the user's holds something else: an index of another encoder or of other images, or files
    that are none. The cache costs time at worst, never the answer.
    """
    at = folder or cache_folder("search") / _name(origin)
    before = _before(at, origin, say, own=folder is not None)
    if before is not None and before.contents.state == origin.state and before.exact == (len(before) < exact_below):
        say(f"index of {len(before)} images from {at}")
        return before
    if before is not None:
        say(f"{at}: {origin.location}, or how its images are read, has changed since this index was built, so it is built again")
    found = origin.gather()
    bad = [(image.key, image.reason) for image in found.bad]
    contents = Contents(origin.location, origin.encoder, origin.fingerprint, origin.state, found.keys, found.labels, bad)
    if len(found.keys) >= exact_below:
        say(f"compressing {len(found.keys)} vectors, which takes some minutes")
    built = Index.build(found.vectors, contents, exact_below)
    try:
        built.save(at)
    except (OSError, DiskFullError) as error:
        if folder is not None:
            raise
        say(f"index not kept: {error}")
    return built


def state_of(source: Source, read: DecodeSettings) -> str:
    """Changes when a sample, its label, its image or how images are read does. No image is read where files tell by their
    times."""
    total = hashlib.blake2b(digest_size=20)
    total.update(repr((source.classes, read)).encode())
    for index, key in enumerate(source.keys):
        try:
            mark = source.mark(index)
        except OSError:
            mark = b"unreadable"
        label = -1 if source.labels is None else int(source.labels[index])
        total.update(b"%d %s\0%s\0" % (label, key.encode("utf-8", "surrogatepass"), mark))
    return total.hexdigest()


def _name(origin: Origin) -> str:
    return hashlib.blake2b(f"{origin.fingerprint} {origin.location}".encode(), digest_size=12).hexdigest()


def _before(at: Path, origin: Origin, say: Say, *, own: bool) -> Index | None:
    """The index that stands there, if it is whole and, in a folder of the user's (`own`), of this encoder and these images."""
    if not (at / "index.json").is_file():
        if own and at.exists() and (not at.is_dir() or any(at.iterdir())):
            raise DataError(f"--index {at}: is there and holds no index; expected one of selfsight search, or a new folder")
        return None
    if own and not Index.stands_in(at):
        raise DataError(f"--index {at}: its index.json is not one of selfsight search; give another folder")
    try:
        found = Index.load(at)
    except DataError as error:
        say(f"{error}; it is built again")
        return None
    held = found.contents
    if held.fingerprint != origin.fingerprint:
        raise DataError(
            f"--index {at}: holds features of {held.encoder}, which is not {origin.encoder} with its weights and settings of "
            "now; give another folder, or remove this one"
        )
    if held.location != origin.location:
        raise DataError(f"--index {at}: is of {held.location}, not of {origin.location}; give another folder, or remove this one")
    return found

"""The samples of one tar shard: members that share a name up to its first dot, as WebDataset has it.

A scan reads headers and the small members with labels, never an image. Its result is four Arrow arrays, so that a million
samples cost tens of bytes each and nothing is parsed again.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from selfsight.data.sources.base import BadImage
from selfsight.data.sources.contents import IMAGES
from selfsight.data.sources.tar_headers import Member, TarHeaders

_CHUNK = 8192
_LARGEST_LABEL = 1 << 20
_FORMATS = (("jpg", "jpeg"), ("png",), ("webp",))
_NEVER = 127
_MANY_KINDS, _FEW_KINDS = 16, 4
_LONGEST_LABEL = 256
_NO_FILE = {
    **dict.fromkeys("12", "is a link, no file"),
    **dict.fromkeys("346", "is a device or a pipe, no file"),
    "S": "is a sparse file",
    "M": "goes on from another archive",
}
_SILENT = frozenset("5VDN")
_FIRST_DOT = r"^(?P<key>(?:.*/)?[^/.]+)\.(?P<kind>[^/]*)$"
_LAST_DOT = r"^(?P<key>(?:.*/)?[^/]+)\.(?P<kind>[^/.]*)$"
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Samples(NamedTuple):
    """One row a sample: its key, where its image lies and its label as text, maybe null.

    In `rejected`, what has an empty key is said of the archive itself.
    """

    keys: pa.LargeStringArray
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    labels: pa.LargeStringArray
    rejected: list[BadImage]


def scan(file: IO[bytes], size: int, image: str | None = None) -> Samples:
    """The samples of an open archive; `image` is the extension that is the image where a sample has several (`img.jpg`)."""
    return _samples(_Members(file, size), image)


class _Texts:
    """A growing text column that keeps few strings as objects."""

    def __init__(self) -> None:
        self._chunks: list[pa.Array] = []
        self._last: list[str | None] = []

    def append(self, text: str | None) -> None:
        self._last.append(text)
        if len(self._last) == _CHUNK:
            self._flush()

    def array(self) -> pa.LargeStringArray:
        self._flush()
        whole = pa.concat_arrays(self._chunks)
        self._chunks = []
        return whole

    def _flush(self) -> None:
        self._chunks.append(pa.array(self._last, pa.large_string()))
        self._last = []


class _Members:
    """The files of an archive as columns. `labels` is the text of a .cls or .json file, else null."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.rejected: list[BadImage] = []
        self.offsets, self.sizes = array("q"), array("q")
        self.unlabelled: dict[int, str] = {}
        headers = TarHeaders(file, size)
        names, labels = _Texts(), _Texts()
        for name, member in self._files(headers):
            names.append(name)
            labels.append(self._label(headers, name, member))
            self.offsets.append(member.offset)
            self.sizes.append(member.size)
        self.names, self.labels = names.array(), labels.array()
        self.fault = headers.fault

    def _files(self, headers: TarHeaders) -> Iterator[tuple[str, Member]]:
        for member in headers:
            if member.kind in _SILENT:
                continue
            name = _plain(member.name)
            reason = _NO_FILE.get(member.kind) or _hostile(name) or (None if member.kind == "0" else "is no file")
            if reason:
                self.rejected.append(BadImage(printable(member.name), reason))
            elif not name.rpartition("/")[2].startswith((".", "__")):
                yield name, member

    def _label(self, headers: TarHeaders, name: str, member: Member) -> str | None:
        if not name.endswith((".cls", ".json")) or member.size > _LARGEST_LABEL:
            return None
        payload = headers.read(member.offset, member.size)
        try:
            return _from_cls(payload) if name.endswith(".cls") else _from_json(payload)
        except (ValueError, RecursionError):
            self.unlabelled[len(self.offsets)] = f"its label cannot be read ({name.rpartition('/')[2]})"
            return None


def _samples(members: _Members, image: str | None) -> Samples:
    keys, kinds = _split(members.names, image)
    coded = keys.dictionary_encode()
    names = coded.dictionary
    codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    pictures = _best(codes, _ranks(kinds, lambda kind: _image_rank(kind, image)), len(names))
    texts = _best(codes, _ranks(kinds, lambda kind: {"cls": 0, "json": 1}.get(kind, _NEVER)), len(names))
    labels = members.labels.take(pa.array(texts, mask=texts < 0))
    offsets, sizes = np.array(members.offsets, np.int64), np.array(members.sizes, np.int64)
    bad = _unusable(
        members, codes, pictures, sizes, labels, f"has no member .{image}" if image else "has no image among its members"
    )
    good = np.ones(len(names), dtype=bool)
    good[list(bad)] = False
    rejected = [BadImage("", members.fault)] if members.fault else []
    rejected += members.rejected
    rejected += [BadImage(members.names[int(row)].as_py(), "is no image, by its name") for row in np.flatnonzero(codes < 0)]
    rejected += [BadImage(names[code].as_py(), reason) for code, reason in bad.items()]
    rows, kept = pictures[good], pa.array(good)
    return Samples(names.filter(kept), offsets[rows], sizes[rows], labels.filter(kept), rejected)


def _unusable(
    members: _Members,
    codes: npt.NDArray[np.int32],
    pictures: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int64],
    labels: pa.Array,
    missing: str,
) -> dict[int, str]:
    """Numbers of the samples that are to be left out, and why."""
    bad: dict[int, str] = dict.fromkeys(np.flatnonzero(pictures < 0).tolist(), missing)
    for row, reason in members.unlabelled.items():
        bad.setdefault(int(codes[row]), reason)
    found = np.flatnonzero(pictures >= 0)
    bad.update(dict.fromkeys(found[sizes[pictures[found]] == 0].tolist(), "its image is empty"))
    last = len(pictures) - 1
    if members.fault and labels.null_count <= last and not labels[last].is_valid:
        bad.setdefault(last, "is cut off before its label")
    return bad


def _split(names: pa.LargeStringArray, image: str | None) -> tuple[pa.Array, pa.Array]:
    """(keys, kinds): what is before and behind the first dot of the last part of a name, null where there is no dot.

    Files such as clip.000123.jpg are no members of one sample `clip`: where there are more kinds of image than a data set has,
    the last dot divides.
    """
    parts = pc.extract_regex(names, _FIRST_DOT)
    kinds = [kind for kind in parts.field("kind").unique().to_pylist() if kind and _image_rank(kind, image) < _NEVER]
    if image is None and len(kinds) > min(_MANY_KINDS, _FEW_KINDS * len(parts.field("key").unique())):
        parts = pc.extract_regex(names, _LAST_DOT)
    keys, kinds = parts.flatten()
    return keys, kinds


def _ranks(kinds: pa.Array, rank: Callable[[str], int]) -> npt.NDArray[np.int8]:
    coded = kinds.dictionary_encode()
    table = np.array([*map(rank, coded.dictionary.to_pylist()), _NEVER], dtype=np.int8)
    return table[coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]


def _best(codes: npt.NDArray[np.int32], ranks: npt.NDArray[np.int8], count: int) -> npt.NDArray[np.int64]:
    """For each sample the row of its member of least rank, the first of several; -1 where it has none."""
    rows = np.flatnonzero((ranks < _NEVER) & (codes >= 0))
    rows = rows[np.lexsort((ranks[rows], codes[rows]))]
    found, first = np.unique(codes[rows], return_index=True)
    best = np.full(count, -1, dtype=np.int64)
    best[found] = rows[first]
    return best


def _image_rank(kind: str, image: str | None) -> int:
    """JPEG before PNG before WebP before the rest, `jpg` before `left.jpg`."""
    kind = kind.lower()
    if image is not None:
        return 0 if kind == image else _NEVER
    last = kind.rpartition(".")[2]
    if f".{last}" not in IMAGES:
        return _NEVER
    place = next((number for number, names in enumerate(_FORMATS) if last in names), len(_FORMATS))
    return 2 * place + (last != kind)


def _plain(name: str) -> str:
    """Without the empty parts and the dots of `./a//b`."""
    if "./" in name or "//" in name:
        front = "/" if name.startswith("/") else ""
        return front + "/".join(part for part in name.split("/") if part not in ("", "."))
    return name


def _hostile(name: str) -> str | None:
    if name.startswith("/") or (".." in name and ".." in re.split(r"[/\\]", name)):
        return "path escapes the archive"
    if not name.isprintable() and _CONTROL.search(name):
        return "name holds control characters"
    return None if name else "has no name"


def printable(name: str) -> str:
    """A name without what would steer a terminal."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", name)


def _from_cls(payload: bytes) -> str | None:
    text = payload.decode().strip()
    if not text or len(text) > _LONGEST_LABEL:
        raise ValueError("no label")
    return _as_text(int(text)) if text.lstrip("-").isdecimal() else text


def _from_json(payload: bytes) -> str | None:
    document = json.loads(payload)
    if not isinstance(document, dict):
        return None
    return _as_text(document["cls"] if "cls" in document else document.get("label"))


def _as_text(value: Any) -> str | None:
    """A class number or name as text; None for -1, by which some say that there is no label, and for what is neither."""
    if isinstance(value, bool) or value == -1:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)[:_LONGEST_LABEL] if isinstance(value, (int, str)) and value != "" else None

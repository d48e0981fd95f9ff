"""Members of a tar archive by its headers alone: ustar, GNU long names and PAX, whole or cut off.

The standard library reads the same headers, at some 50 us each and with an object kept for every one of them; an index of a
million members needs neither. Where an archive is damaged the members before the damage are given, and `fault` says the rest.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import IO, NamedTuple

_BLOCK = 512
_END = bytes(_BLOCK)
_AHEAD = 8192  # one read takes in the small members that stand beside an image
_LONGEST_NAME = 1 << 20
_ADLER = 65521
_WITHOUT_DATA = frozenset(b"123456")
_RECORD = re.compile(rb"(\d{1,9}) ([^=]+)=")
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ": "xz", b"BZh": "bzip2", b"\x04\x22\x4d\x18": "lz4"}


class Member(NamedTuple):
    """`kind` is the type flag of the header: 0 file, 1 and 2 links, 3, 4 and 6 devices and pipes, 5 folder, S sparse."""

    name: str
    kind: str
    offset: int
    size: int


class TarHeaders:
    """Iterates over the members of an open file. Afterwards `fault` says what is wrong with the archive, or is None."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._size = file, size
        self._window, self._start = b"", 0
        self._at = 0
        self._own: dict[str, bytes] = {}
        self._common: dict[str, bytes] = {}
        self.fault: str | None = None

    def __iter__(self) -> Iterator[Member]:
        while (header := self._header()) is not None:
            kind = chr(header[156])
            size = _number(header[124:136])
            if size < 0:
                self.fault = f"has a damaged header at byte {self._at}"
                return
            self._at += _BLOCK
            if kind in "xXgLK":
                if not self._extension(kind, size):
                    return
                continue
            member = self._member(header, kind, size)
            if self.fault:
                return
            yield member

    def read(self, offset: int, size: int) -> bytes:
        """Some bytes of the archive; fewer at its end."""
        begin = offset - self._start
        if begin < 0 or begin + size > len(self._window):
            self._file.seek(offset)
            self._window, self._start, begin = self._file.read(max(size, _AHEAD)), offset, 0
        return self._window[begin : begin + size]

    def _header(self) -> bytes | None:
        header = self.read(self._at, _BLOCK)
        if header == _END:
            return None
        if len(header) == _BLOCK and _sums_up(header):
            return header
        self.fault = self._what_is_wrong(header)
        return None

    def _what_is_wrong(self, header: bytes) -> str:
        if self._at == 0:
            for magic, name in _COMPRESSED.items():
                if header.startswith(magic):
                    return f"is compressed with {name}, so that its samples can be read in order only; decompress it"
            return "is no tar archive" if header else "is empty"
        if len(header) == _BLOCK:
            return f"has a damaged header at byte {self._at}"
        return "is cut off inside a header" if header else "ends without the end mark of an archive"

    def _extension(self, kind: str, size: int) -> bool:
        """A header that says something of the next one, or (g) of all that follow."""
        payload = self.read(self._at, size) if size <= _LONGEST_NAME else b""
        if len(payload) < size:
            self.fault = (
                "is cut off inside a header" if size <= _LONGEST_NAME else f"has a damaged header at byte {self._at - _BLOCK}"
            )
            return False
        records = {"path": payload.partition(b"\0")[0]} if kind == "L" else {} if kind == "K" else _records(payload)
        if records is None:
            self.fault = f"has a damaged header at byte {self._at - _BLOCK}"
            return False
        (self._common if kind == "g" else self._own).update(records)
        self._at += _padded(size)
        return True

    def _member(self, header: bytes, kind: str, size: int) -> Member:
        said = {**self._common, **self._own} if self._common or self._own else None
        name = said.get("path") if said else None
        if name is None:
            name = _name(header)
        if said:
            self._own = {}
            size = int(said["size"]) if said.get("size", b"").isdigit() else size
            kind = "S" if any(key.startswith("GNU.sparse.") for key in said) else kind
        if kind == "\0":
            kind = "5" if name.endswith(b"/") else "0"
        if kind == "S":
            self._skip_map(header)
        text = name.decode("utf-8", "backslashreplace")
        offset = self._at
        if ord(kind) in _WITHOUT_DATA:
            return Member(text, kind, offset, 0)
        if offset + size > self._size:
            self.fault = f"is cut off inside '{text}' ({max(0, self._size - offset)} of {size} bytes)"
        self._at += _padded(size)
        return Member(text, "0" if kind == "7" else kind, offset, size)

    def _skip_map(self, header: bytes) -> None:
        """The list of holes of an old GNU sparse file goes on in blocks of its own."""
        more = header[156:157] == b"S" and header[482]
        while more:
            block = self.read(self._at, _BLOCK)
            self._at += _BLOCK
            more = len(block) == _BLOCK and block[504]


def _sums_up(header: bytes) -> bool:
    """Whether the checksum fits: the sum of all bytes, its own eight taken as blanks.

    The low half of an Adler-32 is that sum plus one, modulo 65521. Some old writers took bytes as signed.
    """
    stated = _number(header[148:156])
    blanked = header[:148] + b" " * 8 + header[156:]
    if stated >= 0 and zlib.adler32(blanked) & 0xFFFF == (stated + 1) % _ADLER:
        return True
    return stated == sum(blanked) - 256 * sum(byte > 127 for byte in blanked)


def _number(field: bytes) -> int:
    """A number in octal digits, or in base 256 where the first bit is set; -1 where it is neither."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.partition(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        return -1


def _name(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    # GNU archives keep times where those of POSIX keep the front of a long name.
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    return name


def _records(payload: bytes) -> dict[str, bytes] | None:
    """Records `LENGTH KEY=VALUE\\n` of a PAX header; None where they are damaged."""
    found = {}
    at = 0
    while at < len(payload) and payload[at]:
        match = _RECORD.match(payload, at)
        end = at + int(match[1]) if match else 0
        if match is None or end > len(payload) or end <= match.end() or payload[end - 1] != 10:
            return None
        found[match[2].decode("utf-8", "replace")] = payload[match.end() : end - 1]
        at = end
    return found


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK

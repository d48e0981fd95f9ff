"""The rows of objects while they are being found: appended, so that a killed process goes on where it was.

While OUT is being made, `OUT.parts/` holds `rows.jsonl`, a row for each sample in the order of the source, and `manifest.json`,
which says of what. A row that was cut off is written again; OUT is made of the rows once, at the end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from selfsight.attention.objects.looking import Row
from selfsight.data.sources import BadImage
from selfsight.errors import InputError
from selfsight.runs import append_jsonl, remove_folder, write_json_atomic


class Progress:
    """The rows of `out` so far, of `total` samples. `manifest` says of what: all of it must be as it was to go on.

    Raises `InputError` where there are rows of something else.
    """

    def __init__(self, out: Path, manifest: Mapping[str, Any], total: int) -> None:
        self.out, self.total = out, total
        self.folder = out.with_name(out.name + ".parts")
        self._path, self._manifest = self.folder / "rows.jsonl", self.folder / "manifest.json"
        self._check(manifest)
        self.bad: list[BadImage] = []
        self.done = 0
        for row in self:
            self._count(row)
        self.resumed = self.done
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json_atomic(self._manifest, dict(manifest))

    def __iter__(self) -> Iterator[Row]:
        """Rows in order, one at a time, whole ones alone."""
        if not self._path.is_file():
            return
        with self._path.open(encoding="utf-8") as file:
            for line in file:
                if line.endswith("\n"):
                    yield json.loads(line)

    def found(self) -> Iterator[Row]:
        """Those of images that could be read."""
        return (row for row in self if "bad" not in row)

    def add(self, rows: Sequence[Row]) -> None:
        append_jsonl(self._path, rows)
        for row in rows:
            self._count(row)

    def remove(self) -> None:
        remove_folder(self.folder)

    def _count(self, row: Row) -> None:
        self.done += 1
        if "bad" in row:
            self.bad.append(BadImage(row["key"], row["bad"]))

    def _check(self, now: Mapping[str, Any]) -> None:
        before = self._before()
        if before is not None:
            check_same(before, now, f"{self.folder}: was begun", "remove the folder to begin anew, or give another --out")

    def _before(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self._manifest.read_text(encoding="utf-8"))
        except FileNotFoundError:
            if self.folder.is_dir() and any(not path.name.startswith(".") for path in self.folder.iterdir()):
                raise InputError(f"{self.folder}: holds what is not of objects; remove it, or give another --out") from None
            return None
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise InputError(f"{self._manifest}: is damaged; remove the folder to begin anew, or give another --out")
        return found


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], what: str, way_out: str) -> None:
    """`InputError` that names the first of what is `now` that was another `before`."""
    for name, value in now.items():
        if before.get(name) != value:
            raise InputError(f"{what} with {name} {before.get(name)}, which is now {value}; {way_out}")

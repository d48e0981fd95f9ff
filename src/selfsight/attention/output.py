"""The folder that maps are written to.

`pictures/NAME.MAP.png` is a map on its picture, `arrays/NAME.npz` holds the maps as numbers, `sheet.png` shows some pictures
beside their maps, `films/NAME.mp4` and `.gif` a video beside its own. `pictures.jsonl` has a row for each picture that is done,
`bad_images.jsonl` one for each that cannot be read. `manifest.json` says what it all is of, `components.npz` which colours are
which. What goes into a sheet or a film waits in `strips/`, which is removed at the end.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from selfsight.attention.components import Components
from selfsight.attention.drawing import overlay
from selfsight.attention.naming import name_of
from selfsight.attention.strips import film_strip, sheet_strip
from selfsight.errors import ConfigError, InputError, nearest
from selfsight.runs import append_jsonl, read_jsonl, remove_folder, write_atomic, write_json_atomic

FORMATS = ("png", "npz", "sheet", "mp4", "gif")
FILMS = ("mp4", "gif")
_DECIDES = {
    "fingerprint": ("encoder", "encoder"),
    "input": ("input", "input"),
    "keys": ("images", "a list of images of length"),
    "maps": ("maps", "--maps"),
    "formats": ("formats", "--format"),
    "size": ("size", "--size"),
    "tile": ("tile", "--tile"),
    "block": ("block", "--block"),
    "mass": ("mass", "--mass"),
    "query": ("query", "--query"),
    "registers": ("registers", "--registers"),
    "rows": ("rows", "--rows"),
    "read": ("read", "images read as"),
}
"""What must be as it was for a folder to be gone on with: the name in the manifest that shows it, and what to call it."""


class OutputFolder:
    """What is done stays done: opened again with the same `manifest` it knows its pictures.

    Raises `InputError` for a folder with results of something else in it, or of other settings.
    """

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        self.path, self.manifest = path, dict(manifest)
        self.formats: list[str] = list(manifest["formats"])
        self.sheet, self.bad_images = path / "sheet.png", path / "bad_images.jsonl"
        self._rows, self._components = path / "pictures.jsonl", path / "components.npz"
        self._strips = path / "strips"
        _refuse_others(path, self.manifest)
        self._done = {row["key"] for row in read_jsonl(self._rows)}

    def __len__(self) -> int:
        return len(self._done)

    def begin(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        if not self._done:
            self.bad_images.unlink(missing_ok=True)  # everything is tried again
        write_json_atomic(self.path / "manifest.json", self.manifest)

    def has(self, key: str, *, sheet: bool, film: Path | None) -> bool:
        """Whether a picture is done, with what it is to give to the `sheet` and the `film` that are not written yet."""
        waits = (not sheet or self.sheet.is_file() or self.strip(key, "sheet").is_file()) and (
            film is None or self.films_done(film) or self.strip(key, "film").is_file()
        )
        return key in self._done and waits

    def add(
        self,
        key: str,
        image: Image.Image,
        maps: Mapping[str, npt.NDArray[Any]],
        row: Mapping[str, Any],
        *,
        sheet: bool,
        film: bool,
    ) -> None:
        """Write all that is made of one picture; its row comes last."""
        name = name_of(key)
        drawn = {each: overlay(each, values, image) for each, values in maps.items()} if set(self.formats) != {"npz"} else {}
        if "npz" in self.formats:
            write_atomic(self.path / "arrays" / f"{name}.npz", lambda temporary: _write_arrays(temporary, maps))
        if "png" in self.formats:
            for each, picture in drawn.items():
                _write_png(self.path / "pictures" / f"{name}.{each}.png", picture)
        if sheet:
            _write_png(self.strip(key, "sheet"), sheet_strip(image, drawn))
        if film:
            _write_png(self.strip(key, "film"), film_strip(image, drawn))
        if key not in self._done:
            append_jsonl(self._rows, [{"key": key, "name": name, **row}])
            self._done.add(key)

    def strip(self, key: str, kind: str) -> Path:
        return self._strips / kind / f"{name_of(key)}.png"

    def film(self, name: str) -> Path:
        """Of a video, without an ending."""
        return self.path / "films" / name_of(name)

    def films_done(self, film: Path) -> bool:
        return all(film.with_name(f"{film.name}.{ending}").is_file() for ending in self.formats if ending in FILMS)

    def components(self) -> Components | None:
        """Those kept, if any."""
        try:
            with np.load(self._components, allow_pickle=False) as file:
                return Components.of(dict(file))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            raise InputError(f"{self._components}: is damaged; remove {self.path} to begin anew, or give another --out") from None

    def keep_components(self, components: Components) -> None:
        write_atomic(self._components, lambda temporary: _write_arrays(temporary, components.arrays()))

    def finish(self) -> None:
        remove_folder(self._strips)


def _refuse_others(path: Path, now: Mapping[str, Any]) -> None:
    where = path / "manifest.json"
    if not where.is_file():
        if path.is_dir() and (found := next((each.name for each in sorted(path.iterdir())), None)) is not None:
            raise InputError(f"--out {path}: holds '{found}' and no manifest.json of attend; give a new folder")
        return
    try:
        before = json.loads(where.read_text(encoding="utf-8"))
    except ValueError:
        before = None
    if not isinstance(before, dict) or "fingerprint" not in before:
        raise InputError(f"--out {path}: its manifest.json is not of attend, or damaged; give another --out")
    if not any((path / name).is_file() for name in ("pictures.jsonl", "components.npz")):
        return  # nothing was made by that call, so that it may be corrected
    for name, (shown, called) in _DECIDES.items():
        if before.get(name) != now[name]:
            other = _said(now[shown]) if now[shown] != before.get(shown) else "another of that name"
            raise InputError(
                f"{path}: was begun with {called} {_said(before.get(shown))}, which is now {other}; "
                "remove the folder to begin anew, or give another --out"
            )


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(str(each) for each in value)
    return "none" if value is None else str(value)


def _write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _write_png(path: Path, image: Image.Image) -> None:
    write_atomic(path, lambda temporary: image.save(temporary, "PNG"))


def checked_formats(asked: Sequence[str], film: bool) -> list[str]:
    """In the order of `FORMATS`; the usual ones where nothing is asked for."""
    if not asked:
        return ["sheet", "mp4"] if film else ["png", "npz", "sheet"]
    for name in asked:
        if name not in FORMATS:
            raise ConfigError(f"--format: no format '{name}'. {nearest(name, FORMATS)}")
        if name in FILMS and not film:
            raise ConfigError(f"--format {name}: is for videos; take png, npz or sheet for images")
    return [name for name in FORMATS if name in asked]

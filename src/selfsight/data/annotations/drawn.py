"""The manifest that drawing leaves beside its pictures: masks as run lengths in `objects.parquet`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from selfsight import manifest
from selfsight.data.annotations.base import Annotated, Annotations, ByName, Instance
from selfsight.data.annotations.outlines import mask_of
from selfsight.data.sources import Source
from selfsight.data.undecodable import UndecodableError

_ABOVE = 3
"""How many folders above the images one is looked for: `set/test/class` has it in `set`."""


class DrawnAnnotations(Annotations):
    """The folder with `dataset.json`; a source may be the whole set or a folder of it, such as one split."""

    def __init__(self, path: Path, source: Source) -> None:
        self.location = str(path)
        content = manifest.read(path)
        things: dict[str, list[dict[str, Any]]] = {}
        for row in content.objects:
            things.setdefault(row["sample"], []).append(row)
        self.samples = ByName((row["path"], (row, things.get(row["key"], []))) for row in content.samples)
        self.within = _within(path, source)

    def known(self, source: Source, index: int) -> bool:
        return self.samples.known(self.within + source.keys[index])

    def of(self, source: Source, index: int) -> Annotated | None:
        found = self.samples.get(self.within + source.keys[index])
        if found is None:
            return None
        sample, rows = found
        shape = sample["height"], sample["width"]
        try:
            things = [Instance(mask_of(json.loads(row["mask"]), shape), row["class"]) for row in rows]
        except (KeyError, TypeError, ValueError) as error:
            raise UndecodableError(f"the mask of {sample['key']} in {self.location} cannot be read ({error})") from None
        return Annotated(things, np.zeros(shape, dtype=np.bool_))


def matches(path: Path) -> bool:
    return (path / "dataset.json").is_file()


def beside(source: Source) -> Path | None:
    """The nearest folder with `dataset.json`, from that of the images upwards."""
    here = Path(source.location).absolute()
    return next((folder for folder in [here, *here.parents][:_ABOVE] if matches(folder)), None)


def _within(folder: Path, source: Source) -> str:
    """What stands before the keys of the source in the paths of the set."""
    root, here = folder.resolve(), Path(source.location).resolve()
    return f"{here.relative_to(root).as_posix()}/" if here != root and here.is_relative_to(root) else ""

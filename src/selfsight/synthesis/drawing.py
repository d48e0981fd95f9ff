"""A drawn data set on disk: pictures in class folders, and a manifest with masks, boxes and factors beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from selfsight import __version__
from selfsight.manifest import DatasetInfo, Writer, encode_mask
from selfsight.synthesis.surfaces import CLASSES, SHAPES, Surface, draw, sample

# Splits draw from disjoint seeds, so that no picture is in two of them.
_SPLIT_SEEDS = {"train": 0, "test": 1}


def draw_dataset(folder: Path, counts: dict[str, int], seed: int, size: int, advance: Callable[[int, int], None]) -> None:
    """Draw `counts` pictures a split (`train`, `test`) to `folder/SPLIT/CLASS/NUMBER.png`; the same seed gives the same files."""
    info = DatasetInfo(
        name="patterned objects on grey surfaces",
        classes=list(CLASSES),
        splits=list(counts),
        factors={"shape": list(SHAPES)},
        provenance={"selfsight": __version__, "seed": seed, "size": size, "counts": counts},
    )
    total, done = sum(counts.values()), 0
    with Writer(folder, info) as writer:
        for split, count in counts.items():
            for name in CLASSES:
                (folder / split / name).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                surface = sample(2 * seed + _SPLIT_SEEDS[split], index, size)
                image, mask = draw(surface)
                path = f"{split}/{surface.pattern}/{index:05d}.png"
                image.save(folder / path)
                writer.add(_sample_row(path, split, surface), [_object_row(path, surface, mask)])
                done += 1
                advance(done, total)


def _sample_row(path: str, split: str, surface: Surface) -> dict[str, Any]:
    factors = {key: value for key, value in asdict(surface).items() if key not in ("size", "pattern", "seed")}
    row = {"key": path, "path": path, "split": split, "label": CLASSES.index(surface.pattern), "group": path}
    return row | {"width": surface.size, "height": surface.size} | factors


def _object_row(path: str, surface: Surface, mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(xs[0]), int(ys[0])
    box = {"x": x, "y": y, "w": int(xs[-1]) - x + 1, "h": int(ys[-1]) - y + 1}
    return {"sample": path, "object": 0, "class": surface.pattern, **box, "visible": 1.0, "mask": encode_mask(mask)}

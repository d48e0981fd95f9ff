"""One encoder and what it says of a picture, in the form in which the page gets it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from selfsight import metrics
from selfsight.attention.objects import FINDERS
from selfsight.attention.seeing import Eyes, Seen
from selfsight.explorer.album import Album
from selfsight.explorer.indexing import Indexed
from selfsight.runs import readable

NEIGHBOURS = 12
_OBJECTS = 3

Answer = dict[str, Any]


class Onlooker:
    """`found` is what was indexed of the images of `album`; without them there are no neighbours."""

    def __init__(self, eyes: Eyes, device: torch.device, album: Album | None = None, found: Indexed | None = None) -> None:
        self.eyes, self.encoder, self.device = eyes, eyes.encoder, device
        self.album, self.found = album, found

    def about(self) -> Answer:
        """What the page says of the encoder and its index."""
        encoder, prepare = self.encoder, self.eyes.prepare
        memory = None
        if self.found is not None:
            places = self.found.places
            memory = (
                f"{len(places):,} image{'s' * (len(places) > 1)}, {places.count:,} places, {readable(places.bytes)} in memory"
            )
        return {
            "spec": encoder.spec,
            "kind": {"vit": "ViT", "cnn": "CNN"}.get(encoder.kind, encoder.kind),
            "weights": encoder.weights,
            "parameters": encoder.parameters,
            "size": prepare.size,
            "patch": self.eyes.patch,
            "memory": memory,
        }

    def see(self, ready: Tensor) -> Seen:
        """One prepared picture [C, H, W]."""
        return self.eyes.see(ready[None].to(self.device))[0]

    def look(self, seen: Seen, sample: int | None) -> Answer:
        """Maps of the whole picture, the ways to find objects in it, and the images most like it but for itself, `sample`."""
        images = []
        if self.found is not None and seen.summary is not None:
            near = self.found.places.like_image(seen.summary, NEIGHBOURS, self._number(sample))
            images = [self._neighbour(image, similarity) for image, similarity in near]
        return {
            "grid": seen.grid,
            "attention": seen.attention is not None,
            "maps": maps(seen),
            "finders": [name for name, kind in FINDERS.items() if seen.attention is not None or not kind.needs_attention],
            "images": images,
        }

    def place(self, seen: Seen, x: float, y: float, sample: int | None) -> Answer:
        """How alike every place is to the one at (x, y), in shares of the sides, and the places of other images most like it."""
        height, width = seen.grid
        row, column = min(int(y * height), height - 1), min(int(x * width), width - 1)
        unit = metrics.normalize(seen.patches)
        asked = unit[row * width + column]
        near = []
        if self.found is not None:
            for image, (at_row, at_column), similarity in self.found.places.like_place(asked, NEIGHBOURS, self._number(sample)):
                rows, columns = self.found.places.grids[image].tolist()
                box = [at_column / columns, at_row / rows, 1 / columns, 1 / rows]
                near.append(self._neighbour(image, similarity) | {"box": box})
        return {"place": [row, column], "map": levels("likeness to the point", unit @ asked), "near": near}

    def objects(self, seen: Seen, finder: str) -> Answer:
        """What a finder finds: masks over the grid, boxes as shares of the picture, scores."""
        height, width = seen.grid
        found = FINDERS[finder]().find(seen, _OBJECTS)
        shares = np.array([width, height, width, height])
        objects = [
            {
                "mask": np.asarray(each.mask, dtype=np.uint8).ravel().tolist(),
                "box": (np.array(each.box) / shares).tolist(),
                "score": round(float(each.score), 4),
            }
            for each in found
        ]
        return {"finder": finder, "objects": objects}

    def _number(self, sample: int | None) -> int | None:
        """The number among those indexed of a sample of the source; None where it is not there."""
        if sample is None or self.found is None:
            return None
        at = int(np.searchsorted(self.found.samples, sample))
        return at if at < len(self.found.samples) and self.found.samples[at] == sample else None

    def _neighbour(self, image: int, similarity: float) -> Answer:
        assert self.found is not None and self.album is not None
        sample = int(self.found.samples[image])
        return {"sample": sample, "key": self.album.source.keys[sample], "similarity": round(min(similarity, 1.0), 4)}


def maps(seen: Seen) -> list[Answer]:
    """Attention of CLS, the mean of the heads first; where there is none, the length of the feature of each place."""
    if seen.attention is None:
        return [levels("length of the feature", np.linalg.norm(seen.patches, axis=1))]
    if len(seen.attention) == 1:
        return [levels("attention of the one head", seen.attention[0])]
    heads = [levels(f"attention of head {number}", head) for number, head in enumerate(seen.attention)]
    return [levels(f"attention, mean of {len(heads)} heads", seen.attention.mean(0)), *heads]


def levels(name: str, values: npt.NDArray[np.floating]) -> Answer:
    """A map [N] as whole numbers from 0 to 255 between its least and its greatest value, which are told."""
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
    return {"name": name, "values": np.rint(scaled).astype(int).tolist(), "low": low, "high": high}

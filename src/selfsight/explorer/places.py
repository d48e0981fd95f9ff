"""Every place of every image of a set, eight bits a number, and those that are most like a given one."""

from __future__ import annotations

from typing import Any, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt

from selfsight import metrics, neighbours

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
_AT_FIRST, _MORE = 256, 8
"""Places that are asked for at first, and how many times as many where too few images are among them."""
_MARGIN = 0.1
"""By which share of its range a dimension may go beyond what was seen when the codes were learnt."""


class Near(NamedTuple):
    """An image, by its number among those indexed, its `place` (row, column) that is most like the asked one, and the cosine."""

    image: int
    place: tuple[int, int]
    similarity: float


class Places:
    """Places of n images: `grids` [n, 2] their heights and widths, `summaries` [n, W] a unit vector for each whole image.

    `engine` holds the places one after the other, image by image and row-major, as `trained` codes. At one byte a number
    2,000 images of 196 places and 384 numbers take 144 MiB.
    """

    def __init__(self, engine: Any, grids: Ints, summaries: Floats) -> None:
        self.engine, self.grids, self.summaries = engine, grids, summaries
        self.starts = np.concatenate([[0], np.cumsum(grids.prod(axis=1))]).astype(np.int64)

    def __len__(self) -> int:
        return len(self.grids)

    @property
    def count(self) -> int:
        """Places of all images."""
        return int(self.starts[-1])

    @property
    def bytes(self) -> int:
        """Memory that codes and summaries take."""
        return self.count * self.engine.code_size + self.summaries.nbytes

    def like_place(self, vector: Floats, count: int, without: int | None = None) -> list[Near]:
        """The `count` images that hold a place most like `vector` [D], by the cosine of its codes, the most alike first.

        Each image comes once, with its best place; the image `without` does not come. Every place is compared.
        """
        query = metrics.normalize(vector[None])
        wanted = min(count, len(self) - (without is not None))
        asked = min(self.count, max(_AT_FIRST, count))
        while True:
            similarities, rows = self.engine.search(query, asked)
            images = np.searchsorted(self.starts, rows[0], side="right") - 1
            found = {image: rank for rank, image in reversed(list(enumerate(images.tolist()))) if image != without}
            if len(found) >= wanted or asked == self.count:
                break
            asked = min(self.count, asked * _MORE)
        ranks = sorted(found.values())[:count]
        return [self._near(int(images[rank]), int(rows[0, rank]), float(similarities[0, rank])) for rank in ranks]

    def like_image(self, summary: Floats, count: int, without: int | None = None) -> list[tuple[int, float]]:
        """The `count` images whose summaries are most like `summary` [W], and their cosines, the most alike first."""
        _, similarities, images = next(iter(neighbours.nearest(self.summaries, metrics.normalize(summary[None]), count + 1)))
        pairs = zip(images[0].tolist(), similarities[0].tolist(), strict=True)
        return [(image, similarity) for image, similarity in pairs if image != without][:count]

    def _near(self, image: int, row: int, similarity: float) -> Near:
        return Near(image, divmod(row - int(self.starts[image]), int(self.grids[image, 1])), similarity)


def trained(vectors: Floats) -> Any:
    """An empty index of one byte a number, whose range of each dimension is that of `vectors` [n, D], of length 1, and a little
    more."""
    engine = faiss.IndexScalarQuantizer(vectors.shape[1], faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    engine.sq.rangestat, engine.sq.rangestat_arg = faiss.ScalarQuantizer.RS_minmax, _MARGIN
    engine.train(vectors)
    return engine


def filled(engine: Any, codes: npt.NDArray[np.uint8]) -> Any:
    """The same index with codes [n, D] that its `sa_encode` made."""
    faiss.copy_array_to_vector(codes.ravel(), engine.codes)
    engine.ntotal = len(codes)
    return engine

"""What is searched for: an image file, or the key of an image that is in the index."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from selfsight.data.decode import UndecodableError
from selfsight.encoders import Encoder
from selfsight.errors import DataError
from selfsight.retrieval.index import Index, Neighbours, by_key
from selfsight.retrieval.pictures import Pictures, opened, small
from selfsight.retrieval.sheet import QUERY

_COMPARED = 20_000
"""So many keys are looked through for one that is spelt alike."""


@dataclass(frozen=True)
class Query:
    """`text` as given; `place` in the index if it is a key, else None; the vector [D]; its picture, if there is one to show."""

    text: str
    place: int | None
    vector: npt.NDArray[np.float32]
    picture: Image.Image | None


def queries(texts: Sequence[str], index: Index, encoder: Encoder, device: torch.device, pictures: Pictures) -> list[Query]:
    """Each of `texts` with its features: those of the index for a key, computed for a file.

    A path that is both stands for the key where the two hold the same bytes, else for the file. Raises `DataError` for what is
    neither, and for a file that is no image.
    """
    places = by_key(index.contents.keys)
    found = []
    for text in texts:
        path = Path(text)
        if text in places and not (path.is_file() and pictures.data(text) != path.read_bytes()):
            found.append(Query(text, places[text], np.asarray(index.vectors[places[text]]), pictures.small(text, QUERY)))
        elif path.is_file():
            found.append(_of_file(path, encoder, device))
        else:
            raise DataError(_unknown(text, places, index.contents.location))
    return found


def answers(index: Index, asked: Sequence[Query], k: int) -> list[Neighbours]:
    """The k nearest of each query; one that is in the index is not its own neighbour."""
    if k < 1:
        raise DataError(f"--k: expected a whole number from 1, got {k}")
    if not asked:
        return []
    found = index.search(np.stack([query.vector for query in asked]), k + 1)
    return [_without(near, query.place, k) for near, query in zip(found, asked, strict=True)]


def _without(near: Neighbours, place: int | None, k: int) -> Neighbours:
    others = near.places != -1 if place is None else near.places != place
    return Neighbours(near.places[others][:k], near.similarities[others][:k])


def _of_file(path: Path, encoder: Encoder, device: torch.device) -> Query:
    try:
        picture = opened(path.read_bytes(), encoder.read)
    except UndecodableError as error:
        raise DataError(f"{path}: is no image ({error}); expected an image file or a key of the data") from None
    vector = encoder.encode(encoder.prepare(picture)[None].to(device))[0].cpu().numpy()
    return Query(str(path), None, vector, small(picture, QUERY))


def _unknown(text: str, places: Mapping[str, int], location: str) -> str:
    """Names the key that is meant most likely: the same file name in another folder, or one spelt alike."""
    name = PurePosixPath(text).name
    close = next((key for key in places if PurePosixPath(key).name == name), None)
    if close is None:
        close = next(iter(difflib.get_close_matches(text, list(islice(places, _COMPARED)), n=1)), None)
    hint = f"Did you mean '{close}'?" if close else f"Keys look like '{next(iter(places))}'."
    return f"{text}: is neither an image file nor a key of {location}. {hint}"

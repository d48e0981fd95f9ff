"""An encoder whose pool is the scores of its own head answers as it is deployed: nothing is trained on its features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from selfsight.encoders import Encoder
from selfsight.errors import DataError
from selfsight.evaluate import Predictions

NOTE = "compared as it is deployed: in every task its own head answers, and nothing is trained"

Columns = npt.NDArray[np.int64]
"""For each class of the data the place [classes] of its score."""


def all_columns(encoders: Mapping[str, Encoder], classes: Sequence[str]) -> dict[str, Columns]:
    """Those of every deployed encoder, which is told so among its notes."""
    found = {spec: columns(encoder, classes) for spec, encoder in encoders.items() if encoder.deployed}
    for spec in found:
        encoders[spec].notes.append(NOTE)
    return found


def columns(encoder: Encoder, classes: Sequence[str]) -> Columns:
    """Where the scores of the data's classes are; `DataError` for a head that does not know them all.

    A head may know more classes than the data has: ImageNet's against those that occur here.
    """
    if not encoder.classes:
        if encoder.feature_width != len(classes):
            raise DataError(
                f"{encoder.spec}: its head gives {encoder.feature_width} scores and the data has {len(classes)} classes; "
                "name the scores with &classes=a,b,... or &classes=FILE (one name a line)"
            )
        return np.arange(len(classes))
    place = {name: number for number, name in enumerate(encoder.classes)}
    unknown = [name for name in classes if name not in place]
    if unknown:
        known = ", ".join(encoder.classes[:5])
        raise DataError(
            f"{encoder.spec}: its head knows no class {', '.join(map(repr, unknown[:5]))} of the data; it knows {known}..."
        )
    return np.array([place[name] for name in classes])


def answers(scores: npt.NDArray[np.float32], places: Columns, primary: Mapping[str, str]) -> Iterator[tuple[str, Predictions]]:
    """(task, predictions): the same for every task, the class with the highest of the known scores [m, K]."""
    predicted = scores[:, places].argmax(1).astype(np.int64)
    for task, metric in primary.items():
        yield task, Predictions(metric, predicted)

"""What two encoders said about the same test images: confusion, recall of a class, disagreements. Pure functions of arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selfsight.reporting.folder import ResultsFolder, class_indices

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Paired:
    """One row an image that both encoders answered; class indices, -1 for an answer that is no class."""

    keys: list[str]
    truth: Ints
    incumbent: Ints
    challenger: Ints


def confusion_matrix(truth: Ints, predicted: Ints, classes: int) -> Ints:
    """Counts [true class, predicted class]; answers that are no class are left out."""
    known = (truth >= 0) & (predicted >= 0)
    flat = np.bincount(truth[known] * classes + predicted[known], minlength=classes * classes)
    return flat.reshape(classes, classes).astype(np.int64)


def recall(truth: Ints, predicted: Ints, classes: int) -> NDArray[np.float64]:
    """Percent right within each true class; NaN for a class without test images."""
    total = np.bincount(truth[truth >= 0], minlength=classes).astype(np.float64)
    right = np.bincount(truth[(truth >= 0) & (truth == predicted)], minlength=classes)
    share: NDArray[np.float64] = np.divide(100.0 * right, total, out=np.full(classes, np.nan), where=total > 0)
    return share


def most_confused(matrix: Ints, limit: int = 15) -> list[tuple[int, int, int]]:
    """(true class, said class, count) of the largest off-diagonal entries, largest first."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
    width = len(matrix)
    return [(int(i // width), int(i % width), int(wrong.flat[i])) for i in order if wrong.flat[i] > 0]


def paired(folder: ResultsFolder, incumbent: str, challenger: str, endpoint: tuple[str, str, str]) -> Paired | None:
    """Answers of both encoders at the endpoint, image by image; None where the folder does not hold them."""
    table = folder.outcomes
    if not table or not folder.results.data.classes:
        return None
    a, b = _answers(folder, incumbent, endpoint), _answers(folder, challenger, endpoint)
    shared = [key for key in a if key in b]
    if not shared:
        return None
    classes = folder.results.data.classes
    truth = class_indices([table["label"][a[key]] for key in shared], classes)
    said_a = class_indices([table["predicted"][a[key]] for key in shared], classes)
    said_b = class_indices([table["predicted"][b[key]] for key in shared], classes)
    return Paired(shared, truth, said_a, said_b)


def _answers(folder: ResultsFolder, encoder: str, endpoint: tuple[str, str, str]) -> dict[str, int]:
    """Row of each key in the outcomes of the first seed."""
    table = folder.outcomes
    task, metric, condition = endpoint
    columns = zip(table["encoder"], table["task"], table["condition"], strict=True)
    rows = [row for row, found in enumerate(columns) if found == (encoder, task, condition)]
    metrics = {table["metric"][row] for row in rows}
    # A derived metric (balanced accuracy) has no outcomes of its own: those of its task serve.
    metric = metric if metric in metrics else min(metrics, default="")
    rows = [row for row in rows if table["metric"][row] == metric]
    seed = min((table["seed"][row] for row in rows), default=0)
    return {table["key"][row]: row for row in rows if table["seed"][row] == seed}


def disagreements(pair: Paired, right: str, limit: int, known: dict[str, bytes]) -> tuple[int, list[int]]:
    """How often only `right` ("incumbent" or "challenger") was right, and up to `limit` such rows.

    Pictures first, and the classes in turn, so that one hard class does not fill the gallery.
    """
    good, bad = (pair.incumbent, pair.challenger) if right == "incumbent" else (pair.challenger, pair.incumbent)
    rows = np.flatnonzero((pair.truth >= 0) & (good == pair.truth) & (bad != pair.truth))
    seen: dict[int, int] = {}
    order = []
    for row in sorted(rows.tolist(), key=lambda row: (pair.keys[row] not in known, row)):
        label = int(pair.truth[row])
        seen[label] = seen.get(label, 0) + 1
        order.append((pair.keys[row] not in known, seen[label], label, row))
    return len(rows), [row for *_, row in sorted(order)[:limit]]

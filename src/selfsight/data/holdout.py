"""A part of some labelled images held back from training, and labels of one source in the classes of another."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

from selfsight.data.draws import Indices
from selfsight.data.sources import Source
from selfsight.errors import DataError

Labels = npt.NDArray[np.int64] | npt.NDArray[np.bool_]
"""Class indices [n], or sets of classes [n, classes]."""


def labels_of(source: Source) -> Labels:
    """Of every sample; `DataError` where the source has none."""
    if source.label_sets is not None:
        return source.label_sets
    if source.labels is None:
        expected = "expected a sub-folder for each class, a column 'label', or a column 'labels' of lists"
        raise DataError(f"{source.location}: has no labels; {expected}")
    return source.labels


def strata(labels: Labels) -> Indices:
    """What both parts should have their share of: the class of an image; of several classes its rarest, as the one that a random
    split misses first (Sechidis et al. 2011)."""
    if labels.ndim == 1:
        return labels.astype(np.int64)
    counts = labels.sum(0)
    rarity = np.where(labels, counts, len(labels) + 1)
    return np.where(labels.any(1), rarity.argmin(1), labels.shape[1])


def own_splits(source: Source) -> dict[str, Indices]:
    """Places of each split that a source names itself, in a column `split`; none where it has no such column."""
    if "split" not in source.columns():
        return {}
    names = source.column("split")
    return {name: np.flatnonzero(names == name) for name in np.unique(names).tolist()}


def hold_out(stratum: Indices, share: float, seed: int, groups: npt.NDArray[np.str_] | None = None) -> tuple[Indices, Indices]:
    """(kept, held) places in ascending order: `share` of each stratum is held, at least one image of two or more, and none of a
    single one, which is for training. With `groups` whole groups are held; fewer than two of them give none away."""
    held = _of_groups(stratum, share, seed, groups) if groups is not None else _of_strata(stratum, share, seed)
    chosen = np.zeros(len(stratum), dtype=np.bool_)
    chosen[held] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def _of_strata(stratum: Indices, share: float, seed: int) -> Indices:
    rng = np.random.default_rng(seed)
    held = [np.empty(0, dtype=np.int64)]
    for value in np.unique(stratum):
        places = rng.permutation(np.flatnonzero(stratum == value))
        held.append(places[: min(len(places) - 1, max(1, round(share * len(places))))])
    return np.concatenate(held)


def _of_groups(stratum: Indices, share: float, seed: int, groups: npt.NDArray[np.str_]) -> Indices:
    folds = min(round(1 / share), len(np.unique(groups)))
    if folds < 2:
        return np.empty(0, dtype=np.int64)
    from sklearn.model_selection import StratifiedGroupKFold  # which takes seconds to load, and few sets have groups

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a class has fewer images than there are folds is no fault
        return next(iter(StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(stratum, stratum, groups)))[1]


def in_classes_of(source: Source, classes: tuple[str, ...], where: str) -> Source:
    """`source` with its labels as indices into `classes`, matched by name. `DataError`, which begins with `where`, for a class
    that is not among them."""
    unknown = sorted(set(source.classes) - set(classes))
    if unknown:
        raise DataError(f"{where}: class '{unknown[0]}' is not among the training classes {', '.join(classes[:20])}")
    table = np.array([classes.index(name) for name in source.classes], dtype=np.int64)
    if source.label_sets is not None:
        sets = np.zeros((len(source), len(classes)), dtype=np.bool_)
        sets[:, table] = source.label_sets
        source.label_sets = sets
    elif source.labels is not None:
        source.labels = table[source.labels]
    source.classes = classes
    return source

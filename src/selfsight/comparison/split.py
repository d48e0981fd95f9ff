"""Which images train the probes and which judge them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold, StratifiedShuffleSplit

from selfsight.data.holdout import own_splits
from selfsight.data.sources import Source, Subset, first, open_source
from selfsight.errors import DataError

TEST_SHARE = 0.25
LEAST_GROUPS = 5


@dataclass(frozen=True)
class Parts:
    """Labelled training and test images; `made` says whether selfsight made the split, which is then written down."""

    train: Source
    test: Source
    description: str
    made: bool
    notes: list[str] = field(default_factory=list)
    group_by: str | None = None


def split(source: Source, test: str | None, *, limit: int | None, group_by: str | None, seed: int) -> Parts:
    """Parts of a labelled source, with the given test images, those that it calls so itself, or a stratified split.

    A drawn set, or a table with a column `split` of which some rows are `train` and some `test`, calls them so; images of other
    splits take no part then.

    `limit` takes the first N training images and at most N test images of a seeded shuffle. With `group_by` no group lies in
    both parts.
    """
    if source.labels is None:
        raise DataError(f"{source.location}: has no labels; expected a sub-folder for each class, or a column 'label'")
    notes, made = [], False
    if test is not None:
        train, held = source, _like(open_source(test), source)
        description = f"given: {test}"
    elif (called := _called_so(source)) is not None:
        train, held, others = called
        description = "its own: rows 'train' and 'test' of its column 'split'"
        if others:
            notes.append(f"{others} images of other splits take no part")
    else:
        made = True
        train, held, description = _own_split(source, group_by, seed)
    if limit is not None:
        notes.append(f"limit {limit}: the first {limit} training images, at most {limit} test images of a shuffle (seed {seed})")
        train = first(train, limit)
        if len(held) > limit:
            chosen = np.sort(np.random.default_rng(seed).permutation(len(held))[:limit])
            held = Subset(held, chosen)
    if group_by is not None and not made:
        shared = np.intersect1d(train.groups(group_by), held.groups(group_by))
        if len(shared):
            raise DataError(
                f"{f'--test {test}' if test else source.location}: {len(shared)} groups of '{group_by}' of the test images are "
                f"also in the training images, first {shared[0]!r}"
            )
    if group_by is not None:
        count = len(np.unique(held.groups(group_by)))
        if count < LEAST_GROUPS:
            few = f"the test images come from {count} groups"
            raise DataError(f"--group-by {group_by}: {few}; an interval over groups needs at least {LEAST_GROUPS}")
    present = np.unique(train.labels if train.labels is not None else [])
    if len(present) < 2:
        raise DataError(f"{source.location}: the training part has {len(present)} class; a comparison needs at least two")
    missing = np.setdiff1d(_labels(held), present)
    if len(missing):
        notes.append(f"{len(missing)} classes of the test images have no training image and are always wrong")
    return Parts(train, held, description, made, notes, group_by)


def judged_on(source: Source, data: str) -> str:
    """Where the test images are of a source that is given no others: at `data`, or at the split of it that is called so."""
    return data if _called_so(source) is None else f"{data}?split=test"


def _called_so(source: Source) -> tuple[Source, Source, int] | None:
    """(training images, test images, how many are neither) of a source that tells them apart."""
    splits = own_splits(source)
    if not {"train", "test"} <= set(splits):
        return None
    train, test = (Subset(source, splits[name]) for name in ("train", "test"))
    return train, test, len(source) - len(train) - len(test)


def _own_split(source: Source, group_by: str | None, seed: int) -> tuple[Source, Source, str]:
    labels = _labels(source)
    if group_by is not None:
        groups = source.groups(group_by)
        folds = round(1 / TEST_SHARE)
        if len(np.unique(groups)) < folds:
            raise DataError(f"--group-by {group_by}: has {len(np.unique(groups))} groups; a split needs at least {folds}")
        folder = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        train, test = next(iter(folder.split(labels, labels, groups)))
        return Subset(source, train), Subset(source, test), f"made here: groups of '{group_by}' kept whole, seed {seed}"
    counts = np.bincount(labels, minlength=len(source.classes))
    short = [source.classes[i] for i in np.flatnonzero((counts > 0) & (counts < 2))]
    if short:
        raise DataError(f"{source.location}: class '{short[0]}' has one image; a split needs two, or give --test")
    if len(labels) * TEST_SHARE < len(np.unique(labels)):
        raise DataError(f"{source.location}: {len(labels)} images are too few for a split; label more or give --test")
    splitter = StratifiedShuffleSplit(1, test_size=TEST_SHARE, random_state=seed)
    train, test = next(iter(splitter.split(labels, labels)))
    description = f"made here: {TEST_SHARE:.0%} of each class to test, seed {seed}"
    return Subset(source, np.sort(train)), Subset(source, np.sort(test)), description


def _like(test: Source, train: Source) -> Source:
    """The test source with its labels as indices into the classes of the training source, matched by name."""
    labels = _labels(test)
    if test.classes != train.classes:
        unknown = sorted(set(test.classes) - set(train.classes))
        if unknown:
            raise DataError(
                f"--test {test.location}: class '{unknown[0]}' is not among the training classes {', '.join(train.classes)}"
            )
        table = np.array([train.classes.index(name) for name in test.classes], dtype=np.int64)
        test.labels, test.classes = table[labels], train.classes
    return test


def _labels(source: Source) -> npt.NDArray[np.int64]:
    if source.labels is None:
        raise DataError(f"{source.location}: has no labels; expected a sub-folder for each class, or a column 'label'")
    return source.labels

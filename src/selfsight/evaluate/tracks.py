"""How well objects are followed through a video: J and F of each as DAVIS 2017 reports them, beside those of standing still."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from selfsight import masks
from selfsight.data.object_ids import VOID, Ids

MEASURES = ("j", "f")


class Tracks:
    """Frames of one video, each with the numbers of its objects as found and as they are; `first` is the mask that was given.

    Pixels of which nobody says whose they are (255, where that is no object) take no part (`metrics.py` of davis2017-evaluation).
    """

    def __init__(self, first: Ids, objects: Sequence[int]) -> None:
        self.first, self.objects = first, list(objects)
        self.frames = 0
        self._found: dict[int, list[tuple[float, float]]] = {each: [] for each in objects}
        self._floor: dict[int, list[tuple[float, float]]] = {each: [] for each in objects}

    def add(self, found: Ids, true: Ids) -> None:
        """Numbers [h, w] of one frame."""
        said = np.full(true.shape, True) if VOID in self.objects else true != VOID
        self.frames += 1
        for each in self.objects:
            shown = true == each
            for values, mask in ((self._found, found == each), (self._floor, self.first == each)):
                values[each].append(_j_and_f(mask & said, shown & said))

    def scores(self) -> dict[str, Any]:
        """In percent: mean, recall and decay of J and F of each object and, averaged over these, of the video, and the mean of
        the two means; under `floor` the same means where the first mask stays where it is. There must be a frame."""
        courses = {str(each): _courses(values) for each, values in self._found.items()}
        standing = [_courses(values) for values in self._floor.values()]
        return {
            "frames": self.frames,
            **_averaged(list(courses.values())),
            "objects": courses,
            "floor": _means(_averaged(standing)),
        }


def _j_and_f(found: masks.Bools, true: masks.Bools) -> tuple[float, float]:
    return float(masks.jaccard(found, true)), masks.boundary_f(found, true)


def _courses(values: Sequence[tuple[float, float]]) -> dict[str, dict[str, float]]:
    of_each = zip(MEASURES, np.array(values).T, strict=True)
    return {name: masks.course(each)._asdict() for name, each in of_each}


def _averaged(courses: Sequence[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Over objects."""
    averaged = {
        name: {what: float(np.mean([each[name][what] for each in courses])) for what in masks.Course._fields} for name in MEASURES
    }
    return {"j_and_f": (averaged["j"]["mean"] + averaged["f"]["mean"]) / 2, **averaged}


def _means(averaged: dict[str, Any]) -> dict[str, float]:
    return {"j_and_f": averaged["j_and_f"]} | {name: averaged[name]["mean"] for name in MEASURES}

"""Encoders that have learnt the labels of the images which are to judge them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from selfsight import config
from selfsight.data.sources import absolute, overlap
from selfsight.encoders import Spec, parse_spec
from selfsight.encoders.spec import RUNS
from selfsight.errors import ConfigError, DataError, WeightsError
from selfsight.runs import RunFolder


class Learnt(NamedTuple):
    """A run that learnt from labels, and the place of its images."""

    run: str
    data: str


def refuse_seen(encoders: Sequence[str], test: str) -> None:
    """`DataError` where an encoder, or one that it began with or followed, learnt the labels of the test images at `test`.

    It would know them by heart: on labels that mean nothing it would win by as much as it remembers. Images that it saw without
    their labels are no reason.
    """
    for text in encoders:
        for run, data in _learnt(parse_spec(text)):
            if overlap(absolute(test), data):
                through = "" if run == parse_spec(text).path else f" through {run}"
                raise DataError(
                    f"{text}: has learnt the labels of {data}{through}, and the test images are among them; "
                    "give --test images that it has not seen"
                )


def _learnt(spec: Spec) -> Iterator[Learnt]:
    if spec.family != RUNS or not RunFolder(spec.path).exists:
        return
    try:
        values = config.read_yaml(RunFolder(spec.path).config)
    except ConfigError:
        return  # loading the encoder says what is wrong with it
    tuned, objective = values.get("finetune"), values.get("objective")
    labels = isinstance(tuned, Mapping) or (isinstance(objective, Mapping) and objective.get("name") == "supervised")
    if labels and spec.options.get("weights") != "init":
        judged = tuned.get("validation") if isinstance(tuned, Mapping) else None
        named = tuned.get("splits") if isinstance(tuned, Mapping) else None
        parts = [f"?split={name}" for name in named] if named else [""]
        yield from (Learnt(spec.path, absolute(place) + part) for place in _places(values.get("data")) for part in parts)
        yield from (Learnt(spec.path, absolute(place)) for place in _places(judged))
    for key in ("init",) if spec.options.get("weights") == "init" else ("init", "guide"):
        if isinstance(values.get(key), str):
            try:
                before = parse_spec(values[key])
            except WeightsError:
                continue  # it is gone, and with it what it learnt
            yield from _learnt(before)


def _places(data: Any) -> list[str]:
    """One source, several, or several with weights."""
    return [data] if isinstance(data, str) else [str(place) for place in data or ()]

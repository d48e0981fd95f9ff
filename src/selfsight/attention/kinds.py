"""The maps that can be made of a picture, by name.

To add one: a function here and a line in `MAPS`; `tests/test_attention_maps.py` runs its contract over every entry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from selfsight.attention import maps
from selfsight.attention.components import Components, fitted
from selfsight.attention.looking import Look, Point, offers, place_of
from selfsight.attention.seeing import Eyes
from selfsight.errors import ConfigError, nearest

Array = npt.NDArray[Any]


class Asked(NamedTuple):
    """What maps depend on beside the picture: the share of a mask, a point, the components of a sample."""

    mass: float = 0.6
    at: Point | None = None
    components: Components | None = None


class Kind(NamedTuple):
    """`make` gives what `draws` says: heat [h, w] or several [n, h, w], a mask [h, w], colours [h, w, 3] of 0 to 1; flat over the
    places, the last axis but colours. `row` is the part of a `Look` that it is made of, if it is attention; `point` and `sample`
    say that it needs a point, or components, `tokens` that CNNs have none of it. `usual`: made where nothing is asked for."""

    says: str
    draws: Literal["heat", "mask", "colours"]
    make: Callable[[Look, Asked], Array]
    row: str | None = None
    point: bool = False
    sample: bool = False
    tokens: bool = False
    usual: bool = True


def _attention(look: Look, asked: Asked) -> Array:
    return _there(look.attention).mean(0)


def _heads(look: Look, asked: Asked) -> Array:
    return _there(look.attention)


def _mask(look: Look, asked: Asked) -> Array:
    return maps.smallest_set(_attention(look, asked), asked.mass)


def _rollout(look: Look, asked: Asked) -> Array:
    return _there(look.rollout)


def _registers(look: Look, asked: Asked) -> Array:
    return _there(look.registers)


def _point(look: Look, asked: Asked) -> Array:
    return _there(look.point)


def _similarity(look: Look, asked: Asked) -> Array:
    assert asked.at is not None
    return maps.similarity(look.patches, place_of(asked.at, look.grid))


def _pca(look: Look, asked: Asked) -> Array:
    return _of_sample(look, asked).colours(look.patches)


def _component(look: Look, asked: Asked) -> Array:
    return _of_sample(look, asked).along(look.patches)


def _norm(look: Look, asked: Asked) -> Array:
    return look.norms


def _outliers(look: Look, asked: Asked) -> Array:
    return look.outliers


MAPS: dict[str, Kind] = {
    "attention": Kind("attention of CLS", "heat", _attention, "attention"),
    "heads": Kind("attention of CLS, each head", "heat", _heads, "attention"),
    "mask": Kind("where most of it goes", "mask", _mask, "attention"),
    "rollout": Kind("attention through all blocks", "heat", _rollout, "rollout"),
    "registers": Kind("attention of registers", "heat", _registers, "registers"),
    "point": Kind("attention of the point", "heat", _point, "point", point=True),
    "similarity": Kind("likeness to the point", "heat", _similarity, point=True),
    "pca": Kind("three components", "colours", _pca, sample=True),
    "component": Kind("first component", "heat", _component, sample=True, usual=False),
    "norm": Kind("length of features", "heat", _norm),
    "outliers": Kind("outlier tokens", "mask", _outliers, tokens=True, usual=False),
}


def chosen(names: Sequence[str], eyes: Eyes, at: bool) -> list[str]:
    """The names asked for, or those that are usual for the encoder; `ConfigError` for one that cannot be.

    `at`: whether there is a point.
    """
    can = offers(eyes)
    cnn = eyes.encoder.kind != "vit"
    possible = {name: kind for name, kind in MAPS.items() if (kind.row is None or kind.row in can) and not (cnn and kind.tokens)}
    if not names:
        return [
            name for name, kind in possible.items() if (kind.usual or (cnn and name == "component")) and (at or not kind.point)
        ]
    for name in names:
        if name not in MAPS:
            raise ConfigError(f"--maps: no map '{name}'. {nearest(name, MAPS)}")
        if name not in possible:
            raise ConfigError(f"--maps {name}: {eyes.encoder.spec} has none; it has {', '.join(possible)}")
        if MAPS[name].point and not at:
            raise ConfigError(f"--maps {name}: needs a point of the picture; give --query x,y in its pixels")
    return list(dict.fromkeys(names))


def rows_of(names: Sequence[str]) -> frozenset[str]:
    """The rows of attention that some maps are made of."""
    return frozenset(row for name in names if (row := MAPS[name].row) is not None)


def made(names: Sequence[str], look: Look, asked: Asked) -> dict[str, Array]:
    """Maps by name, over the grid of the look. Without components those of this one picture are fitted."""
    if asked.components is None and any(MAPS[name].sample for name in names):
        asked = asked._replace(components=fitted([(look.patches, look.grid)]))
    found = {}
    for name in names:
        values = MAPS[name].make(look, asked)
        tail = (3,) if MAPS[name].draws == "colours" else ()
        head = values.shape[: values.ndim - 1 - len(tail)]
        found[name] = values.reshape(*head, *look.grid, *tail)
    return found


def _there(row: Array | None) -> Array:
    if row is None:
        raise ValueError("the look was not asked for this row of attention")
    return row


def _of_sample(look: Look, asked: Asked) -> Components:
    assert asked.components is not None
    return asked.components


def finite(values: dict[str, Array]) -> bool:
    return all(bool(np.isfinite(array).all()) for array in values.values())

"""Families of encoders: how the specs of one look, and what loads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from selfsight.encoders.base import Encoder
from selfsight.encoders.spec import Spec


class Family(NamedTuple):
    """How specs of one family look and load. `form` is its pattern: without a slash it takes no path."""

    form: str
    options: tuple[str, ...]
    load: Callable[[Spec], Encoder]

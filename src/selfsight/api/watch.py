"""Whoever looks on while a verb works."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from selfsight.ssl.estimate import Estimate
    from selfsight.ssl.recipes import Derived
    from selfsight.ssl.settings import TrainSettings


class Watch(Protocol):
    """The command line shows what it hears; `Silent`, the default from Python, shows nothing."""

    def say(self, text: str) -> None: ...

    def advance(self, what: str, done: int, total: int) -> None: ...

    def on_plan(self, settings: TrainSettings, derived: Sequence[Derived], expected: Estimate) -> None: ...

    def on_step(self, row: Mapping[str, Any], progress: float) -> None: ...

    def on_probe(self, row: Mapping[str, Any]) -> None: ...


class Silent:
    """Shows nothing."""

    def say(self, text: str) -> None:
        return

    def advance(self, what: str, done: int, total: int) -> None:
        return

    def on_plan(self, settings: TrainSettings, derived: Sequence[Derived], expected: Estimate) -> None:
        return

    def on_step(self, row: Mapping[str, Any], progress: float) -> None:
        return

    def on_probe(self, row: Mapping[str, Any]) -> None:
        return

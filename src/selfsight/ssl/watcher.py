"""Whoever looks on while a training runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Watcher(Protocol):
    """The command line's progress bar, or nobody."""

    def say(self, text: str) -> None: ...

    def on_step(self, row: Mapping[str, Any], progress: float) -> None: ...

    def on_probe(self, row: Mapping[str, Any]) -> None: ...


class Nobody:
    """Looks at nothing."""

    def say(self, text: str) -> None:
        return

    def on_step(self, row: Mapping[str, Any], progress: float) -> None:
        return

    def on_probe(self, row: Mapping[str, Any]) -> None:
        return

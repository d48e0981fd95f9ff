"""Ctrl-C and SIGTERM end a training after the step at hand, and at once where nothing would be lost by it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, TypeVar

Item = TypeVar("Item")


class Asked(BaseException):
    """Someone asked for the end by the signal `number`."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.name = signal.Signals(number).name


class Stop:
    """While entered, notes the first SIGINT or SIGTERM, for `check` to raise; a second one acts as it would without us.

    Within `at_once` a signal is raised where it finds the program, as it is everywhere with `always`; but not in a rank that is
    not `alone`, since the others would wait for it.
    """

    def __init__(self, *, always: bool = False, alone: bool = True) -> None:
        self.signal: int | None = None
        self.alone = alone
        self._eager = always
        self._before: dict[int, Any] = {}

    def check(self) -> None:
        """`Asked` if a signal came."""
        if self.signal is not None:
            raise Asked(self.signal)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        if not self.alone:
            yield
            return
        self._eager = True
        try:
            self.check()
            yield
        finally:
            self._eager = False

    def waiting(self, items: Iterator[Item]) -> Iterator[Item]:
        """`items`, each waited for with an ear open: data may be slow, and who is about to be preempted has seconds."""
        while True:
            with self.at_once():
                item = next(items, self)
            if isinstance(item, Stop):
                return
            yield item

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread handle signals
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._restore()
        if self._eager:
            raise Asked(number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

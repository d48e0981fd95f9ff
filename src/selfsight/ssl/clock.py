"""How far a training is, by steps or by wall-clock time."""

from __future__ import annotations

import time

_NOMINAL = 10_000.0


class Clock:
    """Progress of a run whose budget is `epochs` or `minutes`.

    With a wall-clock budget nobody knows the number of steps beforehand, so progress is the share of the time that has passed
    and the schedules run over a nominal number of steps: they end where the time ends. `elapsed` counts over resumes.
    """

    def __init__(self, epochs: float | None, minutes: float | None, steps_per_epoch: int, elapsed: float) -> None:
        self.total_steps = None if epochs is None else max(1, round(epochs * steps_per_epoch))
        self.budget = None if minutes is None else minutes * 60
        self.nominal_steps = float(self.total_steps or _NOMINAL)
        self._before = elapsed
        self._started: float | None = None
        self._images, self._wait, self._since = 0, 0.0, 0.0

    def start(self) -> None:
        self._started = self._since = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds trained, in all sessions of the run."""
        return self._before + (0.0 if self._started is None else time.monotonic() - self._started)

    def progress(self, step: int) -> float:
        """Share of the budget used, in [0, 1]."""
        if self.budget is not None:
            return min(1.0, self.elapsed / self.budget)
        return min(1.0, step / self.nominal_steps)

    def finished(self, step: int) -> bool:
        return self.progress(step) >= 1.0

    def total_guess(self, step: int) -> float:
        """Seconds that the whole run will take."""
        return self.budget if self.budget is not None else self.elapsed / max(self.progress(step), 1e-6)

    def count(self, images: int, wait: float) -> None:
        self._images += images
        self._wait += wait

    @property
    def images_per_second(self) -> float:
        return self._images / max(1e-9, time.monotonic() - self._since)

    @property
    def wait_share(self) -> float:
        """Share of this session's time in which the network waited for data."""
        return self._wait / max(1e-9, time.monotonic() - self._since)

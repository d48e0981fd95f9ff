"""Processes that draw, and may die or hang without a picture being lost.

A worker draws one picture at a time. One that dies or takes too long is replaced, and its picture is drawn again; after so many
pictures it is replaced in any case, since what draws may keep more and more memory.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from selfsight.errors import SelfsightError

Job = TypeVar("Job")
Made = TypeVar("Made")

TRIES = 3
"""Workers that may be lost over one job."""
_START = 120.0
"""Seconds that a worker may take to start, beside those of its first job."""


class Crew(Generic[Job, Made]):
    """`make()` is called in each worker and gives what does a job there; it is pickled. 0 workers do the jobs in this process.

    `patience` is the seconds that a job may take, `lifetime` the jobs that a worker does before it is replaced.
    """

    def __init__(
        self, make: Callable[[], Callable[[Job], Made]], workers: int, *, patience: float = 600.0, lifetime: int = 5000
    ) -> None:
        self.make, self.workers, self.patience, self.lifetime = make, workers, patience, lifetime
        self.lost = 0
        """Workers that died or hung."""

    def made(self, jobs: Sequence[Job]) -> Iterator[Made]:
        """What is made of each job, in the order in which it is done. Raises what a job raises, and `SelfsightError` where one
        costs too many workers their life."""
        if not self.workers:
            yield from map(self.make(), jobs)
            return
        waiting, tries = deque(jobs), Counter[int]()
        crew = [_Worker(self.make) for _ in range(min(self.workers, len(jobs)))]
        try:
            while waiting or any(worker.busy for worker in crew):
                for worker in crew:
                    if waiting and not worker.busy:
                        worker.give(waiting.popleft())
                busy = [worker for worker in crew if worker.busy]
                ready = wait([worker.pipe for worker in busy], timeout=self._until(busy))
                for worker in busy:
                    if worker.pipe in ready and worker.starting and worker.started():
                        continue
                    if worker.pipe in ready and (outcome := worker.outcome()) is not None:
                        yield self._of(outcome)
                        self._renew(crew, worker, worker.done >= self.lifetime)
                    elif worker.pipe in ready or worker.left(self.patience) < 0:
                        self._bury(worker, tries)
                        waiting.appendleft(worker.job)
                        self._renew(crew, worker, True)
        finally:
            for worker in crew:
                worker.end()

    def _bury(self, worker: _Worker, tries: Counter[int]) -> None:
        how = worker.bury(f"was stopped after {self.patience:g} seconds")
        self.lost += 1
        tries[id(worker.job)] += 1
        if tries[id(worker.job)] >= TRIES:
            raise SelfsightError(f"{worker.job}: {TRIES} workers were lost over it, the last one {how}")

    def _until(self, busy: Sequence[_Worker]) -> float:
        return max(0.0, min(worker.left(self.patience) for worker in busy)) + 0.01

    def _renew(self, crew: list[_Worker], worker: _Worker, needed: bool) -> None:
        if needed:
            worker.end()
            crew[crew.index(worker)] = _Worker(self.make)

    @staticmethod
    def _of(outcome: tuple[bool, Any]) -> Any:
        good, value = outcome
        if not good:
            raise value
        return value


class _Worker:
    def __init__(self, make: Callable[[], Callable[[Any], Any]]) -> None:
        # Started anew, not forked: what draws, and torch in the process that asks, have threads.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, make), daemon=True)
        self.process.start()
        theirs.close()
        self.job: Any = None
        self.starting, self.busy, self.done, self._since = True, False, 0, 0.0

    def left(self, patience: float) -> float:
        """Seconds that it may still be at its job."""
        return patience + (_START if self.starting else 0.0) - (time.monotonic() - self._since)

    def started(self) -> bool:
        """Whether it has: its job begins now; False where it died before."""
        self.starting, self._since = False, time.monotonic()
        try:
            self.pipe.recv()
        except (EOFError, OSError):
            return False
        return True

    def give(self, job: Any) -> None:
        self.job, self.busy, self._since = job, True, time.monotonic()
        try:
            self.pipe.send(job)
        except OSError:
            return  # it died since; waiting for its answer finds out

    def outcome(self) -> tuple[bool, Any] | None:
        """(True, what was made) or (False, the error); None where it died over the job."""
        try:
            outcome = self.pipe.recv()
        except (EOFError, OSError):
            return None
        self.busy, self.done = False, self.done + 1
        return outcome

    def bury(self, slow: str) -> str:
        """How it ended; one that is only slow is killed."""
        self.process.join(timeout=1.0)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            return slow
        code = self.process.exitcode or 0
        return f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"

    def end(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.join()


def _work(pipe: Connection, make: Callable[[], Callable[[Any], Any]]) -> None:
    # Ctrl-C reaches the whole group of processes; the main one alone decides what to do about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    do = make()
    pipe.send(None)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        try:
            outcome = True, do(job)
        except Exception as error:
            outcome = False, sendable(error)
        pipe.send(outcome)


def sendable(error: Exception) -> Exception:
    """The error, or one that says the same where it cannot be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return SelfsightError(f"{type(error).__name__}: {error}")
    return error

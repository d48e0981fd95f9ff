"""Pictures drawn by a cluster of Ray: its actors each draw one picture at a time, and the bytes come back to be written here.

So the folder of the set need not be shared; files that a spec names must lie under the same names on every machine. An actor that
dies or hangs is replaced, and its picture drawn again. Ray Data would hold finished pictures back until a block of them is full;
here each is on the disk as soon as it is back, so that a kill costs those alone that are being drawn.
"""

from __future__ import annotations

import hashlib
import platform
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from importlib import metadata
from typing import Any, NamedTuple, TypeAlias

from selfsight.errors import ConfigError, SelfsightError
from selfsight.ray_cluster import joined
from selfsight.synthesis.crew import TRIES, sendable
from selfsight.synthesis.render import Drawn, Job, Order, Rows

_PARTS = ("selfsight", "numpy", "pillow", "pycocotools", "bpy")
"""Packages that have a say in the pixels and the labels."""
Outcome: TypeAlias = tuple[bool, Any]
"""(True, what was made) or (False, the error)."""


class Machine(NamedTuple):
    """What a machine draws with: versions of packages, and a digest of the sizes of the files that the spec names."""

    name: str
    versions: dict[str, str]
    files: str
    missing: str | None


class Artist:
    """What runs in an actor. `files` are those of the order, as the machine that asks has them."""

    def __init__(self, order: Order, files: Sequence[str]) -> None:
        self.order, self.files = order, files
        self._draw: Callable[[Job], Drawn] | None = None

    def begin(self) -> Outcome:
        return self._told(lambda: machine(self.order, self.files))

    def draw(self, job: Job) -> Outcome:
        if self._draw is None:
            self._draw = self.order.drawer(threads=1)
        draw = self._draw
        return self._told(lambda: draw(job))

    @staticmethod
    def _told(work: Callable[[], Any]) -> Outcome:
        try:
            return True, work()
        except Exception as error:
            return False, sendable(error)


def machine(order: Order, files: Sequence[str]) -> Machine:
    """The one that this runs on."""
    digest, missing = hashlib.blake2b(digest_size=16), None
    for name in files:
        path = order.base / name
        missing = missing or (None if path.is_file() else str(path))
        digest.update(f"{name} {path.stat().st_size if path.is_file() else 0}\0".encode())
    versions = {name: _version(name) for name in _PARTS}
    return Machine(platform.node(), versions, digest.hexdigest(), missing)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"


def check_alike(here: Machine, there: Machine) -> None:
    """`ConfigError` where a machine would draw other pictures than this one."""
    for name, version in here.versions.items():
        if there.versions[name] != version:
            both = f"{there.name} has {name} {there.versions[name]}, this machine {version}"
            raise ConfigError(f"--engine ray: {both}; expected the same, so that pictures are the same")
    if there.missing is not None:
        raise ConfigError(f"--engine ray: {there.missing} is not on {there.name}; expected the spec's files under the same names")
    if there.files != here.files:
        raise ConfigError(f"--engine ray: {there.name} has other files under the names of the spec; copy those of this machine")


class RayCrew:
    """Draws the pictures of `order` by so many actors, a core each; by default as many as the cluster has cores.

    `ConfigError` without Ray. `patience` and `lifetime` are those of `crew.Crew`.
    """

    def __init__(self, order: Order, workers: int | None = None, *, patience: float = 600.0, lifetime: int | None = None) -> None:
        if workers == 0:
            raise ConfigError("--workers: expected 1 actor at least with --engine ray. Got 0.")
        self.order, self.patience, self.lifetime = order, patience, lifetime or order.lifetime
        self.ray = joined()
        self.workers = workers or int(self.ray.cluster_resources().get("CPU", 0))
        if not self.workers:
            raise ConfigError("--engine ray: the cluster has no core to draw on; give it one, or --workers as it will have")
        self.lost = 0
        """Actors that died or hung."""
        self._stillborn = 0

    def made(self, jobs: Sequence[Job]) -> Iterator[Rows]:
        """Rows of each picture, once its files are written, in the order in which they come back. Raises what drawing raises, and
        `SelfsightError` where a picture costs too many actors their life."""
        files = self.order.files()
        here, known = machine(self.order, files), self.ray.put(files)
        kind = self.ray.remote(num_cpus=1, max_restarts=0, scheduling_strategy="SPREAD")(Artist)
        waiting, tries = deque(jobs), Counter[Job]()
        hands = [_Hand(kind.remote(self.order, known)) for _ in range(min(self.workers, len(jobs)))]
        try:
            while waiting or any(hand.job for hand in hands):
                for hand in hands:
                    if waiting and hand.idle:
                        hand.give(waiting.popleft(), self.patience)
                # Futures, as Ray's own waiting swallows what handlers of signals raise.
                wait([hand.asked for hand in hands if hand.asked], min(hand.left for hand in hands), FIRST_COMPLETED)
                for hand in [hand for hand in hands if hand.answered]:
                    try:
                        answer = hand.answer(self.ray.exceptions.RayError)
                    except _LostError as lost:
                        waiting.extendleft(self._mourned(hand.job, tries, lost))
                    else:
                        if isinstance(answer, Drawn):
                            yield answer.written(self.order.folder)
                        else:
                            check_alike(here, answer)
                            self._stillborn = 0
                        if hand.done < self.lifetime:
                            continue
                    self.ray.kill(hand.actor)
                    hands[hands.index(hand)] = _Hand(kind.remote(self.order, known))
        finally:
            for hand in hands:
                self.ray.kill(hand.actor)

    def _mourned(self, job: Job | None, tries: Counter[Job], lost: _LostError) -> list[Job]:
        """What is to be drawn again."""
        self.lost += 1
        if job is None:
            self._stillborn += 1
            if self._stillborn >= TRIES:
                raise SelfsightError(f"--engine ray: {TRIES} actors were lost before they could draw: {lost}")
            return []
        tries[job] += 1
        if tries[job] >= TRIES:
            raise SelfsightError(f"{job}: {TRIES} actors were lost over it: {lost}")
        return [job]


class _LostError(Exception):
    """An actor died or hung."""


class _Hand:
    """An actor, and what it was asked. One that waits for a free core is given no picture."""

    def __init__(self, actor: Any) -> None:
        self.actor, self.done = actor, 0
        self.job: Job | None = None
        self.asked: Future[Outcome] | None = actor.begin.remote().future()
        self._until = float("inf")

    @property
    def idle(self) -> bool:
        return self.asked is None

    @property
    def left(self) -> float:
        """Seconds after which to look at it again."""
        return min(60.0, max(0.0, self._until - time.monotonic()) + 0.01)

    @property
    def answered(self) -> bool:
        """Whether there is something to hear, be it that it is late."""
        return self.asked is not None and (self.asked.done() or time.monotonic() > self._until)

    def give(self, job: Job, patience: float) -> None:
        self.job, self._until = job, time.monotonic() + patience
        self.asked = self.actor.draw.remote(job).future()

    def answer(self, death: type[Exception]) -> Any:
        """What it made; raises what that raised, `_LostError` where it died or is late."""
        assert self.asked is not None
        if not self.asked.done():
            raise _LostError("it was stopped, as it took too long")
        try:
            good, value = self.asked.result()
        except death as error:
            raise _LostError(str(error).partition("\n")[0]) from None
        if not good:
            raise value
        self.done += self.job is not None
        self.job, self.asked, self._until = None, None, float("inf")
        return value

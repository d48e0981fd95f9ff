"""Worker processes that are killed or hang: what they held is named, and nothing else is lost."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from selfsight.data.loader import Share, ViewBatch, view_batches
from selfsight.data.sources import Source, open_source
from selfsight.data.views import ViewSettings
from selfsight.data.windows import image_batches
from selfsight.data.workers import Crew
from selfsight.errors import SelfsightError
from selfsight.ssl.feed import more_workers

SMALL = ViewSettings(global_size=16, local_size=8, local_count=2)


@pytest.fixture(autouse=True)
def nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No process, thread or open file outlives the iteration."""
    # Torch looks every five seconds whether its workers live.
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.5)
    me = psutil.Process()
    torch.set_num_threads(1)
    list(Crew(_Numbers(), 1).items(0, 1))  # what torch and Python open once and keep
    before = (threading.active_count(), me.num_fds())
    yield
    deadline = time.monotonic() + 10
    while (_workers() or me.num_fds() > before[1]) and time.monotonic() < deadline:
        gc.collect()  # the traceback of an expected error holds its iterator in a cycle
        time.sleep(0.05)
    assert _workers() == []
    assert threading.active_count() <= before[0]
    assert me.num_fds() <= before[1]


def _workers() -> list[str]:
    """Child processes but Python's own helpers for shared memory."""
    lines = [" ".join(child.cmdline()) for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    return [line for line in lines if "resource_tracker" not in line and "forkserver" not in line]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for i in range(24):
        Image.fromarray(draw.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(tmp_path / f"{i:02d}.png")
    return tmp_path


class Deadly(Source):
    """A source of which one sample kills whoever reads it, or keeps it forever."""

    def __init__(self, source: Source, sample: int, how: str) -> None:
        self.source, self.sample, self.how = source, sample, how
        self.location, self.keys, self.labels, self.classes = source.location, source.keys, None, ()
        self.main = os.getpid()

    def image_bytes(self, index: int) -> bytes:
        if index == self.sample and os.getpid() != self.main:
            if self.how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self.how == "crashes":
                os.kill(os.getpid(), signal.SIGSEGV)
            time.sleep(60)
        return self.source.image_bytes(index)

    def columns(self) -> tuple[str, ...]:
        return ()

    def column(self, name: str) -> np.ndarray:
        raise KeyError(name)


def batches(source: Source, workers: int, patience: float = 600) -> list[ViewBatch]:
    crew = view_batches(source, SMALL, batch_size=4, seed=1, workers=workers, finish=True, patience=patience)
    return list(crew.items(0, 12))


@pytest.mark.parametrize(("how", "patience"), [("killed", 600), ("crashes", 600), ("hangs", 1.0)])
def test_a_dead_worker_is_reported_with_the_file_it_held_and_the_rest_comes_as_ever(
    folder: Path, how: str, patience: float
) -> None:
    source = open_source(folder)
    found = batches(Deadly(source, 7, how), 2, patience)
    expected = batches(source, 0)
    assert len(found) == 12
    reported = {bad.key: bad.reason for batch in found for bad in batch.bad}
    verb = "stopped after 1 seconds" if how == "hangs" else "killed, maybe for want of memory,"
    assert reported == {"07.png": f"a data worker was {verb} while it read this image"}
    for a, b in zip(found, expected, strict=True):
        assert a.size == b.size - len(a.bad)
        if not a.bad:
            assert all(torch.equal(v, w) for v, w in zip(a.views, b.views, strict=True))


def test_an_encoder_gets_all_images_but_the_one_that_killed_a_worker(folder: Path) -> None:
    parts = list(image_batches(Deadly(open_source(folder), 5, "killed"), _mean, batch_size=4, workers=2))
    assert [index for good, _, _ in parts for index in good] == [i for i in range(24) if i != 5]
    assert [bad.key for _, _, bad in parts for bad in bad] == ["05.png"]


def _mean(image: object) -> torch.Tensor:
    return torch.tensor([float(np.asarray(image).mean())])


class _Numbers(torch.utils.data.Dataset[int]):
    """Items that are their own numbers; `fatal` ones end the worker."""

    def __init__(self, fatal: int = -1, everywhere: bool = False) -> None:
        self.avoid: dict[int, str] = {}
        self.held = torch.zeros(1, 3)
        self.fatal, self.everywhere, self.main = fatal, everywhere, os.getpid()

    def __getitem__(self, number: int) -> int:
        if number == self.fatal and os.getpid() != self.main:
            os.kill(os.getpid(), signal.SIGKILL)
        return number


class _Torn:
    """Number `number`, as it is handed over by a worker that is killed meanwhile, or else breaks off."""

    def __init__(self, number: int, once: Path, killed: bool) -> None:
        self.number, self.once, self.killed = number, once, killed

    def __reduce__(self) -> tuple[Any, ...]:
        return _torn, (self.number, self.once, os.getpid() if self.killed else 0)


def _torn(number: int, once: Path, pid: int) -> int:
    if number == 3 and not once.exists():
        once.touch()
        if pid:
            os.kill(pid, signal.SIGKILL)
        raise ConnectionResetError("reset by peer")
    return number


class _Handing(_Numbers):
    def __init__(self, once: Path, killed: bool) -> None:
        super().__init__()
        self.once, self.killed = once, killed

    def __getitem__(self, number: int) -> Any:
        return _Torn(number, self.once, self.killed)


def test_a_worker_that_is_killed_while_it_hands_over_an_item_costs_none(tmp_path: Path) -> None:
    assert list(Crew(_Handing(tmp_path / "once", killed=True), 2).items(0, 8)) == list(range(8))
    assert (tmp_path / "once").exists()
    with pytest.raises(ConnectionResetError):
        list(Crew(_Handing(tmp_path / "again", killed=False), 2).items(0, 8))


def test_workers_that_die_over_one_item_again_and_again_end_the_work_with_an_error() -> None:
    found = []
    with pytest.raises(SelfsightError, match=r"4 data workers were killed, maybe .* between two images"):
        for number in Crew(_Numbers(fatal=3), 1).items(0, 10):
            found.append(number)
    assert found == list(range(len(found)))


def test_workers_that_die_again_and_again_end_the_work(folder: Path) -> None:
    class AllDeadly(Deadly):
        def image_bytes(self, index: int) -> bytes:
            self.sample = index
            return super().image_bytes(index)

    with pytest.raises(SelfsightError, match=r"4 data workers were killed, .* the last while it read sample \d+"):
        batches(AllDeadly(open_source(folder), 0, "killed"), 1)


def test_an_error_in_a_worker_is_no_death() -> None:
    with pytest.raises(ValueError, match="broken on purpose"):
        list(Crew(_Broken(), 1).items(0, 3))


class _Broken(_Numbers):
    def __getitem__(self, number: int) -> int:
        raise ValueError("broken on purpose")


def test_the_number_of_workers_may_change_on_the_way(folder: Path) -> None:
    source = open_source(folder)
    crew = view_batches(source, SMALL, batch_size=4, seed=1, workers=0, finish=True)
    found = []
    for number, batch in enumerate(crew.items(0, 12)):
        found.append(batch)
        crew.workers = {2: 1, 5: 2, 9: 0}.get(number, crew.workers)
    for a, b in zip(found, batches(source, 0), strict=True):
        assert all(torch.equal(v, w) for v, w in zip(a.views, b.views, strict=True))


def test_leaving_early_stops_the_workers(folder: Path) -> None:
    crew = view_batches(open_source(folder), SMALL, batch_size=4, seed=1, workers=2, finish=True)
    batch = next(crew.items(0, 10**9))
    assert batch.size == 4


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_together_see_the_views_that_one_would(folder: Path, ranks: int) -> None:
    source = open_source(folder)
    whole = batches(source, 0)
    parts = []
    for rank in range(ranks):
        crew = view_batches(source, SMALL, batch_size=4, seed=1, workers=rank % 2, finish=True, share=Share(rank, ranks))
        parts.append(list(crew.items(0, 12)))
    for step, batch in enumerate(whole):
        for kind, views in enumerate(batch.views):
            several = [part[step].views[kind].unflatten(0, (2, 4 // ranks)) for part in parts]
            assert torch.equal(torch.cat(several, dim=1).flatten(0, 1), views)


def test_workers_are_added_while_a_training_waits() -> None:
    assert more_workers(4, 0.05, 16) == 4
    assert more_workers(4, 0.5, 16) == 6
    assert more_workers(1, 0.5, 16) == 2
    assert more_workers(14, 0.5, 16) == 15
    assert more_workers(15, 0.9, 16) == 15
    assert more_workers(1, 0.9, 1) == 1

"""Processes that draw: none may be lost to a crash, a hang or an error without its job being done or named."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest

from selfsight.errors import DataError, SelfsightError
from selfsight.synthesis.crew import TRIES, Crew


def doing(folder: Path) -> Callable[[int], tuple[int, int]]:
    """What a worker does: (job, its process). Job 3 kills its worker the first time, 5 hangs once, 7 kills always."""
    return partial(_do, folder)


def _do(folder: Path, job: int) -> tuple[int, int]:
    mark = folder / str(job)
    if job == 7 or (job in (3, 5) and not mark.exists()):
        mark.touch()
        if job == 5:
            time.sleep(600)
        os.kill(os.getpid(), signal.SIGKILL)
    if job == 9:
        raise DataError("nine.png: is no image")
    if job == 11:
        raise OddError(open(os.devnull))  # noqa: PTH123, SIM115
    return job, os.getpid()


class OddError(Exception):
    """One that cannot be sent to another process."""


def crew(folder: Path, workers: int = 2, **options: float) -> Crew[int, tuple[int, int]]:
    return Crew(partial(doing, folder), workers, **options)  # type: ignore[arg-type]


def children() -> int:
    """Processes that this one has started, but for Python's own helper."""
    return sum("resource_tracker" not in " ".join(child.cmdline()) for child in psutil.Process().children())


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_job_is_done_once(tmp_path: Path, workers: int) -> None:
    jobs = list(range(20, 60))
    made = list(crew(tmp_path, workers).made(jobs))
    assert sorted(job for job, _ in made) == jobs
    assert len({process for _, process in made}) <= max(1, workers)
    assert (os.getpid() in {process for _, process in made}) == (workers == 0)
    assert children() == 0


def test_the_job_of_a_worker_that_dies_is_done_by_another(tmp_path: Path) -> None:
    at_work = crew(tmp_path)
    assert sorted(job for job, _ in at_work.made([1, 2, 3, 4, 20, 21])) == [1, 2, 3, 4, 20, 21]
    assert at_work.lost == 1


def test_a_worker_that_hangs_is_replaced_and_its_job_done(tmp_path: Path) -> None:
    at_work = crew(tmp_path, patience=3)
    assert sorted(job for job, _ in at_work.made([4, 5, 6])) == [4, 5, 6]
    assert at_work.lost == 1
    assert children() == 0


def test_a_job_that_kills_every_worker_is_named_with_how_they_died(tmp_path: Path) -> None:
    with pytest.raises(SelfsightError, match=f"7: {TRIES} workers were lost over it, the last one died of SIGKILL"):
        list(crew(tmp_path, 1).made([7]))
    assert children() == 0


def test_an_error_of_a_job_is_raised_here_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nine\.png: is no image"):
        list(crew(tmp_path).made([1, 9, 2]))
    with pytest.raises(SelfsightError, match="OddError: "):
        list(crew(tmp_path, 1).made([11]))
    assert children() == 0


def test_workers_are_replaced_after_so_many_jobs(tmp_path: Path) -> None:
    made = list(crew(tmp_path, 1, lifetime=3).made([20, 21, 22, 23, 24, 25, 26]))
    processes = [process for _, process in made]
    assert [processes.count(process) for process in dict.fromkeys(processes)] == [3, 3, 1]


def test_who_stops_listening_leaves_no_process(tmp_path: Path) -> None:
    made = crew(tmp_path).made(list(range(20, 60)))
    next(made)
    made.close()  # type: ignore[attr-defined]
    assert children() == 0

"""What tests share: a cache of their own, so that nothing lands in that of whoever runs them, and torch on one thread."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("SELFSIGHT_CACHE")
    os.environ["SELFSIGHT_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["SELFSIGHT_CACHE"]
    else:
        os.environ["SELFSIGHT_CACHE"] = before


@pytest.fixture(scope="session")
def environment_of(cache_of_the_tests: Path) -> dict[str, str]:
    """The environment of a user's shell in which `selfsight` is installed."""
    programs = str(Path(sys.executable).parent)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "SELFSIGHT_CACHE": str(cache_of_the_tests), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on one thread, and left so, whatever a training asked for."""
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(1)


_ENDED = pytest.StashKey[int]()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[_ENDED] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Leaves a process that has Blender in it. Its library ends when its module is freed; where something still holds that, the
    process waits for ever for a thread of Blender's. The tests hold it: with a traceback of one that failed, and because they
    write glTF files, which selfsight itself does not."""
    if "bpy" in sys.modules and _ENDED in config.stash:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[_ENDED])

"""Tests of missing permissions, also where the tests run as root, to whom nothing is forbidden."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_NOBODY = 65534


def as_nobody(work: Callable[[], T]) -> T:
    """The value of `work` in a fork that belongs to no privileged user; it must be picklable."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_send, args=(work, sender))
    process.start()
    sender.close()
    with receiver:
        value = receiver.recv()
    process.join()
    if isinstance(value, Exception):
        raise value
    return value


def _send(work: Callable[[], T], sender: Connection) -> None:
    if os.getuid() == 0:
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)
    try:
        sender.send(work())
    except Exception as error:
        sender.send(error)


@contextmanager
def public_folder() -> Iterator[Path]:
    """A folder that other users reach, which `tmp_path` is not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)

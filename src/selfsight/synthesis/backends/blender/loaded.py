"""Blender as a Python module: found or missed with a clear word, and kept from writing over the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from selfsight.errors import ConfigError

_WHEELS = {(3, 11): "4.5", (3, 13): "5.1"}
"""Blender versions of which there are wheels, by Python's."""


@cache
def blender() -> Any:
    """The module `bpy` with Cycles enabled; `ConfigError` where it is not installed or there is none for this Python."""
    _forget_paths()
    try:
        with quiet():
            import bpy
    except ModuleNotFoundError as error:
        if error.name != "bpy":
            raise
        raise ConfigError(f"--backend blender: {_missing(sys.version_info[:2])}") from None
    with quiet():
        bpy.ops.wm.read_factory_settings(use_empty=True)
        bpy.ops.preferences.addon_enable(module="cycles")
    return bpy


def _forget_paths() -> None:
    """Blender puts its own folders before all others, and a process that is started anew inherits them. Its module is not found
    there, only a part of it that has the same name."""
    sys.path[:] = [path for path in sys.path if not {"bpy", "scripts"} <= set(Path(path).parts)]


def _missing(python: tuple[int, int]) -> str:
    if python in _WHEELS:
        return "needs Blender's module bpy; pip install 'selfsight[synth]'"
    known = " or ".join(f"{major}.{minor}" for major, minor in _WHEELS)
    return f"Blender's module bpy exists for Python {known}; this is {python[0]}.{python[1]}"


@contextmanager
def quiet() -> Iterator[None]:
    """Blender reports every step of every frame to file descriptor 1, past Python's `sys.stdout`."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)

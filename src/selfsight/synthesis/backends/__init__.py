"""What draws scenes: one file or folder a backend, one row in `BACKENDS`."""

from __future__ import annotations

from pathlib import Path

from selfsight.errors import ConfigError, nearest
from selfsight.synthesis.backends.base import Backend
from selfsight.synthesis.backends.blender import Blender
from selfsight.synthesis.backends.composite import Composite

BACKENDS: dict[str, type[Backend]] = {"blender": Blender, "composite": Composite}


def backend(name: str, base: Path) -> Backend:
    """The backend of that name for files relative to `base`; `ConfigError` where there is none."""
    if name not in BACKENDS:
        raise ConfigError(f"--backend: no backend '{name}'. {nearest(name, BACKENDS)}")
    return BACKENDS[name](base)


__all__ = ["BACKENDS", "Backend", "backend"]

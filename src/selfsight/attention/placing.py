"""Where results may lie."""

from __future__ import annotations

import os
from pathlib import Path

from selfsight.errors import InputError


def check_outside(path: Path, location: str, option: str = "--out") -> None:
    """`InputError` where pictures written at `path` would be among those that are read from the folder `location` next time."""
    data = Path(location if Path(location).exists() else location.partition("?")[0])
    if data.is_dir() and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(data)):
        raise InputError(f"{option} {path}: lies in {data}, whose pictures are read; give a place outside")

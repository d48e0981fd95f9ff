"""Run folders and atomic writes.

A run folder holds `config.yaml` (complete, reloadable), `metrics.jsonl`, TensorBoard events, `checkpoint/latest.safetensors`,
`teacher.safetensors`, `environment.json` and `bad_images.jsonl`, and `init.safetensors` if it started from weights. A file is
written under a temporary name in the same folder and renamed, so that a reader sees the old one or the new one and never a half.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from selfsight.errors import InputError


def write_atomic(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write(temporary)` and rename the temporary file to `path` once its bytes are on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text_atomic(path: Path, text: str) -> None:
    write_atomic(path, lambda temporary: _write_text(temporary, text))


def write_json_atomic(path: Path, value: Any) -> None:
    write_text_atomic(path, json.dumps(value, indent=1) + "\n")


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    _drop_cut_line(path)
    with path.open("a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")


def _drop_cut_line(path: Path) -> None:
    """A line that a crash cut off would join the next one."""
    if not path.is_file():
        return
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        if size and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Rows of a `.jsonl`; a last line cut off by a crash is left out."""
    if not path.is_file():
        return []
    rows = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            if number != len(lines):
                raise InputError(f"{path}: line {number} is no JSON") from None
    return rows


def cache_folder(part: str) -> Path:
    """Where `part` (features, index, shards) is kept between runs: below SELFSIGHT_CACHE, or ~/.cache/selfsight."""
    chosen = os.environ.get("SELFSIGHT_CACHE")
    return (Path(chosen) if chosen else Path.home() / ".cache" / "selfsight") / part


class RunFolder:
    """Names of the files in a run, in one place."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.jsonl"
        self.checkpoint = self.path / "checkpoint" / "latest.safetensors"
        self.teacher = self.path / "teacher.safetensors"
        self.init = self.path / "init.safetensors"
        self.environment = self.path / "environment.json"
        self.bad_images = self.path / "bad_images.jsonl"
        self.tensorboard = self.path / "tensorboard"

    @property
    def exists(self) -> bool:
        return self.config.is_file()


def environment(versions_of: Iterable[str] = ("torch", "torchvision", "timm", "numpy", "pillow", "pyarrow")) -> dict[str, Any]:
    """What is needed to repeat a result: versions, platform and the command."""
    versions = {}
    for name in ("selfsight", *versions_of):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "versions": versions,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }

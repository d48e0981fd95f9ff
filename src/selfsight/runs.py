"""Run folders and atomic writes.

A run folder holds `config.yaml` (complete, reloadable), `metrics.jsonl`, TensorBoard events, the last two checkpoints
(`checkpoint/latest.safetensors`, `checkpoint/previous.safetensors`; those of a divided training are folders without the ending),
`teacher.safetensors`, `environment.json`, and, where there was reason, `init.safetensors`, `bad_images.jsonl`,
`skipped.jsonl` and `changes.jsonl`; of a fine-tuning also `checkpoint/best.safetensors` and `classifier.json`. A file is written
under a temporary name in the same folder and renamed, so that a reader sees the old one or the new one and never a half.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from selfsight.errors import DiskFullError, InputError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomic(path: Path, write: Callable[[Path], None], needed: int = 0, kept: Path | None = None) -> None:
    """Call `write(temporary)` and rename the temporary file to `path` once its bytes are on the disk.

    What stood at `path` before is renamed to `kept`, if given. `DiskFullError` where the `needed` bytes do not fit.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with room_for(path, needed):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        try:
            write(temporary)
            _sync(temporary, os.O_RDWR)
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            if kept is not None and path.is_file():
                path.replace(kept)
            temporary.replace(path)
            _sync_names(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def _sync_names(folder: Path) -> None:
    """A rename is on the disk only when its folder is."""
    if os.name == "posix":
        _sync(folder, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def room_for(path: Path, needed: int = 0) -> Iterator[None]:
    """Turns a full disk, a used-up quota or a limit on the size of files into `DiskFullError`: which file, what it needs, what
    is free."""
    try:
        yield
    except Exception as error:
        found = error.errno if isinstance(error, OSError) else _number(error)
        if found not in _FULL:
            raise
        wants = f"{readable(needed)} are needed, " if needed else ""
        free = f"{readable(shutil.disk_usage(path.parent).free)} are free on this disk"
        why = {errno.EDQUOT: "the quota is used up", errno.EFBIG: "files may not grow so large here (ulimit -f)"}
        raise DiskFullError(
            f"{path}: cannot be written, {why.get(found, 'the disk is full')}: {wants}{free}. "
            "What was saved before is whole; make room and go on from there"
        ) from None


def _number(error: Exception) -> int | None:
    """Libraries in Rust put the number of an operating system's error in the text."""
    told = re.search(r"\(os error (\d+)\)", str(error))
    return int(told[1]) if told else None


def readable(count: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def counted(number: int, what: str) -> str:
    """`1 picture`, `2 pictures`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def remove_folder(path: Path) -> None:
    """A folder with all that is in it, if there is one."""
    if path.is_dir():
        shutil.rmtree(path)


def remove_leftovers(folder: Path) -> None:
    """Temporary files of `write_atomic`, of safetensors within it and of divided checkpoints that a killed process left."""
    for path in folder.glob(".*.writing"):
        remove_folder(path)
    for path in folder.glob(".*"):
        if re.fullmatch(r"\.[\w-]+\.(safetensors|jsonl|json|yaml)\.[a-z0-9_]{8}|\.tmp[A-Za-z0-9]{6}", path.name):
            path.unlink(missing_ok=True)


def write_text_atomic(path: Path, text: str) -> None:
    write_atomic(path, lambda temporary: _write_text(temporary, text), len(text))


def write_json_atomic(path: Path, value: Any) -> None:
    write_text_atomic(path, json.dumps(value, indent=1) + "\n")


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    with room_for(path, len(text)):
        _drop_cut_line(path)
        with path.open("a", encoding="utf-8") as file:
            file.write(text)


def rewrite_jsonl(path: Path, keep: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Leave only the rows to `keep` in the file, if there is one; returns them."""
    rows = [row for row in read_jsonl(path) if keep(row)]
    if path.is_file():
        write_text_atomic(path, "".join(json.dumps(row) + "\n" for row in rows))
    return rows


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
    """Where `part` (features, looks, index, shards) is kept between runs: below SELFSIGHT_CACHE, or ~/.cache/selfsight."""
    chosen = os.environ.get("SELFSIGHT_CACHE")
    return (Path(chosen) if chosen else Path.home() / ".cache" / "selfsight") / part


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Nobody else writes `out` meanwhile: `InputError` where another process does. A killed one holds it no longer.

    Where the system has no such locks (Windows) nothing is held.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    path = out.with_name(f".{out.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = path.open("w")
    except OSError as error:
        raise _unwritable(out, path.parent, error) from None
    with held as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"--out {out}: another process is writing it; wait for its end, or give another --out") from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def bad_list_of(out: Path) -> Path:
    """Where the unreadable images are listed of a file that has no folder of its own."""
    return out.with_name(f"{out.name}.bad_images.jsonl")


def place_for_file(out: str | Path) -> Path:
    """`out` as a path to write a file at; `InputError`, before any work, where none can be."""
    path = Path(out)
    if path.is_dir():
        raise InputError(f"--out {out}: is a folder; expected a file to write")
    _check_folder(path.parent, path)
    return path


def place_for_folder(out: str | Path) -> Path:
    """`out` as a folder to write in; `InputError`, before any work, where there can be none."""
    path = Path(out)
    if path.is_file():
        raise InputError(f"--out {out}: is a file; expected a folder")
    _check_folder(path, path)
    return path


def _check_folder(folder: Path, out: Path) -> None:
    """`InputError` where no file of `out` can be made in a folder that is there or would be."""
    there = next((each for each in (folder, *folder.parents) if each.exists()), Path())
    if not there.is_dir():
        raise InputError(f"--out {out}: {there} is a file; expected a folder there")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise _unwritable(out, there, error) from None


def _unwritable(out: Path, folder: Path, error: OSError) -> InputError:
    return InputError(f"--out {out}: nothing can be written in {folder} ({error.strerror}); give another place")


class RunFolder:
    """Names of the files in a run, in one place."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.jsonl"
        self.checkpoint = self.path / "checkpoint" / "latest.safetensors"
        self.previous = self.path / "checkpoint" / "previous.safetensors"
        self.best = self.path / "checkpoint" / "best.safetensors"
        self.sharded = self.path / "checkpoint" / "latest"
        self.sharded_previous = self.path / "checkpoint" / "previous"
        self.teacher = self.path / "teacher.safetensors"
        self.init = self.path / "init.safetensors"
        self.environment = self.path / "environment.json"
        self.bad_images = self.path / "bad_images.jsonl"
        self.skipped = self.path / "skipped.jsonl"
        self.changes = self.path / "changes.jsonl"
        self.classifier = self.path / "classifier.json"
        self.tensorboard = self.path / "tensorboard"

    @property
    def exists(self) -> bool:
        return self.config.is_file()

    @property
    def checkpoints(self) -> list[Path]:
        """Those that are there, whether file or folder, the latest first."""
        return [path for path in (self.checkpoint, self.sharded, self.previous, self.sharded_previous) if path.exists()]


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

"""What a run writes down while it trains: `metrics.jsonl` and TensorBoard events."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from selfsight.runs import RunFolder, append_jsonl, room_for


class MetricsLog:
    """Each row goes to `metrics.jsonl` and, number by number, to TensorBoard, which forgets what it has after step `start`.
    Of several ranks one alone `writes`.

    Events are written here and now, not by a thread: whatever is wrong with the disk is an error of the row at hand.
    """

    def __init__(self, folder: RunFolder, start: int = 0, *, writes: bool = True) -> None:
        self.folder, self.start, self.writes = folder, start, writes
        self._file: BinaryIO | None = None

    def __enter__(self) -> MetricsLog:
        if not self.writes:
            return self
        folder = self.folder.tensorboard
        folder.mkdir(parents=True, exist_ok=True)
        self._file = _new_file(self.folder).open("wb")
        self._event(file_version="brain.Event:2")
        if self.start:
            self.restart(self.start)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is None:
            return
        # Closing writes what could not be written before: then it is the error that is on its way already.
        with contextlib.suppress(OSError) if error is not None else room_for(self.folder.tensorboard):
            self._file.close()

    def restart(self, step: int) -> None:
        """TensorBoard forgets what it has after `step`: it comes again."""
        self._event(step=step + 1, session_log=SessionLog(status=SessionLog.START))

    def write(self, row: Mapping[str, Any]) -> None:
        if not self.writes:
            return
        append_jsonl(self.folder.metrics, [row])
        values = [Summary.Value(tag=name, simple_value=value) for name, value in row.items() if name not in ("step", "epoch")]
        self._event(step=int(row["step"]), summary=Summary(value=values))

    def _event(self, **content: Any) -> None:
        if self._file is not None:
            with room_for(self.folder.tensorboard):
                RecordWriter(self._file).write(Event(wall_time=time.time(), **content).SerializeToString())
                self._file.flush()


def _new_file(folder: RunFolder) -> Path:
    """A name that no other file has: TensorBoard reads all of a folder in the order of their times."""
    stem = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
    return folder.tensorboard / stem

"""What a run writes down while it trains: `metrics.jsonl` and TensorBoard events."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from selfsight.runs import RunFolder, append_jsonl


class MetricsLog:
    """Each row goes to `metrics.jsonl` and, number by number, to TensorBoard; of several ranks one alone `writes`."""

    def __init__(self, folder: RunFolder, *, writes: bool = True) -> None:
        self.folder, self.writes = folder, writes
        self._board: SummaryWriter | None = None

    def __enter__(self) -> MetricsLog:
        self._board = SummaryWriter(str(self.folder.tensorboard)) if self.writes else None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._board is not None:
            self._board.close()

    def write(self, row: Mapping[str, Any]) -> None:
        if self.writes:
            append_jsonl(self.folder.metrics, [row])
        if self._board is not None:
            for name, value in row.items():
                if name not in ("step", "epoch"):
                    self._board.add_scalar(name, value, int(row["step"]))

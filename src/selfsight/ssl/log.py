"""What a run writes down while it trains: `metrics.jsonl`, TensorBoard events and `bad_images.jsonl`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from selfsight.data.sources import BadImage
from selfsight.runs import RunFolder, append_jsonl, read_jsonl


class MetricsLog:
    """Each row goes to `metrics.jsonl` and, number by number, to TensorBoard."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._board: SummaryWriter | None = None

    def __enter__(self) -> MetricsLog:
        self._board = SummaryWriter(str(self.folder.tensorboard))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._board is not None:
            self._board.close()

    def write(self, row: Mapping[str, Any]) -> None:
        append_jsonl(self.folder.metrics, [row])
        if self._board is not None:
            for name, value in row.items():
                if name not in ("step", "epoch"):
                    self._board.add_scalar(name, value, int(row["step"]))


class BadImages:
    """Each bad image once, as it is met, in `bad_images.jsonl`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = {row["key"] for row in read_jsonl(path)}

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, images: Iterable[BadImage]) -> None:
        new = {image.key: image.reason for image in images if image.key not in self._seen}
        if new:
            self._seen |= new.keys()
            append_jsonl(self.path, [{"key": key, "reason": reason} for key, reason in new.items()])

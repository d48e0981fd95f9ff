"""docs/mixing.md: its commands and its Python run in their order, on fewer drawn images and for one epoch."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from guides import Guide, executed, left, typed

GUIDE = Guide("mixing")


def quick(command: str) -> str:
    """The same on a small network, and on the thirteenth part of the drawn ones."""
    small = command.replace("efficientnet-lite0?size=64", "random/test_efficientnet?size=32").replace("--count 500", "--count 40")
    small = re.sub(r"--epochs \d+", "--epochs 1 --set workers=0", small).replace("--minutes 10", "--epochs 1 --set workers=0")
    return small.replace("real/test", "real/test --limit 40")


def test_its_commands_and_its_python_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    monkeypatch.chdir(tmp_path)
    *drawing, differences = GUIDE.python
    executed(drawing, capsys)
    assert [len(list(Path("real", part).rglob("*.png"))) for part in ("train", "validation", "test")] == [20, 10, 1297]
    for text, name in zip(GUIDE.written_in("yaml"), ("digits.yaml", "both.yaml"), strict=True):
        Path(name).write_text(text)
    assert len(GUIDE.commands) == 10
    for command in GUIDE.commands:
        assert left(command, typed(quick(command), capsys), tmp_path)
    for name in ("real", "drawn", "both", "after"):
        rows = list(csv.DictReader(Path(f"{name}.csv").read_text().splitlines()))
        assert len(rows) == 40 and {f"p_{digit}" for digit in range(10)} <= set(rows[0])
    printed = executed([differences], capsys)
    assert [line.partition(":")[0] for line in printed] == [f"{name}.csv - real.csv" for name in ("drawn", "both", "after")]

"""docs/embed.md: its commands and its Python run, in order, in one folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pictures
from guides import Guide, interpreted, typed
from selfsight.encoders.runtimes import RUNTIMES

GUIDE = Guide("embed")

pytestmark = pytest.mark.usefixtures("one_thread")


def test_its_blocks_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], environment_of: dict[str, str]
) -> None:
    pictures.folder(tmp_path / "photos", 24, labelled=False)
    monkeypatch.chdir(tmp_path)
    assert len(GUIDE.blocks) >= 5
    for language, code in GUIDE.blocks:
        if language == "python":
            interpreted(code, tmp_path, environment_of)
        for line in code.splitlines() if language == "bash" else []:
            typed(line, capsys)
    assert {path.name for path in tmp_path.glob("*.parquet")} == {
        "features.parquet", "small.parquet", "fast.parquet", "python.parquet",
    }  # fmt: skip


def test_it_names_every_runtime() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", GUIDE.text, re.M)) >= set(RUNTIMES)

"""docs/embed.md: its commands and its Python run, in order, in one folder."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import pictures
from selfsight.cli import main
from selfsight.encoders.runtimes import RUNTIMES

GUIDE = (Path(__file__).parent.parent / "docs" / "embed.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```", GUIDE, re.M | re.S)

pytestmark = pytest.mark.usefixtures("one_thread")


def test_its_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment_of: dict[str, str]) -> None:
    pictures.folder(tmp_path / "photos", 24, labelled=False)
    monkeypatch.chdir(tmp_path)
    assert len(BLOCKS) >= 5
    for language, code in BLOCKS:
        if language == "python":
            done = subprocess.run([sys.executable, "-c", code], env=environment_of, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{code}\n{done.stderr}"
            continue
        for line in code.splitlines():
            with pytest.raises(SystemExit) as left:
                main(shlex.split(line)[1:])
            assert left.value.code == 0, line
    assert {path.name for path in tmp_path.glob("*.parquet")} == {
        "features.parquet", "small.parquet", "fast.parquet", "python.parquet",
    }  # fmt: skip


def test_it_names_every_runtime() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", GUIDE, re.M)) >= set(RUNTIMES)

"""docs/export.md: its commands and its Python run, in their order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pictures
from guides import Guide, executed, typed
from selfsight import api
from selfsight.encoders.export import TARGETS

GUIDE = Guide("export")
QUICK = {"batch_size": 8, "workers": 0, "threads": 1}


@pytest.mark.usefixtures("one_thread")
def test_its_commands_and_python_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    pictures.folder(tmp_path / "photos", 16, labelled=False)
    pictures.folder(tmp_path / "labelled", 24, classes=2)
    api.train("photos", "runs/mine", backbone="vit_w32_d1_p8", epochs=1, set=QUICK)
    for language, block in GUIDE.blocks:
        if language == "python":
            executed([block], capsys)
            continue
        for line in block.splitlines():
            assert "largest difference" in typed(line, capsys) or not line.startswith("selfsight export "), line
    assert "| knn |" in Path("exported/scored/README.md").read_text(encoding="utf-8")
    assert {language for language, _ in GUIDE.blocks} == {"bash", "python"}


def test_its_table_has_a_column_for_every_target() -> None:
    assert set(re.findall(r"`(\w+)`", GUIDE.text.split("| network |")[1].splitlines()[0])) == set(TARGETS)

"""docs/export.md: its commands and its Python run, in their order."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import pictures
from selfsight import api
from selfsight.cli import app
from selfsight.encoders.export import TARGETS

GUIDE = (Path(__file__).parent.parent / "docs" / "export.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(bash|python)\n(.*?)^```", GUIDE, re.M | re.S)
QUICK = {"batch_size": 8, "workers": 0, "threads": 1}


@pytest.mark.usefixtures("one_thread")
def test_its_commands_and_python_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    pictures.folder(tmp_path / "photos", 16, labelled=False)
    pictures.folder(tmp_path / "labelled", 24, classes=2)
    api.train("photos", "runs/mine", backbone="vit_w32_d1_p8", epochs=1, set=QUICK)
    for language, block in BLOCKS:
        if language == "python":
            exec(compile(block, "docs/export.md", "exec"), {})
            continue
        for line in block.splitlines():
            program, *words = shlex.split(line)
            assert program == "selfsight"
            app(words, standalone_mode=False)
            assert words[0] != "export" or "largest difference" in capsys.readouterr().out, line
    assert "| knn |" in Path("exported/scored/README.md").read_text(encoding="utf-8")
    assert {language for language, _ in BLOCKS} == {"bash", "python"}


def test_its_table_has_a_column_for_every_target() -> None:
    assert set(re.findall(r"`(\w+)`", GUIDE.split("| network |")[1].splitlines()[0])) == set(TARGETS)

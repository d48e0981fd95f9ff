"""docs/cues.md: its commands run on fewer pictures and for fewer steps, and its Python counts every answer once.

`SELFSIGHT_REDRAW=1` draws its picture anew.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from guides import Guide, executed, shows, typed

GUIDE = Guide("cues")


def test_its_commands_and_its_python_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    monkeypatch.chdir(tmp_path)
    [spec] = GUIDE.written_in("yaml")
    (tmp_path / "cues.yaml").write_text(spec)
    synth, train, compare = GUIDE.commands
    typed(synth.replace("2400", "96") + " --workers 0", capsys)
    with Image.open("cues/sheet.png") as sheet:
        shows("cues.jpg", sheet)
    typed(train.replace("--minutes 10", "--epochs 1 --backbone vit_w32_d1_p8"), capsys)
    # Lite0 is what the page is about; here a network of the same kind that says something at once.
    typed(compare.replace("efficientnet-lite0", "pixels"), capsys)
    lines = executed(GUIDE.python, capsys)
    assert [line.partition(":")[0] for line in lines] == ["pixels", "runs/cues", "runs/cues?weights=init"]
    for line in lines:
        shape, texture, every = (float(number) for number in re.findall(r"[\d.]+(?=,| %|$)", line)[-3:])
        assert every == 24 and shape + texture <= 100.1

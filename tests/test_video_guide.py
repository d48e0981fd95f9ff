"""docs/video.md: its commands and its Python run, one after the other as a reader would type them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

import pictures
from guides import Guide, executed, typed
from moving import film
from selfsight import api

GUIDE = Guide("video")


def test_its_commands_and_its_python_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    moving = film(8)
    moving.file(tmp_path / "clip.mp4")
    moving.folder(tmp_path / "frames")
    shutil.copy(moving.truth(tmp_path / "true") / "00000.png", tmp_path / "first.png")
    pictures.folder(tmp_path / "photos", 12, labelled=False)
    small = {"batch_size": 8, "workers": 0}
    api.train(tmp_path / "photos", tmp_path / "runs/mine", backbone="vit_w32_d1_p8", epochs=1, set=small)
    monkeypatch.chdir(tmp_path)
    assert len(GUIDE.commands) == 2
    printed = [typed(command, capsys) for command in GUIDE.commands]
    assert "J&F " in printed[-1]
    for name in ("followed/masks/00000.png", "followed/overlay.mp4", "measured/scores.json"):
        assert (tmp_path / name).is_file()
    assert executed(GUIDE.python, capsys)[-1] == "True"


def test_its_defaults_are_the_programs() -> None:
    from selfsight.attention.propagation import Rule

    table = dict(re.findall(r"^\| `--(\w+)` \|.*\| (\d+) \|$", GUIDE.text, re.M))
    assert {name: int(value) for name, value in table.items()} == {n: getattr(Rule(), n) for n in ("top", "radius", "context")}

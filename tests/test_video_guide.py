"""docs/video.md: its commands and its Python run, one after the other as a reader would type them."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

import pictures
from moving import film
from selfsight import api
from selfsight.cli import main

GUIDE = (Path(__file__).parent.parent / "docs" / "video.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.M | re.S)


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
    commands = [line for block in blocks("bash") for line in block.splitlines()]
    assert len(commands) == 2
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "selfsight"
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        shown = capsys.readouterr()
        assert not stopped.value.code, f"{command}\n{shown.out}\n{shown.err}"
    assert "J&F " in shown.out
    for name in ("followed/masks/00000.png", "followed/overlay.mp4", "measured/scores.json"):
        assert (tmp_path / name).is_file()
    for code in blocks("python"):
        exec(code, {})
    assert capsys.readouterr().out.splitlines()[-1] == "True"


def test_its_defaults_are_the_programs() -> None:
    from selfsight.attention.propagation import Rule

    table = dict(re.findall(r"^\| `--(\w+)` \|.*\| (\d+) \|$", GUIDE, re.M))
    assert {name: int(value) for name, value in table.items()} == {n: getattr(Rule(), n) for n in ("top", "radius", "context")}

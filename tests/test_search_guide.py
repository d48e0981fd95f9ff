"""docs/search.md: its commands and its Python run, one after the other as a reader would type them."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

import pictures
from selfsight import api
from selfsight.cli import main

GUIDE = (Path(__file__).parent.parent / "docs" / "search.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.M | re.S)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """What the guide speaks of: photos, a labelled set, a test set with a twin in it, a run, two queries."""
    pictures.folder(tmp_path / "photos", 12, labelled=False)
    pictures.folder(tmp_path / "labelled", 12, classes=2)
    pictures.folder(tmp_path / "holdout", 4, classes=2, seed=3)
    twin = next((tmp_path / "labelled").rglob("*.png"))
    shutil.copy(twin, tmp_path / "holdout" / twin.parent.name / "twin.png")
    pictures.noise(tmp_path / "query.png")
    pictures.noise(tmp_path / "another.jpg", seed=1)
    api.train(
        tmp_path / "photos", tmp_path / "runs/mine", backbone="vit_w32_d1_p8", epochs=1, set={"batch_size": 8, "workers": 0}
    )
    return tmp_path


def test_its_commands_and_its_python_run(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    monkeypatch.chdir(place)
    commands = [line for block in blocks("bash") for line in block.splitlines()]
    assert len(commands) >= 8
    printed = {command: _printed(command, capsys) for command in commands}
    assert "index of 12 images from photos-index" in printed[next(line for line in commands if "0005.png" in line)]
    assert "(20.0 %) have a twin in labelled" in printed[next(line for line in commands if "holdout" in line)]
    for name in ("found/results.csv", "found/sheet.png", "twins/pairs.csv", "leak/sheet.png", "photos-index/index.json"):
        assert (place / name).is_file()
    for code in blocks("python"):
        exec(code, {})
    assert capsys.readouterr().out.splitlines()[-1] == "1 20.0"


def _printed(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints; in this process, as each start of another takes seconds."""
    program, *arguments = shlex.split(command)
    assert program == "selfsight"
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    shown = capsys.readouterr()
    assert not stopped.value.code, f"{command}\n{shown.out}\n{shown.err}"
    return shown.out

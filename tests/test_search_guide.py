"""docs/search.md: its commands and its Python run, one after the other as a reader would type them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import pictures
from guides import Guide, executed, typed
from selfsight import api

GUIDE = Guide("search")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """What the guide speaks of: photos, a labelled set, a test set with a twin in it, a run, two queries."""
    pictures.folder(tmp_path / "photos", 12, labelled=False)
    pictures.folder(tmp_path / "labelled", 12, classes=2)
    pictures.folder(tmp_path / "holdout", 4, classes=2, seed=9)  # none of these is as like a labelled one as 0.9
    twin = max((tmp_path / "labelled").rglob("*.png"))
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
    assert len(GUIDE.commands) >= 8
    printed = {command: typed(command, capsys) for command in GUIDE.commands}
    assert "index of 12 images from photos-index" in printed[next(line for line in printed if "0005.png" in line)]
    assert "(20.0 %) have a twin in labelled" in printed[next(line for line in printed if "holdout" in line)]
    for name in ("found/results.csv", "found/sheet.png", "twins/pairs.csv", "leak/sheet.png", "photos-index/index.json"):
        assert (place / name).is_file()
    assert executed(GUIDE.python, capsys)[-1] == "1 20.0"

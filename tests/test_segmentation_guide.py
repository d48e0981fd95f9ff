"""docs/segmentation.md: its commands and its Python run, one after the other as a reader would type them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import annotated
import pictures
from annotated import Scene, Thing
from guides import Guide, executed, typed
from selfsight import api, results
from selfsight.data.annotations import ANNOTATIONS

GUIDE = Guide("segmentation")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """What the guide speaks of: a drawn set, photos with masks, a run."""
    pictures.dataset(tmp_path / "drawn", {"train": 24, "test": 8})
    scenes = [Scene(40, 32, [Thing((4 + n, 6, 24 + n, 26), "cat")]) for n in range(4)]
    images, masks = annotated.png(tmp_path, scenes)
    assert masks == tmp_path / "masks"
    images.rename(tmp_path / "photos")
    settings = {"batch_size": 8, "workers": 0}
    api.train(tmp_path / "drawn" / "train", tmp_path / "runs/mine", backbone="vit_w32_d1_p8", epochs=1, set=settings)
    return tmp_path


def test_its_commands_and_its_python_run(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    monkeypatch.chdir(place)
    assert len(GUIDE.commands) == 3
    for command in GUIDE.commands:
        typed(command, capsys)
    looked = results.read("looked").segmentation
    assert looked is not None and looked.n == 8
    runs = "runs/mine"
    pairs = {(d.a, d.b) for d in looked.differences}
    assert pairs == {
        *((floor, encoder) for floor in ("centred box", "whole picture") for encoder in ("efficientnet-lite0", runs)),
        ("efficientnet-lite0", runs),
        ("efficientnet-lite0", f"{runs}?weights=init"),
        (f"{runs}?weights=init", runs),
    }
    assert "(attention, Jaccard" in Path("looked/report.html").read_text(encoding="utf-8")
    said = executed(GUIDE.python, capsys)
    assert re.fullmatch(r"runs/mine: \d+ % \(\d+ to \d+, 4 pictures\)", said[0])
    assert said[-1] == "whole picture: 31 % (31 to 31, 4 pictures)"


def test_the_table_of_masks_tells_of_every_format() -> None:
    table = GUIDE.text.split("## Where masks come from")[1].split("##")[0].lower()
    words = {"drawn": "drawn set", "voc": "segmentationobject", "coco": "coco", "alpha": "`alpha`", "png": "png masks"}
    assert words.keys() == ANNOTATIONS.keys()
    assert [name for name, word in words.items() if word not in table] == []

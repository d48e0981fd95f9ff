"""docs/places.md: its models are written and its specs drawn by Blender as a reader would do it, and its pictures are of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blenders import needs_blender
from guides import Guide, executed, shows, typed
from selfsight import manifest

GUIDE = Guide("places")
ACROSS, SIDE, GAP = 6, 144, 6


@needs_blender
def test_blender_draws_parts_in_a_tray_and_products_on_a_shelf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    """`SELFSIGHT_REDRAW=1` draws its pictures anew."""
    monkeypatch.chdir(tmp_path)
    bracket, told, bottle = GUIDE.python
    for name, spec in zip(("tray", "shelf"), GUIDE.written_in("yaml"), strict=True):
        (tmp_path / f"{name}.yaml").write_text(spec)
    executed([bracket, bottle], capsys)
    for command, name in zip(GUIDE.commands, ("tray", "shelf"), strict=True):
        typed(f"{command} --workers 0", capsys)
        assert all(np.isfinite(part["pose"]).all() for part in manifest.read(name).objects)
    counted, hidden = executed([told], capsys)
    assert "'bracket'" in counted and hidden.startswith("least seen: a ")
    for name in ("tray", "shelf"):
        shows(f"places_{name}.jpg", montage(Path(name)))
    coco = json.loads(Path("tray-coco/annotations/instances_train.json").read_text())
    parts = [part for part in manifest.read("tray").objects if part["sample"].startswith("train/")]
    assert len(coco["annotations"]) == sum(part["w"] > 0 for part in parts)
    in_tray(manifest.read("tray"))


def in_tray(content: manifest.Manifest) -> None:
    """Every part lies in the tray, whose inner side is 0.8 metres."""
    cameras = {row["key"]: np.reshape(row["camera"]["pose"], (4, 4)) for row in content.samples}
    middles = [(cameras[part["sample"]] @ np.reshape(part["pose"], (4, 4)))[:3, 3] for part in content.objects]
    assert np.abs(np.array(middles)[:, :2]).max() < 0.4 and len(middles) > 40


def montage(folder: Path) -> Image.Image:
    """Six pictures of training; below, three of the test and the same three under the shift."""
    rows = manifest.read(folder).samples
    train, test, shift = ([row for row in rows if row["split"].startswith(split)] for split in ("train", "test", "shift"))
    shown = [*train[:ACROSS], *test[: ACROSS // 2], *shift[: ACROSS // 2]]
    sheet = Image.new("RGB", (ACROSS * (SIDE + GAP) - GAP, 2 * SIDE + GAP), "white")
    for place, row in enumerate(shown):
        picture = Image.open(folder / row["path"]).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        sheet.paste(picture, (place % ACROSS * (SIDE + GAP), place // ACROSS * (SIDE + GAP)))
    return sheet

"""docs/objects.md: its commands and its Python run, one after the other as a reader would type them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from guides import Guide, executed, typed
from selfsight import api
from selfsight.attention.objects import FINDERS
from selfsight.attention.objects.files import FORMS

GUIDE = Guide("objects")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """What the guide speaks of: photos (soft noise of three shapes), and a run."""
    draw = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(8):
        noise = draw.standard_normal((64, (64, 80, 96)[number % 3], 3))
        soft = ndimage.gaussian_filter(noise, (6, 6, 0)) * 900 + 128
        Image.fromarray(soft.clip(0, 255).astype(np.uint8)).save(tmp_path / "photos" / f"{number:04d}.jpg")
    settings = {"batch_size": 4, "workers": 0}
    api.train(tmp_path / "photos", tmp_path / "runs/mine", backbone="vit_w32_d1_p8", epochs=1, set=settings)
    return tmp_path


def test_its_commands_and_its_python_run(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    monkeypatch.chdir(place)
    assert len(GUIDE.commands) >= 7
    for command in GUIDE.commands:
        assert "objects in 8 images" in typed(command, capsys).splitlines()[-1]
    assert {"id", "image_id", "category_id", "segmentation", "bbox", "area", "score", "iscrowd"} == set(
        json.loads(Path("objects.json").read_text())["annotations"][0]
    )
    for name in ("sheet.png", "detect/data.yaml", "segment/labels/0000.txt", "segment/images/0000.jpg", "masks/0000.png"):
        assert (place / name).is_file(), name
    first, second = executed(GUIDE.python, capsys)
    assert first == "8 images, True"
    assert re.fullmatch(r"\(10, 10\) \(10, 10\) Box\(left=\d+, top=\d+, right=\d+, bottom=\d+\)", second)


def test_its_tables_name_every_method_and_form() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", GUIDE.text, re.M)) == set(FINDERS)
    assert all(f"`{form}`" in GUIDE.text for form in FORMS if form != "coco")

"""docs/attention.md: its commands and its Python run, and its pictures are what the program draws.

`SELFSIGHT_REDRAW=1` writes the pictures anew in place of comparing them.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

import films
import pictures
from guides import DOCS, Guide, executed, typed
from selfsight import api
from selfsight.models.backbones import BackboneSettings, build_backbone

GUIDE = Guide("attention")
ASSETS = Path(__file__).parent / "assets"
SMALL = "vit_w64_d3_p8_conv"
PLANTED = f"file/planted.pth?arch={SMALL}&size=160"
TRAINED = f"file/demo.safetensors?arch={SMALL}&size=160"
"""What `selfsight demo` left on two cores in three minutes: the backbone of its teacher in half precision, kept in assets/."""
PICTURES: dict[str, dict[str, Any]] = {
    "trained": {"encoder": TRAINED, "maps": "attention,heads,mask", "mass": 0.8, "rows": 3},
    "untrained": {"encoder": f"random/{SMALL}?size=160", "maps": "attention,heads,mask", "mass": 0.8, "rows": 2},
    "components": {"encoder": "efficientnet-lite0", "maps": "pca,component", "size": 320, "rows": 3},
    "outliers": {"encoder": PLANTED, "maps": "attention,pca,norm", "rows": 1},
    "mended": {"encoder": PLANTED, "maps": "attention,pca,norm", "rows": 1, "registers": "auto"},
}
"""How each picture of the guide is made from drawn images: a sheet of its own."""
COLOURS = 160
ALLOWANCE = 300_000
"""Bytes of all pictures together."""
MEAN, FAR = 1.5, 16
"""How far, of 255, a picture may be from what is drawn now: in the mean, and in all but a thousandth of its area."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """What the guide speaks of: an image, photos, a clip, a run."""
    pictures.folder(tmp_path / "photos", 6, labelled=False, size=48)
    first = next((tmp_path / "photos").iterdir())
    first.rename(tmp_path / "photo.png")
    films.film(tmp_path / "clip.mp4", 8)
    api.train(
        tmp_path / "photos", tmp_path / "runs/mine", backbone="vit_w32_d1_p8", epochs=1, set={"batch_size": 4, "workers": 0}
    )
    return tmp_path


def test_its_commands_and_its_python_run(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    monkeypatch.chdir(place)
    assert len(GUIDE.commands) >= 8
    for command in GUIDE.commands:
        typed(command, capsys)
    for name in ("seen/sheet.png", "maps/pictures.jsonl", "film/films/clip.mp4.mp4", "gif/films/clip.mp4.gif"):
        assert (place / name).is_file()
    assert executed(GUIDE.python, capsys) == ["1 True", "True"]


def test_its_table_has_every_map() -> None:
    from selfsight.attention.kinds import MAPS

    table = GUIDE.text.split("## The maps")[1].split("##")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.M)) == set(MAPS)


def test_its_pictures_are_what_the_program_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    monkeypatch.chdir(tmp_path)
    Path("drawn").mkdir()
    for number in range(3):
        pictures.drawn(7, number, 640).image.reduce(4).save(f"drawn/{number}.png")  # without its grain
    shutil.copy(ASSETS / "demo.safetensors", "demo.safetensors")
    planted_network(Path("planted.pth"))
    for name, given in PICTURES.items():
        api.attend(input="drawn", out=name, format="sheet", limit=3 if given["rows"] > 1 else 1, **given)
        kept = DOCS / "pictures" / f"{name}.png"
        with Image.open(Path(name) / "sheet.png") as sheet:
            if os.environ.get("SELFSIGHT_REDRAW"):
                kept.parent.mkdir(exist_ok=True)
                sheet.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=4, dither=Image.Dither.NONE).save(kept, optimize=True)
            with Image.open(kept) as stored:
                assert stored.size == sheet.size, name
                difference = np.abs(coarse(stored) - coarse(sheet))
        assert difference.mean() < MEAN, name
        assert np.percentile(difference, 99.9) < FAR, name


def test_a_picture_that_has_changed_would_be_seen() -> None:
    """The two pictures that differ least differ by far more than is let pass."""
    with Image.open(DOCS / "pictures/outliers.png") as one, Image.open(DOCS / "pictures/mended.png") as other:
        difference = np.abs(coarse(one) - coarse(other))
    assert difference.mean() > 2 * MEAN
    assert np.percentile(difference, 99.9) > 4 * FAR


def planted_network(path: Path) -> None:
    """A small ViT of which one token, up and right of the middle, is far longer than others and draws the attention of CLS."""
    torch.manual_seed(50)
    net = build_backbone(BackboneSettings(name=SMALL, image_size=160)).net
    with torch.no_grad():
        net.blocks[-1].attn.qkv.weight[:128] *= 4.5  # type: ignore[index, union-attr, operator]
        net.pos_embed[:, 1 + 6 * 20 + 13] += 12 * torch.sign(torch.randn(64))  # type: ignore[operator, index]
    torch.save(net.state_dict(), path)


def coarse(image: Image.Image) -> npt.NDArray[np.float32]:
    """Without the grain, which fewer colours change, and the last bits, which another processor does."""
    small = image.convert("RGB").resize((image.width // 6, image.height // 6), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32)


def test_all_its_pictures_are_there_and_small() -> None:
    shown = set(re.findall(r"\(pictures/([\w-]+)\.png\)", GUIDE.text))
    assert shown == set(PICTURES)
    assert sum((DOCS / "pictures" / f"{name}.png").stat().st_size for name in shown) < ALLOWANCE

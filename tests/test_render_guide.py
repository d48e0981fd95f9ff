"""docs/render.md: its spec is drawn by Blender as a reader would do it, and its pictures are what comes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blenders import needs_blender
from guides import Guide, executed, shows, typed
from selfsight import manifest

GUIDE = Guide("render")
SHOWN = 8


@needs_blender
def test_blender_draws_its_spec_and_its_pictures_are_what_comes_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    """`SELFSIGHT_REDRAW=1` draws them anew."""
    monkeypatch.chdir(tmp_path)
    spec, _, _ = GUIDE.written_in("yaml")
    (tmp_path / "suzanne.yaml").write_text(spec)
    _, drawn, _ = GUIDE.commands
    assert "done: suzanne, 24 pictures" in typed(f"{drawn} --workers 1", capsys)
    assert executed(GUIDE.python, capsys) == ["(96, 96) float32 133.3"]
    with Image.open("suzanne/sheet.png") as sheet:
        shows("render.jpg", sheet)
    shows("render_labels.png", labels(Path("suzanne")))


@needs_blender
def test_its_poses_are_exported_as_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    monkeypatch.chdir(tmp_path)
    _, spec, _ = GUIDE.written_in("yaml")
    (tmp_path / "bench.yaml").write_text(spec)
    typed(f"{GUIDE.commands[2]} --workers 0", capsys)
    told = {path.relative_to("bench-bop").as_posix() for path in Path("bench-bop").glob("*")}
    assert told == {"train", "test", "models", "camera.json", "test_targets_bop19.json"}
    scene = {path.name for path in Path("bench-bop/train/000000").iterdir()}
    assert scene == {"rgb", "depth", "mask", "mask_visib", "scene_camera.json", "scene_gt.json", "scene_gt_info.json"}
    models = {path.name for path in Path("bench-bop/models").iterdir()}
    assert models == {"obj_000001.ply", "obj_000002.ply", "models_info.json", "names.json"}
    assert len(list(Path("bench-bop/train/000000/rgb").iterdir())) == 6


def labels(folder: Path) -> Image.Image:
    """Rows of colours, numbers of objects, depth and normals."""
    columns = []
    for row in manifest.read(folder).samples[:SHOWN]:
        colours, numbers = (np.asarray(Image.open(folder / row[what])) for what in ("path", "instances"))
        depth, normals = (np.load(folder / row[what])[what] for what in ("depth", "normals"))
        near, far = depth.min(), depth[np.isfinite(depth)].max()
        grey = np.where(np.isfinite(depth), 255 * (far - depth) / (far - near), 0).astype(np.uint8)
        parts = [colours, (numbers > 0).astype(np.uint8) * 255, grey, ((normals.astype(float) + 1) * 127.5).astype(np.uint8)]
        columns.append(np.vstack([part if part.ndim == 3 else np.repeat(part[..., None], 3, 2) for part in parts]))
    return Image.fromarray(np.hstack(columns))

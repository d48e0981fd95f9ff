"""A network that was trained without labels looks at things, and an untrained one does not: measured against drawn masks."""

from __future__ import annotations

from pathlib import Path

import pytest

import pictures
from selfsight import api
from selfsight.walkthrough import SETTINGS

ASSETS = Path(__file__).parent / "assets"
SMALL, SIZE = "vit_w64_d3_p8_conv", 48


def test_the_demo_left_a_network_that_looks_at_things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    """The backbone that 16 epochs of the demo's training left (seed 0), on pictures that it has not seen, beside the CNN."""
    monkeypatch.chdir(tmp_path)
    pictures.dataset(Path("drawn"), {"train": 80, "test": 16}, 11, SIZE)
    trained = f"file/{ASSETS / 'demo.safetensors'}?arch={SMALL}&size={SIZE}"
    untrained = f"random/{SMALL}?size={SIZE}"
    encoders = ["efficientnet-lite0", untrained, trained]
    found = api.compare("drawn/train", encoders, "out", test="drawn/test", tasks=["knn", "segmentation"])
    looked = found.segmentation
    assert looked is not None
    scores = {(each.encoder, each.method, each.metric): each for each in looked.scores}
    for measure in ("jaccard_60", "jaccard_80"):
        reached = scores[trained, "heads", measure]
        assert reached.low > scores[untrained, "heads", measure].high + 15, measure
        assert reached.low > scores["whole picture", "floor", measure].high + 15, measure
    page = Path("out/report.html").read_text(encoding="utf-8")
    shown = page.split("What they look at")[-1]
    assert all(spec.replace("&", "&amp;") in shown for spec in encoders)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_minute_of_training_teaches_to_look_at_things(tmp_path: Path) -> None:
    pictures.dataset(tmp_path / "drawn", {"train": 3000, "test": 160}, 5, SIZE)
    run = tmp_path / "run"
    api.train(tmp_path / "drawn/train", run, epochs=8, seed=5, set=SETTINGS)
    untrained = f"{run}?weights=init"
    encoders, tasks = [str(run), untrained], ["knn", "segmentation"]
    found = api.compare(tmp_path / "drawn/train", encoders, tmp_path / "out", test=tmp_path / "drawn/test", tasks=tasks)
    looked = found.segmentation
    assert looked is not None
    above = {each.metric: each for each in looked.differences if each.method_b == "heads" and each.b == str(run)}
    assert above["jaccard_60"].low > 0
    assert above["jaccard_80"].low > 0

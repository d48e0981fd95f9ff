"""The demo: on drawn images with a verdict, on a user's unlabelled folder with advice instead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import pictures
from selfsight import manifest, walkthrough
from selfsight.api import synth
from selfsight.errors import InputError
from selfsight.synthesis.loading import load_spec
from selfsight.synthesis.specs import DEMO


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSIGHT_CACHE", str(tmp_path / "cache"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_demo_draws_trains_compares_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter than `make demo`, with the same parts; running it again replaces what it made."""
    monkeypatch.setattr(walkthrough, "COUNT", 240)
    for _ in range(2):
        made = walkthrough.demo(out=tmp_path / "demo", minutes=0.1, seed=5)
    verdict = made.results.verdict
    assert verdict is not None
    assert (verdict.incumbent, verdict.challenger) == ("efficientnet-lite0", str(tmp_path / "demo" / "run"))
    assert [e.role for e in made.results.encoders] == ["incumbent", "challenger", "floor", "floor"]
    copies = [c for c in made.results.comparisons if c.a == f"{made.run}?weights=init"]
    assert [(c.b, c.task) for c in copies] == [(str(made.run), "knn"), (str(made.run), "linear")]
    looked = made.results.segmentation
    assert looked is not None and looked.n == 60
    assert [d.method_b for d in looked.differences if (d.a, d.b) == (f"{made.run}?weights=init", str(made.run))][:2] == [
        "attention"
    ] * 2
    drawn = manifest.read(tmp_path / "demo" / "images")
    assert len(drawn.samples) == len(drawn.objects) == 300
    assert load_spec(tmp_path / "demo" / walkthrough.SPEC) == load_spec(DEMO)
    page = made.report.read_text(encoding="utf-8")
    assert "efficientnet-lite0" in page
    assert "minutes on a few cores" in page


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_demo_on_an_unlabelled_folder_ends_in_advice_what_to_label(tmp_path: Path) -> None:
    data = pictures.folder(tmp_path / "mine", 60, labelled=False)
    made = walkthrough.demo(data, tmp_path / "demo", minutes=0.1)
    assert made.results.verdict is None
    assert made.results.labelling is not None
    assert made.results.labelling.count == 60
    at = tmp_path / "demo" / "results" / "assets"
    assert {"neighbours.json", "map.parquet", "curves.json", "thumbs.parquet"} <= {p.name for p in at.iterdir()}
    shown = {row["encoder"] for row in pq.read_table(at / "map.parquet").to_pylist()}
    assert shown == {"efficientnet-lite0", str(made.run)}
    page = made.report.read_text(encoding="utf-8")
    assert "label" in page
    assert page.count('"/9j/') >= 60  # every picture is there, as base64 of a JPEG


def test_demo_leaves_a_folder_alone_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("three years")
    with pytest.raises(InputError, match="not of a demo"):
        walkthrough.demo(out=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_demo_does_not_train_on_images_that_it_would_replace(tmp_path: Path) -> None:
    data = pictures.folder(tmp_path / "demo" / "images", 8, labelled=False)
    with pytest.raises(InputError, match="which the demo replaces"):
        walkthrough.demo(data, tmp_path / "demo")
    assert len(list(data.iterdir())) == 8


def test_its_pictures_tell_of_their_class_by_the_pattern_alone() -> None:
    """Grey and evenly exposed, and no class is brighter, of more contrast or of other shapes: training would learn that first."""
    mean, deviation, share = (np.zeros((len(pictures.CLASSES), 20)) for _ in range(3))
    for number, index in np.ndindex(*mean.shape):
        thing = pictures.drawn(0, len(pictures.CLASSES) * index + number, noise=0)
        pixels = np.asarray(thing.image, dtype=float)
        assert thing.name == pictures.CLASSES[number]
        assert np.array_equal(pixels, pixels[..., :1].repeat(3, -1))
        assert pixels.mean() == pytest.approx(127.5, abs=1)
        on = pixels[thing.mask]
        mean[number, index], deviation[number, index], share[number, index] = on.mean(), on.std(), thing.mask.mean()
    assert np.ptp(mean.mean(1)) < 5
    assert np.ptp(deviation.mean(1)) < 0.15 * deviation.mean()
    assert 0.25 < share.mean() < 0.4
    spec = load_spec(DEMO)
    assert {about.assets for about in spec.classes.values()} == {spec.classes["dots"].assets}
    assert [set(about.factors) for about in spec.classes.values()] == [{"texture"}] * 8


def test_the_splits_that_its_spec_proposes_can_be_drawn(tmp_path: Path) -> None:
    text = DEMO.read_text(encoding="utf-8")
    assert text.count("# shift: ") == 1
    (tmp_path / "more.yaml").write_text(text.replace("# shift: ", "shift: "))
    made = synth(tmp_path / "more.yaml", tmp_path / "more", count=8, workers=0)
    assert made["splits"] == {
        "train": 8,
        "test": 2,
        "shift.size.small": 2,
        "shift.texture_contrast.faint": 2,
        "shift.rotation": 2,
    }

"""The demo: on drawn images with a verdict, on a user's unlabelled folder with advice instead."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

import pictures
from selfsight import manifest, walkthrough
from selfsight.errors import InputError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSIGHT_CACHE", str(tmp_path / "cache"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_demo_draws_trains_compares_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter than `make demo`, with the same parts; running it again replaces what it made."""
    monkeypatch.setattr(walkthrough, "COUNTS", {"train": 240, "test": 80})
    for _ in range(2):
        made = walkthrough.demo(out=tmp_path / "demo", minutes=0.1, seed=5)
    verdict = made.results.verdict
    assert verdict is not None
    assert (verdict.incumbent, verdict.challenger) == ("efficientnet-lite0", str(tmp_path / "demo" / "run"))
    assert [e.role for e in made.results.encoders] == ["incumbent", "challenger", "floor", "floor"]
    copies = [c for c in made.results.comparisons if c.a == f"{made.run}?weights=init"]
    assert [(c.b, c.task) for c in copies] == [(str(made.run), "knn"), (str(made.run), "linear")]
    looked = made.results.segmentation
    assert looked is not None and looked.n == 80
    assert [d.method_b for d in looked.differences if (d.a, d.b) == (f"{made.run}?weights=init", str(made.run))][:2] == [
        "attention"
    ] * 2
    drawn = manifest.read(tmp_path / "demo" / "images")
    assert len(drawn.samples) == len(drawn.objects) == 320
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

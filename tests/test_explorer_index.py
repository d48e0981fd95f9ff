"""What the page searches in: an index that is kept, goes on after an interruption, and finds what an exact search finds."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

import pictures
from selfsight import metrics
from selfsight.attention.seeing import Eyes
from selfsight.cli import main
from selfsight.data.decode import decode
from selfsight.data.sources import open_source
from selfsight.encoders import load_encoder
from selfsight.errors import InputError, SelfsightError
from selfsight.explorer.indexing import Reading, indexed
from selfsight.explorer.places import Places, filled, trained
from selfsight.runs import alone

VIT = "random/vit_w32_d2_p8_h2?size=32"


def reading(said: list[str]) -> Reading:
    return Reading(torch.device("cpu"), 0, lambda what, done, total: said.append(f"{done}/{total}"), said.append)


def test_an_interrupted_index_goes_on_and_a_whole_one_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(pictures.folder(tmp_path / "photos", 40, labelled=False))
    eyes = Eyes(load_encoder(VIT))
    said: list[str] = []

    def stop(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        indexed(eyes, source, reading(said)._replace(progress=stop))
    first = indexed(eyes, source, reading(said))
    assert said == [f"{VIT}: 16 of 40 images were indexed before", "32/40", "40/40"]
    again = indexed(eyes, source, reading(said))
    assert said[3].startswith(f"{VIT}: index of 40 images from ")
    assert len(first.places) == len(again.places) == 40
    vector = eyes(decode(source.image_bytes(7))).patches[5]
    assert first.places.like_place(vector, 5) == again.places.like_place(vector, 5)
    assert first.places.like_place(vector, 1)[0][:2] == (7, (1, 1))
    monkeypatch.setenv("SELFSIGHT_CACHE", str(tmp_path / "elsewhere"))
    at_once = indexed(eyes, source, reading([]))
    np.testing.assert_array_equal(
        faiss.vector_to_array(first.places.engine.codes), faiss.vector_to_array(at_once.places.engine.codes)
    )
    np.testing.assert_array_equal(first.places.summaries, at_once.places.summaries)


def test_a_damaged_part_and_a_changed_image_are_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSIGHT_CACHE", str(tmp_path / "cache"))
    folder = pictures.folder(tmp_path / "photos", 20, labelled=False)
    eyes = Eyes(load_encoder(VIT))
    said: list[str] = []
    indexed(eyes, open_source(folder), reading(said))
    (part,) = tmp_path.rglob("part-000001.safetensors")
    part.write_bytes(part.read_bytes()[:50])
    said.clear()
    indexed(eyes, open_source(folder), reading(said))
    assert said == [f"{VIT}: 16 of 20 images were indexed before", "20/20"]
    pictures.noise(folder / "0003.png")
    said.clear()
    found = indexed(eyes, open_source(folder), reading(said))
    assert said == ["20/20"]  # all of it, in one go as the shapes differ
    assert not part.exists()
    assert found.places.grids[3].tolist() == [4, 6]


def test_one_process_at_a_time_indexes_a_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSIGHT_CACHE", str(tmp_path / "cache"))
    source = open_source(pictures.folder(tmp_path / "photos", 3, labelled=False))
    eyes = Eyes(load_encoder(VIT))
    indexed(eyes, source, reading([]))
    (folder,) = (tmp_path / "cache" / "explore").glob("*/*")
    with alone(folder), pytest.raises(InputError, match=rf"photos: another process is indexing it for {re.escape(VIT)}; wait"):
        indexed(eyes, source, reading([]))
    assert len(indexed(eyes, source, reading([])).places) == 3


def test_features_that_are_no_numbers_are_told_and_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSIGHT_CACHE", str(tmp_path / "cache"))
    encoder = load_encoder(f"{VIT}&std=1e-38,1,1")
    source = open_source(pictures.folder(tmp_path / "photos", 3, labelled=False))
    with pytest.raises(SelfsightError, match="its features are not finite numbers"):
        indexed(Eyes(encoder), source, reading([]))
    assert list(tmp_path.rglob("part-*")) == []


@pytest.mark.parametrize("spread", [0.02, 1.0])
def test_eight_bits_find_what_all_of_them_find(spread: float) -> None:
    """Features with dimensions of very different sizes, some of them beyond what the codes were learnt from."""
    draw = np.random.default_rng(0)
    scale = draw.gamma(0.5, 1, 64).astype(np.float32)
    centres = draw.standard_normal((40, 64))
    vectors = (centres[draw.integers(0, 40, 6000)] + spread * draw.standard_normal((6000, 64))).astype(np.float32) * scale
    unit = metrics.normalize(vectors)
    engine = trained(unit[:600])
    grids = np.array([[5, 4], [4, 10]] * 100)
    places = Places(filled(engine, engine.sa_encode(unit)), grids, unit[:200])
    best = np.maximum.reduceat(unit @ unit[::600].T, places.starts[:-1])
    shares = []
    for column, query in enumerate(unit[::600]):
        found = places.like_place(query, 10)
        assert len({near.image for near in found}) == 10
        exact = set(np.argsort(-best[:, column])[:10].tolist())
        level = np.sort(best[:, column])[-10]
        shares.append(np.mean([near.image in exact or best[near.image, column] > level - 0.004 for near in found]))
        assert max(abs(near.similarity - best[near.image, column]) for near in found) < 0.012
    assert np.mean(shares) > 0.97


def test_images_in_the_order_of_their_kinds_are_found_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blank images come first: their features alone do not tell how far those of the others reach."""
    monkeypatch.setenv("SELFSIGHT_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "photos"
    data.mkdir()
    for number in range(160):
        grey = np.full((32, 32, 3), 128 + number % 4, dtype=np.uint8)
        image = Image.fromarray(grey) if number < 80 else pictures.drawn(0, number, 32).image
        image.save(data / f"{number:04d}.png")
    source = open_source(data)
    eyes = Eyes(load_encoder(VIT))
    places = indexed(eyes, source, reading([])).places
    exact = metrics.normalize(np.concatenate([eyes(decode(source.image_bytes(index))).patches for index in range(160)]))
    first = trained(exact[: 16 * 16])
    learnt_at_first = Places(filled(first, first.sa_encode(exact)), places.grids, places.summaries)
    queries = exact[80 * 16 :: 37]
    assert recall(places, exact, queries) > 0.95
    assert recall(learnt_at_first, exact, queries) < 0.6


def recall(places: Places, exact: npt.NDArray[np.float32], queries: npt.NDArray[np.float32]) -> float:
    """Of the ten images found for each query, which share is among the ten most alike, or behind them by a thousandth at most."""
    best = np.maximum.reduceat(exact @ queries.T, places.starts[:-1])
    shares = []
    for column, query in enumerate(queries):
        level = np.sort(best[:, column])[-10] - 0.001
        shares.append(np.mean([best[near.image, column] >= level for near in places.like_place(query, 10)]))
    return float(np.mean(shares))


def test_many_alike_places_of_one_image_do_not_hide_the_others() -> None:
    """An image of one colour has more places like the point than are asked for at first."""
    vectors = np.concatenate([np.tile([[1.0, 0.0]], (900, 1)), np.array([[0.9, 0.1], [0.5, 0.5], [0.0, 1.0]])]).astype(np.float32)
    unit = metrics.normalize(vectors)
    engine = trained(unit)
    places = Places(filled(engine, engine.sa_encode(unit)), np.array([[30, 30], [1, 1], [1, 1], [1, 1]]), unit[:4])
    assert [near.image for near in places.like_place(unit[0], 3)] == [0, 1, 2]
    assert [near.image for near in places.like_place(unit[0], 3, without=0)] == [1, 2, 3]


def test_who_stops_it_while_it_indexes_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SELFSIGHT_CACHE", str(tmp_path / "cache"))
    data = pictures.folder(tmp_path / "photos", 600, labelled=False, size=8)

    def stop() -> None:
        while not list(tmp_path.rglob("part-000001.safetensors")):
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(sys, "argv", ["selfsight", "explore", VIT, str(data)])
    waiting = threading.Thread(target=stop)
    waiting.start()
    with pytest.raises(SystemExit) as left:
        main(["explore", VIT, str(data)])
    waiting.join()
    assert left.value.code == 130
    assert "stopped by SIGINT; what was indexed is kept: go on with: selfsight explore " in capsys.readouterr().err
    assert 2 <= len(list(tmp_path.rglob("part-*.safetensors"))) < 38

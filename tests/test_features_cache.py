"""Features are computed once, and never from anything else than what they are kept for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from encoder_files import VIT, folder_of_pictures
from selfsight.data.sources import BadImage, Subset, open_source
from selfsight.encoders import Encoder, extract, load_encoder
from selfsight.errors import DataError, SelfsightError

SPEC = f"random/{VIT}?size=32"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.set_num_threads(1)
    monkeypatch.setenv("SELFSIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return folder_of_pictures(tmp_path / "images")


@pytest.fixture
def encoder() -> Encoder:
    return load_encoder(SPEC)


def test_the_second_time_comes_from_the_cache(images: Path, encoder: Encoder, cache: Path) -> None:
    source = open_source(images)
    first = extract(encoder, source, device="cpu", batch_size=2)
    second = extract(load_encoder(SPEC), source, device="cpu")
    assert (first.cached, second.cached) == (False, True)
    assert first.images_per_second is not None and first.images_per_second > 0
    assert second.images_per_second is None
    assert first.vectors.shape == (5, 32)
    assert first.vectors.dtype == np.float32
    assert first.indices.dtype == np.int64
    np.testing.assert_array_equal(first.vectors, second.vectors)
    np.testing.assert_array_equal(second.indices, np.arange(5))
    assert len(list(cache.iterdir())) == 1


def test_vectors_are_those_of_the_encoder_whatever_the_batch_and_workers(images: Path, encoder: Encoder) -> None:
    source = open_source(images)
    one = extract(encoder, source, device="cpu", batch_size=1, cache=False)
    many = extract(encoder, source, device="cpu", batch_size=64, workers=1, cache=False)
    assert not many.cached
    np.testing.assert_allclose(one.vectors, many.vectors, atol=1e-5)


def test_another_image_encoder_or_order_is_another_entry(images: Path, encoder: Encoder) -> None:
    source = open_source(images)
    extract(encoder, source, device="cpu")
    assert not extract(load_encoder(SPEC + "&seed=1"), source, device="cpu").cached
    assert not extract(load_encoder(SPEC + "&pool=mean"), source, device="cpu").cached
    turned = extract(encoder, Subset(source, np.arange(5)[::-1].copy()), device="cpu")
    assert not turned.cached
    (images / "0.png").write_bytes((images / "1.png").read_bytes())
    changed = extract(encoder, open_source(images), device="cpu")
    assert not changed.cached
    np.testing.assert_array_equal(changed.vectors[0], changed.vectors[1])


def test_bad_images_are_left_out_reported_and_kept_so(images: Path, encoder: Encoder) -> None:
    (images / "1.png").write_bytes(b"no image")
    for cached in (False, True):
        features = extract(encoder, open_source(images), device="cpu", batch_size=2)
        assert features.cached == cached
        assert features.indices.tolist() == [0, 2, 3, 4]
        assert features.vectors.shape == (4, 32)
        assert features.bad == [BadImage("1.png", "no known image format")]


def test_no_good_image_at_all(images: Path, encoder: Encoder) -> None:
    for path in images.iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"not one of 5 images can be read; first: 0.png: no known image format"):
        extract(encoder, open_source(images), device="cpu")


@pytest.mark.parametrize("damage", ["cut", "empty", "foreign", "flipped"])
def test_a_damaged_entry_is_made_again(images: Path, encoder: Encoder, cache: Path, damage: str) -> None:
    source = open_source(images)
    whole = extract(encoder, source, device="cpu")
    (entry,) = cache.iterdir()
    data = entry.read_bytes()
    flipped = data[:-40] + bytes([data[-40] ^ 0x40]) + data[-39:]
    entry.write_bytes({"cut": data[:-30], "empty": b"", "foreign": b"hello" * 50, "flipped": flipped}[damage])
    remarks: list[str] = []
    again = extract(encoder, source, device="cpu", progress=lambda done, total, remark: remarks.append(remark))
    assert not again.cached
    assert any(remark.startswith("kept features are damaged and made again") for remark in remarks)
    np.testing.assert_array_equal(again.vectors, whole.vectors)
    assert extract(encoder, source, device="cpu").cached


def test_a_cache_that_cannot_be_written_is_remarked_and_no_more(
    images: Path, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SELFSIGHT_CACHE", str(tmp_path / "file" / "below"))
    remarks: list[str] = []
    features = extract(encoder, open_source(images), device="cpu", progress=lambda done, total, remark: remarks.append(remark))
    assert len(features.vectors) == 5
    assert any("features not kept" in remark and "cannot be written" in remark for remark in remarks)


def test_progress_counts_to_the_end(images: Path, encoder: Encoder) -> None:
    calls: list[tuple[int, int]] = []
    extract(
        encoder, open_source(images), device="cpu", batch_size=2, progress=lambda done, total, remark: calls.append((done, total))
    )
    assert calls == [(2, 5), (4, 5), (5, 5)]


def test_a_feature_that_is_no_number_names_its_image(
    images: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    def broken(batch: Tensor) -> Tensor:
        return torch.tensor([[1.0], [float("nan")]])[: len(batch)]

    monkeypatch.setattr(encoder, "encode", broken)
    with pytest.raises(SelfsightError, match=r"features of '1.png' are not finite numbers"):
        extract(encoder, open_source(images), device="cpu", batch_size=2)
    assert not cache.exists()

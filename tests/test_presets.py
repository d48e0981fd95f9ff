"""Presets: the published numbers, and that a domain changes what it says and nothing else."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from scipy import stats

import pictures
from selfsight.data.decode import DecodeSettings
from selfsight.data.multicrop import finish_views, plan_views
from selfsight.data.opening import open_image
from selfsight.data.presets import DOMAINS, PUBLISHED, domain_changes, for_domain, small
from selfsight.data.views import Photometry, ViewSettings, draw_photometry, view_uniforms
from selfsight.errors import ConfigError


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def drawn(settings: ViewSettings, view: int, count: int = 4000) -> Photometry:
    return draw_photometry(view_uniforms(0, 0, range(count), 0, view), view, settings)


# --- published settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "globals_", "locals_", "flip", "blur"),
    [
        ("dino", (224, (0.4, 1.0)), (8, 96, (0.05, 0.4)), 0.5, (1.0, 0.1, 0.5)),
        ("dinov2", (224, (0.32, 1.0)), (8, 98, (0.05, 0.32)), 0.5, (0.0, 0.9, 0.5)),
        ("dinov2-paper", (224, (0.32, 1.0)), (8, 98, (0.05, 0.32)), 0.5, (1.0, 0.1, 0.5)),
        ("dinov3", (256, (0.32, 1.0)), (8, 112, (0.05, 0.32)), 0.0, (0.0, 0.9, 0.5)),
    ],
)
def test_published_settings_are_those_of_the_papers_and_their_code(
    name: str,
    globals_: tuple[int, tuple[float, float]],
    locals_: tuple[int, int, tuple[float, float]],
    flip: float,
    blur: tuple[float, float, float],
) -> None:
    found = PUBLISHED[name]
    assert (found.global_size, found.global_scale) == globals_
    assert (found.local_count, found.local_size, found.local_scale) == locals_
    assert (found.flip, found.vertical_flip, found.quarter_turns) == (flip, 0.0, False)
    assert (found.blur, found.blur_sigma) == (blur, (0.1, 2.0))
    assert (found.jitter, found.brightness, found.contrast, found.saturation, found.hue) == (0.8, 0.4, 0.4, 0.2, 0.1)
    assert (found.grey, found.solarize, found.stain) == (0.2, 0.2, 0.0)
    assert (found.mean, found.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_sizes_are_whole_numbers_of_the_patches_they_were_published_with() -> None:
    for name, patch in {"dino": 16, "dinov2": 14, "dinov2-paper": 14, "dinov3": 16}.items():
        assert PUBLISHED[name].global_size % patch == PUBLISHED[name].local_size % patch == 0


def test_the_released_dinov2_never_blurs_the_first_global_view() -> None:
    """A share of 4,000 draws has a standard error below 0.008; 0.03 is allowed."""
    for name, expected in {"dinov2": (0.0, 0.9, 0.5), "dinov3": (0.0, 0.9, 0.5), "dinov2-paper": (1.0, 0.1, 0.5)}.items():
        shares = [float(np.mean(drawn(PUBLISHED[name], view).sigma > 0)) for view in (0, 1, 2)]
        assert shares == pytest.approx(expected, abs=0.03)
    assert not drawn(PUBLISHED["dinov2"], 0).sigma.any()


@pytest.mark.parametrize("side", [28, 32, 64])
def test_small_images_keep_their_size_and_are_not_blurred(side: int) -> None:
    found = small(side)
    assert (found.global_size, found.local_size) == (side, side // 2)
    assert (found.global_scale, found.local_scale) == ((0.25, 1.0), (0.05, 0.25))
    assert not any(drawn(found, view).sigma.any() for view in range(found.count))
    assert PUBLISHED["small"] == small(32)


# --- domains --------------------------------------------------------------------------------------------------------


def test_the_domains_are_the_four_of_the_documents() -> None:
    assert set(DOMAINS) == {"photos", "documents", "aerial", "microscopy"}


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_domain_changes_what_it_names_and_nothing_else(domain: str) -> None:
    plain, found = ViewSettings(), for_domain(ViewSettings(), domain)
    changed = {key for key in ViewSettings.model_fields if getattr(plain, key) != getattr(found, key)}
    assert changed == set(DOMAINS[domain])


def test_photos_change_nothing() -> None:
    assert for_domain(PUBLISHED["dinov2"], "photos") == PUBLISHED["dinov2"]


def test_documents_are_never_mirrored_turned_or_solarised_and_keep_their_hue() -> None:
    settings = for_domain(ViewSettings(), "documents")
    for view in range(settings.count):
        found = drawn(settings, view)
        assert not found.flip.any()
        assert not found.vertical.any()
        assert not found.quarters.any()
        assert not found.hue.any()
        assert not found.solarize.any()
        assert 0.9 <= found.saturation.min() <= found.saturation.max() <= 1.1
        assert found.sigma.max() <= 1.0
    assert settings.global_scale[0] >= 0.5
    assert settings.local_scale[0] >= 0.2


def test_aerial_images_are_seen_from_all_eight_sides_alike() -> None:
    """Quarter turns and both mirrors: chi-square of 4,000 draws over 4 x 2 x 2 combinations."""
    settings = for_domain(ViewSettings(), "aerial")
    for view in (0, 1, 2, 9):
        found = drawn(settings, view)
        assert set(found.quarters) == {0, 1, 2, 3}
        assert stats.chisquare(np.bincount(found.quarters)).pvalue > 0.001
        sides = found.quarters * 4 + found.flip * 2 + found.vertical
        assert stats.chisquare(np.bincount(sides, minlength=16)).pvalue > 0.001
    assert drawn(settings, 0).hue.any()


def test_microscopy_jitters_stains_and_light_but_no_hue() -> None:
    settings = for_domain(ViewSettings(), "microscopy")
    for view in range(settings.count):
        found = drawn(settings, view)
        assert not found.hue.any()
        assert not found.grey.any()
        assert not found.solarize.any()
        assert (found.saturation == 1).all()
        assert found.brightness.std() > 0.1
        assert found.contrast.std() > 0.1
        assert 0.04 < np.abs(found.stain).max() <= 0.05
        assert stats.kstest(found.stain.ravel(), "uniform", (-0.05, 0.1)).pvalue > 0.001
        assert found.vertical.mean() == pytest.approx(0.5, abs=0.03)
        assert stats.chisquare(np.bincount(found.quarters, minlength=4)).pvalue > 0.001


def test_images_of_other_than_three_channels_have_no_stains() -> None:
    assert "stain" in domain_changes("microscopy")
    assert "stain" not in domain_changes("microscopy", channels=5)
    five = ViewSettings(mean=(0.5,) * 5, std=(0.2,) * 5, read=DecodeSettings(channels=5))
    assert for_domain(five, "microscopy").stain == 0


@pytest.mark.parametrize(("word", "said"), [("arial", "Did you mean 'aerial'?"), ("xyz", "Valid are: aerial, documents")])
def test_an_unknown_domain_names_the_nearest(word: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"--domain: no domain '{word}'") as error:
        domain_changes(word)
    assert said in str(error.value)


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_preset_in_every_domain_gives_finite_views(name: str, domain: str) -> None:
    settings = for_domain(PUBLISHED[name], domain)
    images = [open_image(_png(index)) for index in range(2)]
    views = finish_views(images, plan_views(images, [0, 1], 0, 0, settings), settings).crops
    assert [v.shape for v in views] == [(4, 3, *[settings.global_size] * 2), (16, 3, *[settings.local_size] * 2)]
    for v in views:
        assert torch.isfinite(v).all()
        assert v.std() > 0.05


def _png(index: int) -> bytes:
    file = io.BytesIO()
    pictures.drawn(0, index, 64).image.save(file, "PNG")
    return file.getvalue()

"""Labels carried from frame to frame, against an obviously right slow version and by what must hold of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from selfsight.attention.propagation import Frame, Propagation, Rule, label_map, one_hot, propagate
from selfsight.errors import ConfigError


def slow(target: np.ndarray, context: np.ndarray, labels: np.ndarray, rule: Rule) -> np.ndarray:
    """Place by place in float64: look at every place of every frame, keep the top of those nearby, mix their labels."""

    def unit(x: np.ndarray) -> np.ndarray:
        return x / np.linalg.norm(x)

    height, width = target.shape[:2]
    out = np.zeros((labels.shape[1], height, width))
    for y in range(height):
        for x in range(width):
            found = []
            for t in range(len(context)):
                for v in range(max(0, y - rule.radius), min(height, y + rule.radius + 1)):
                    for u in range(max(0, x - rule.radius), min(width, x + rule.radius + 1)):
                        likeness = math.exp(float(unit(target[y, x]) @ unit(context[t, v, u])) / rule.temperature)
                        found.append((likeness, labels[t, :, v, u]))
            found.sort(key=lambda each: -each[0])
            total = sum(weight for weight, _ in found[: rule.top])
            out[:, y, x] = sum(weight * label for weight, label in found[: rule.top]) / total
    return out


def video(frames: int, grid: tuple[int, int], classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    return torch.randn(frames, *grid, 6), torch.rand(frames, classes, *grid).softmax(1)


@pytest.mark.parametrize(
    ("grid", "rule"),
    [
        ((5, 7), Rule(top=3, radius=1)),
        ((9, 17), Rule(top=5, radius=2)),
        ((8, 8), Rule(top=1, radius=12)),
        ((1, 20), Rule(top=4, radius=5, temperature=0.01)),
        ((2, 2), Rule(top=50, radius=1, temperature=1.0)),
    ],
)
def test_propagation_is_the_slow_one(grid: tuple[int, int], rule: Rule) -> None:
    features, labels = video(3, grid)
    found = propagate(features[2], list(features[:2]), list(labels[:2]), rule)
    expected = slow(*(each.double().numpy() for each in (features[2], features[:2], labels[:2])), rule)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)


def test_what_moves_within_the_radius_takes_its_labels_along() -> None:
    features, labels = video(1, (20, 20))
    moved = propagate(features[0].roll((2, -3), (0, 1)), [features[0]], [labels[0]], Rule(top=1, radius=3))
    torch.testing.assert_close(moved[:, 2:, :-3], labels[0].roll((2, -3), (1, 2))[:, 2:, :-3])
    out_of_reach = propagate(features[0].roll((2, -3), (0, 1)), [features[0]], [labels[0]], Rule(top=1, radius=2))
    assert not torch.isclose(out_of_reach, labels[0].roll((2, -3), (1, 2))).all(0)[2:, :-3].any()


def test_neither_the_length_of_features_nor_a_low_temperature_matters_to_the_numbers() -> None:
    """exp(1 / 0.001) is beyond float32."""
    features, labels = video(2, (6, 6))
    rule = Rule(top=2, radius=2, temperature=0.001)
    found = propagate(features[1], [features[0]], [labels[0]], rule)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(propagate(1e-3 * features[1], [1e3 * features[0]], [labels[0]], rule), found, atol=1e-3, rtol=0)


@pytest.mark.parametrize("context", [0, 1, 3])
def test_the_first_frame_and_the_last_few_are_the_context(context: int) -> None:
    features, labels = video(7, (5, 6))
    rule = Rule(top=4, radius=2, context=context)
    propagation = Propagation(Frame(features[0], labels[0]), rule)
    softs = [labels[0]]
    for number in range(1, 7):
        used = [0, *range(max(1, number - context), number)]
        expected = propagate(features[number], [features[k] for k in used], [softs[k] for k in used], rule)
        softs.append(propagation.advance(features[number]))
        assert torch.equal(softs[-1], expected)
    assert len(propagation.last) == context


def test_a_propagation_goes_on_from_the_soft_maps_of_its_context_as_if_it_had_not_stopped() -> None:
    features, labels = video(8, (5, 6))
    whole = Propagation(Frame(features[0], labels[0]), Rule(context=3, radius=2))
    for number in range(1, 5):
        whole.advance(features[number])
    second = Propagation(Frame(features[0], labels[0]), Rule(context=3, radius=2))
    for number, soft in zip(range(2, 5), whole.last, strict=True):
        second.recall(Frame(features[number], soft))
    for number in range(5, 8):
        assert torch.equal(whole.advance(features[number]), second.advance(features[number]))


def test_first_labels_are_those_of_the_pixel_in_the_middle_of_each_place() -> None:
    ids = np.zeros((6, 9), dtype=np.uint8)
    ids[1, 1], ids[4, 4:] = 7, 2
    found = one_hot(ids, [0, 2, 7], (2, 3))
    assert found.shape == (3, 2, 3)
    assert found.argmax(0).tolist() == [[2, 0, 0], [0, 1, 1]]
    assert (found.sum(0) == 1).all()


def test_a_label_map_has_the_pictures_size_and_an_object_that_has_faded_is_still_shown() -> None:
    soft = torch.zeros(3, 4, 4)
    soft[1, 1:3, 1:3] = 0.2
    soft[0] = 1 - soft[1]
    found = label_map(soft, [0, 5, 9], patch=8, size=(50, 30))
    assert found.shape == (50, 30)
    assert found.dtype == np.uint8
    assert set(np.unique(found)) == {0, 5}
    assert found[25, 15] == 5 and found[2, 2] == 0
    assert (found == 5).mean() == pytest.approx(4 / 16, abs=0.05)


def test_where_no_object_is_left_all_is_background() -> None:
    soft = torch.stack([torch.ones(3, 3), torch.zeros(3, 3)])
    assert not label_map(soft, [0, 1], patch=4, size=(12, 12)).any()


@pytest.mark.parametrize(("name", "value"), [("top", 0), ("radius", 0), ("context", -1)])
def test_a_rule_with_which_no_label_gets_anywhere_is_refused(name: str, value: int) -> None:
    with pytest.raises(ConfigError, match=rf"--{name}: expected a whole number from \d\. Got {value}\."):
        Rule(**{name: value}).checked()  # type: ignore[arg-type]

"""Label propagation against the published code: the neighbourhood, one frame, and a whole sequence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from golden.arrays import Golden, golden
from selfsight.attention.propagation import Frame, Propagation, Rule, label_map, one_hot, propagate

SOFT = 1e-6
"""The stored maps are 3e-7 off those of float64; ours may be as far off on the other side, and what a map takes from adds up."""


@pytest.fixture(scope="module")
def stored() -> Golden:
    return golden("label_propagation")


def rule_of(g: Golden) -> Rule:
    c = g.config
    return Rule(c["topk"], c["size_mask_neighborhood"], c["n_last_frames"], c["temperature"])


def over_grid(g: Golden, name: str) -> Tensor:
    return g.tensor(name).unflatten(-2, (g.config["h"], g.config["w"]))


def test_the_neighbourhood_is_the_published_one(stored: Golden) -> None:
    """Where all places are alike and all count, each gets the labels of its whole neighbourhood."""
    height, width = stored.config["h"], stored.config["w"]
    places = height * width
    alike, each = torch.ones(height, width, 4), torch.eye(places).unflatten(1, (height, width))
    rule = Rule(top=places, radius=stored.config["size_mask_neighborhood"])
    found = propagate(alike, [alike], [each], rule).flatten(1).T
    np.testing.assert_array_equal((found > 0).numpy(), stored["neighborhood"].astype(bool))


def test_one_frame_gets_the_published_soft_map(stored: Golden) -> None:
    context, target = over_grid(stored, "ctx_features"), over_grid(stored, "tgt_features")
    found = propagate(target, list(context), list(stored.tensor("ctx_segs")), rule_of(stored))
    np.testing.assert_allclose(found, stored["out_seg"][0], atol=SOFT)


def test_a_sequence_gets_the_published_soft_maps_and_label_maps(stored: Golden) -> None:
    features, classes = over_grid(stored, "seq_features"), range(stored.config["n_classes"])
    first = one_hot(stored["seq_first_labels"], classes, features.shape[1:3])
    propagation = Propagation(Frame(features[0], first), rule_of(stored))
    height, width = stored.config["ori_hw"]
    for number, frame in enumerate(features[1:]):
        soft = propagation.advance(frame)
        np.testing.assert_allclose(soft, stored["seq_soft"][number], atol=SOFT)
        found = label_map(soft, classes, stored.config["patch_size"], (height, width))
        np.testing.assert_array_equal(found, stored["seq_labels"][number])

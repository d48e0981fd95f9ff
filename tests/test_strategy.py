"""When the state of a training is divided between ranks, and what is refused then."""

from __future__ import annotations

from typing import Any

import pytest

from selfsight import config
from selfsight.errors import ConfigError
from selfsight.ssl.settings import TrainSettings
from selfsight.ssl.strategy import chosen

GIB = 2**30


def settings(**over: Any) -> TrainSettings:
    tree: dict[str, Any] = {
        "recipe": "dino",
        "data": "photos",
        "images": 8,
        "epochs": 1,
        "batch_size": 8,
        "teacher_momentum": 0.99,
        "objective": {"name": "dino"},
        "backbone": {"name": "vit_small_patch16_224"},
        "views": {},
        "optimizer": {},
    }
    return config.build(TrainSettings, config.merge(tree, over), "test")


def test_auto_divides_only_what_does_not_fit_a_device() -> None:
    vit_l, vit_7b = 370_000_000, 6_900_000_000
    assert chosen(settings(), 8, vit_l, 80 * GIB) == "ddp"
    assert chosen(settings(), 8, vit_7b, 80 * GIB) == "fsdp"
    assert chosen(settings(), 8, vit_7b, None) == "ddp"
    assert chosen(settings(), 1, vit_7b, 80 * GIB) == "ddp"


def test_the_boundary_is_three_quarters_of_the_memory() -> None:
    most = int(0.75 * 80 * GIB / 20)
    assert [chosen(settings(), 2, count, 80 * GIB) for count in (most, most + 1)] == ["ddp", "fsdp"]


def test_what_is_asked_for_is_done() -> None:
    assert chosen(settings(strategy="fsdp"), 2, 1000, None) == "fsdp"
    assert chosen(settings(strategy="ddp"), 2, 10**10, 80 * GIB) == "ddp"
    assert chosen(settings(strategy="fsdp", precision="float16"), 1, 1000, None) == "ddp"


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"precision": "float16"}, "in float16, whose loss is scaled; take --set precision=bfloat16"),
        ({"backbone": {"name": "resnet50"}}, "divides the blocks of ViTs, and resnet50 is none; take --strategy ddp"),
        ({"optimizer": {"kind": "lars"}}, "take --set optimizer.kind=adamw, or --strategy ddp"),
    ],
)
def test_what_cannot_be_divided_is_refused_by_name(over: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=r"^--strategy fsdp: ") as refused:
        chosen(settings(strategy="fsdp", **over), 2, 1000, None)
    assert said in str(refused.value)
    with pytest.raises(ConfigError, match=r"^--strategy auto \(6\.9e9 parameters: fsdp\): "):
        chosen(settings(**over), 8, 6_900_000_000, 80 * GIB)

"""What makes a step cheaper leaves it the same step: half precision, activations computed again, nothing that waits for a GPU."""

from __future__ import annotations

import pytest
import torch

from objective_cases import CASES, Case
from selfsight.errors import ConfigError
from selfsight.models.backbones import BackboneSettings, build_backbone
from selfsight.ssl.step import train_step


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.mark.parametrize("name", ["vit_w32_d2_p8", "test_convnext", "test_vit3"])
def test_activations_computed_again_give_the_same_gradients(name: str) -> None:
    images = torch.randn(2, 3, 64, 64)
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(1)
        backbone = build_backbone(BackboneSettings(name=name, image_size=64, checkpointing=checkpointing))
        tokens = backbone.views([images], patches=False)
        (tokens[0].summary ** 2).sum().backward()
        found.append({key: p.grad for key, p in backbone.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for key, gradient in found[0].items():
        torch.testing.assert_close(found[1][key], gradient, atol=1e-5, rtol=1e-4, msg=key)


def test_checkpointing_keeps_less_between_the_passes() -> None:
    kept = []
    for checkpointing in (False, True):
        sizes: list[int] = []
        backbone = build_backbone(BackboneSettings(name="vit_w32_d2_p8", image_size=64, checkpointing=checkpointing))
        with torch.autograd.graph.saved_tensors_hooks(lambda x, sizes=sizes: sizes.append(x.numel()) or x, lambda x: x):
            backbone.views([torch.randn(4, 3, 64, 64)], patches=False)
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 2


def test_stochastic_depth_draws_the_same_when_activations_are_computed_again() -> None:
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(1)
        settings = BackboneSettings(name="vit_w32_d3_p8", image_size=32, drop_path=0.5, checkpointing=checkpointing)
        backbone = build_backbone(settings)
        images = torch.randn(6, 3, 32, 32)
        (backbone.views([images], patches=False)[0].summary ** 2).sum().backward()
        gradients.append(backbone.net.patch_embed.proj.weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-4)


def test_half_precision_scales_the_loss_and_takes_the_step_of_full_precision() -> None:
    """float16 on the processor: the scaler unscales before the clip, so the weights go where those of float32 go."""
    moved = []
    for precision in ("float32", "float16"):
        case = CASES["dino"]
        learner = case.learner()
        learner.scaler = torch.amp.GradScaler("cpu", init_scale=16.0) if precision == "float16" else None
        before = torch.cat([p.detach().flatten().clone() for p in learner.student.parameters()])
        loss = train_step(learner, case.batch(0), case.rates(0.5), 3.0, precision)
        assert loss.value.isfinite()
        moved.append(torch.cat([p.detach().flatten() for p in learner.student.parameters()]) - before)
    assert float(moved[0].norm()) > 0
    assert torch.nn.functional.cosine_similarity(moved[0], moved[1], dim=0) > 0.9


def test_a_step_that_overflows_in_half_precision_is_left_out_and_the_scale_halved() -> None:
    case = CASES["dino"]
    learner = case.learner()
    learner.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120)
    before = [p.detach().clone() for p in learner.student.parameters()]
    train_step(learner, case.batch(0), case.rates(0.5), 3.0, "float16")
    assert all(torch.equal(a, b) for a, b in zip(before, learner.student.parameters(), strict=True))
    assert learner.scaler.get_scale() == 2.0**119
    assert learner.step == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: it asks CUDA whether a step waits for it")
@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_nothing_in_a_step_waits_for_the_gpu(case: Case) -> None:
    on = torch.device("cuda")
    learner = case.learner()
    for module in (learner.student, learner.teacher, learner.objective):
        module.to(on)
    batches = [case.batch(step) for step in range(3)]
    batches = [type(b)([v.to(on) for v in b.views], b.size, b.masks and b.masks.to(on), b.labels.to(on)) for b in batches]
    train_step(learner, batches[0], case.rates(0.5), 3.0, "bfloat16")
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses = [train_step(learner, batch, case.rates(0.5), 3.0, "bfloat16").value for batch in batches[1:]]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(loss.isfinite() for loss in losses)


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's own look at its inputs
@pytest.mark.parametrize("rope", [False, True])
def test_compiled_blocks_take_the_same_step(rope: bool) -> None:
    """All sizes of view, with stochastic depth and activations computed again."""
    images = [torch.randn(4, 3, 32, 32), torch.randn(6, 3, 16, 16)]
    found = []
    for compiled in (False, True):
        torch.manual_seed(1)
        settings = BackboneSettings(name="vit_w32_d1_p8", image_size=32, rope=rope, drop_path=0.0, checkpointing=not rope)
        backbone = build_backbone(settings)
        if compiled:
            backbone.compile_blocks()
            before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        tokens = backbone.views(images, patches=False)
        sum((each.summary**2).sum() for each in tokens).backward()
        gradients = {key: p.grad for key, p in backbone.named_parameters() if p.grad is not None}
        found.append([torch.cat([each.summary for each in tokens]), gradients])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > before
    torch.testing.assert_close(found[1], found[0], atol=1e-4, rtol=1e-3)


def test_what_has_no_blocks_to_compile_says_so() -> None:
    for name in ("test_resnet", "vit_relpos_small_patch16_224"):
        with pytest.raises(ConfigError, match=f"compile: .* {name} has none"):
            build_backbone(BackboneSettings(name=name)).compile_blocks()

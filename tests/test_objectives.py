"""One contract for every objective, then DINO against its formula written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from objective_cases import CASES, Case
from selfsight.ssl.objectives import OBJECTIVES
from selfsight.ssl.objectives.base import Ranks
from selfsight.ssl.objectives.dino import DINO, DINOLoss, DINOSettings
from selfsight.ssl.step import train_step

BATCH, VIEWS, K = 3, 5, 7


def logits(seed: int = 0, views: int = VIEWS, batch: int = BATCH) -> tuple[Tensor, Tensor]:
    """Student [views * B, K] and teacher [2 * B, K]."""
    draw = torch.Generator().manual_seed(seed)
    student = torch.rand(views * batch, K, generator=draw) * 2 - 1
    teacher = torch.rand(2 * batch, K, generator=draw) * 2 - 1
    return student.requires_grad_(), teacher.requires_grad_()


def test_every_objective_has_a_case_to_be_tested_with() -> None:
    assert set(CASES) == set(OBJECTIVES)


@pytest.fixture(params=sorted(OBJECTIVES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def test_settings_bear_the_name_of_the_registry(case: Case) -> None:
    assert OBJECTIVES[case.name].Settings.model_fields["name"].default == case.name


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_the_loss_is_one_finite_number_with_a_gradient_for_the_student_alone(case: Case, progress: float) -> None:
    learner = case.learner()
    loss = case.loss(learner, 0, progress)
    assert loss.value.shape == ()
    assert loss.value.dtype == torch.float32
    assert math.isfinite(loss.value.item())
    loss.value.backward()
    assert all(p.grad is None for p in learner.teacher.parameters())
    reached = {name for name, p in learner.student.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    wanted = {name for name, p in learner.student.named_parameters() if p.requires_grad}
    assert wanted - reached <= case.may_rest, "parameters that learn nothing"


def test_diagnostics_are_single_numbers_without_gradient(case: Case) -> None:
    diagnostics = case.loss(case.learner(), 0, 0.5).diagnostics
    assert diagnostics
    for name, value in diagnostics.items():
        assert value.shape == (), name
        assert not value.requires_grad, name
        assert value.isfinite(), name


def test_the_same_batches_give_the_same_losses(case: Case) -> None:
    one, two = ([case.train(learner, step).item() for step in range(3)] for learner in (case.learner(), case.learner()))
    assert one == two


def test_a_saved_state_goes_on_where_it_was(case: Case) -> None:
    learner, twin = case.learner(), case.learner()
    for step in range(2):
        case.train(learner, step)
    twin.student.load_state_dict(learner.student.state_dict())
    twin.teacher.load_state_dict(learner.teacher.state_dict())
    twin.objective.load_state_dict(learner.objective.state_dict())
    assert torch.equal(case.loss(learner, 2, 0.6).value, case.loss(twin, 2, 0.6).value)


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_the_schedule_is_numbers_under_names(case: Case, progress: float) -> None:
    learner = case.learner()
    schedule = learner.objective.schedule(progress)
    assert all(isinstance(name, str) and isinstance(value, float) and math.isfinite(value) for name, value in schedule.items())
    assert not set(schedule) & set(case.loss(learner, 0, progress).diagnostics)


def test_a_step_in_half_precision_is_taken(case: Case) -> None:
    loss = train_step(case.learner(), case.batch(0), case.rates(0.5), 3.0, "bfloat16")
    assert loss.value.dtype == torch.float32
    assert loss.value.isfinite()


def test_training_lowers_the_loss_of_the_batch_it_trains_on(case: Case) -> None:
    """With a teacher that stands still: the gradient points the right way."""
    learner = case.learner()
    rates = case.rates(0.5)._replace(learning_rate=1e-4, momentum=1.0, weight_decay=0.0)
    before = case.loss(learner, 0, 0.5).value.item()
    for _ in range(5):
        train_step(learner, case.batch(0), rates, 0.0)
    learner.objective.load_state_dict(case.learner().objective.state_dict())
    assert case.loss(learner, 0, 0.5).value.item() < before


def test_a_batch_in_parts_gives_the_gradient_of_the_whole(case: Case) -> None:
    """Up to what couples samples, which the objective's case turns off."""
    whole, parted = case.learner(uncoupled=True), case.learner(uncoupled=True)
    for step in range(2):  # Adam makes much of gradients near nothing, so the second step starts from the same weights
        parted.student.load_state_dict(whole.student.state_dict())
        parted.teacher.load_state_dict(whole.teacher.state_dict())
        one = train_step(whole, case.batch(step), case.rates(0.5), 0.0)
        two = train_step(parted, case.batch(step), case.rates(0.5), 0.0, parts=2)
        assert two.value.item() == pytest.approx(one.value.item(), abs=2e-6)
        for (name, p), q in zip(whole.student.named_parameters(), parted.student.parameters(), strict=True):
            if p.grad is not None:
                torch.testing.assert_close(q.grad, p.grad, atol=2e-6, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_a_batch_that_is_not_finite_changes_no_parameter_and_no_state(case: Case) -> None:
    learner = case.learner()
    case.train(learner, 0)
    everything = [*learner.student.parameters(), *learner.teacher.parameters(), *learner.objective.state_dict().values()]
    before = [p.clone() for p in everything]
    broken = case.batch(1)
    broken.views[0][0] = float("nan")
    loss = train_step(learner, broken, case.rates(0.5), 3.0)
    assert not loss.value.isfinite()
    assert loss.finite is not None and not loss.finite
    assert all(torch.equal(a, b) for a, b in zip(before, everything, strict=True))
    assert math.isfinite(case.train(learner, 2).item())


# --- DINO -----------------------------------------------------------------------------------------------------------


def slow_dino(student: Tensor, teacher: Tensor, center: list[float], temperature: float, s: DINOSettings) -> float:
    """The formula in Python's own numbers: a mean over pairs of views, images and prototypes, one at a time."""
    batch = len(teacher) // 2
    views = len(student) // batch

    def softmax(row: list[float]) -> list[float]:
        top = max(row)
        powers = [math.exp(x - top) for x in row]
        return [p / sum(powers) for p in powers]

    total, pairs = 0.0, 0
    for t in range(2):
        for v in range(views):
            if v == t:
                continue
            for i in range(batch):
                raw = teacher[t * batch + i].tolist()
                target = softmax([(x - c) / temperature for x, c in zip(raw, center, strict=True)])
                answer = softmax([x / s.student_temperature for x in student[v * batch + i].tolist()])
                total -= sum(p * math.log(q) for p, q in zip(target, answer, strict=True))
            pairs += 1
    return total / (pairs * batch)


@pytest.mark.parametrize("views", [2, 3, 10])
def test_dino_equals_its_formula_over_several_steps(views: int) -> None:
    settings = DINOSettings(teacher_temperature=0.07, warmup_teacher_temperature=0.04, warmup=0.5, center_momentum=0.8)
    loss, center = DINOLoss(K, settings), [0.0] * K
    for step in range(4):
        student, teacher = logits(step, views)
        temperature = 0.04 + 0.03 * min(1.0, step / 4 / 0.5)
        expected = slow_dino(student.double(), teacher.double(), center, temperature, settings)
        assert loss(student, teacher, step / 4).value.item() == pytest.approx(expected, rel=1e-5)
        loss.center.commit()
        center = [0.8 * c + 0.2 * m for c, m in zip(center, teacher.double().mean(0).tolist(), strict=True)]
        torch.testing.assert_close(loss.center.value[0].double(), torch.tensor(center).double(), atol=1e-6, rtol=1e-6)


def test_dino_uses_the_centre_before_it_takes_in_the_batch() -> None:
    """With momentum 0 the centre is the mean of the last batch: the first loss must not know its own."""
    settings = DINOSettings(center_momentum=0.0, warmup=0.0)
    student, teacher = logits()
    loss = DINOLoss(K, settings)
    first = loss(student, teacher, 1.0).value.item()
    loss.center.commit()
    second = loss(student, teacher, 1.0).value.item()
    assert first == pytest.approx(slow_dino(student, teacher, [0.0] * K, 0.04, settings), rel=1e-5)
    assert second == pytest.approx(slow_dino(student, teacher, teacher.mean(0).tolist(), 0.04, settings), rel=1e-4)
    assert abs(first - second) > 0.01


def test_dino_takes_the_mean_over_ranks_into_the_centre() -> None:
    """Two halves of a batch on two ranks leave the centre that one rank leaves on the whole."""
    _, teacher = logits(batch=4)
    whole = DINOLoss(K, DINOSettings())
    whole.at_temperature(logits(batch=4)[0], teacher, 0.04)
    halves = teacher.detach().view(2, 2, 2, K)
    means = [halves[:, rank].reshape(4, K).mean(0, keepdim=True) for rank in range(2)]
    seen: list[Tensor] = []

    class Two(Ranks):
        def sum(self, x: Tensor) -> Tensor:
            seen.append(x.clone())
            return torch.cat([(means[0] + means[1]) * 4, x.new_tensor([[8.0]])], dim=1)

    ranked = DINOLoss(K, DINOSettings(), Two())
    ranked.at_temperature(logits(batch=2)[0], halves[:, 0].reshape(4, K), 0.04)
    whole.center.commit()
    ranked.center.commit()
    assert len(seen) == 1
    torch.testing.assert_close(seen[0], torch.cat([means[0] * 4, torch.tensor([[4.0]])], dim=1))
    torch.testing.assert_close(ranked.center.value, whole.center.value)


def test_dino_does_not_compare_a_view_with_itself() -> None:
    """With two views and one image the loss is H(t0, s1) and H(t1, s0): s0 = t0 alone does not lower it."""
    student, teacher = logits(views=2, batch=1)
    settings = DINOSettings(warmup=0.0)
    swapped = DINOLoss(K, settings)(student.flip(0), teacher, 1.0).value
    kept = DINOLoss(K, settings)(student, teacher, 1.0).value
    targets = torch.softmax(teacher / 0.04, 1)
    answers = torch.log_softmax(student / 0.1, 1)
    assert kept.item() == pytest.approx(-(targets[0] @ answers[1] + targets[1] @ answers[0]).item() / 2, rel=1e-5)
    assert swapped.item() == pytest.approx(-(targets[0] @ answers[0] + targets[1] @ answers[1]).item() / 2, rel=1e-5)


def test_dino_of_uniform_answers_is_ln_k_and_its_signs_say_uniform() -> None:
    loss = DINOLoss(K, DINOSettings())(torch.zeros(10, K), torch.zeros(4, K), 0.0)
    assert loss.value.item() == pytest.approx(math.log(K), rel=1e-6)
    assert float(loss.diagnostics["teacher_entropy"]) == pytest.approx(1.0, abs=1e-6)
    assert float(loss.diagnostics["prototype_entropy"]) == pytest.approx(1.0, abs=1e-6)


def test_dino_signs_tell_one_prototype_for_all_from_one_for_each() -> None:
    same = torch.zeros(2 * K, K)
    same[:, 2] = 10.0
    each = torch.eye(K).repeat(2, 1) * 10
    student = torch.zeros(2 * K, K)
    signs = [{k: float(v) for k, v in DINOLoss(K, DINOSettings())(student, t, 0.0).diagnostics.items()} for t in (same, each)]
    assert signs[0] == pytest.approx({"teacher_entropy": 0.0, "prototype_entropy": 0.0}, abs=1e-5)
    assert signs[1] == pytest.approx({"teacher_entropy": 0.0, "prototype_entropy": 1.0}, abs=1e-5)


def test_dino_teacher_temperature_rises_over_the_warmup_and_stays() -> None:
    loss = DINO(DINOSettings(teacher_temperature=0.07, warmup_teacher_temperature=0.04, warmup=0.3))
    found = [loss.schedule(progress)["teacher_temp"] for progress in (0.0, 0.15, 0.3, 0.7, 1.0)]
    assert found == pytest.approx([0.04, 0.055, 0.07, 0.07, 0.07])
    constant = DINO(DINOSettings(teacher_temperature=0.07, warmup_teacher_temperature=0.04, warmup=0.0))
    assert constant.schedule(0.0) == {"teacher_temp": 0.07}

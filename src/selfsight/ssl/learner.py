"""Student, teacher, objective and optimiser at the start of a run."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from selfsight import device
from selfsight.errors import ConfigError
from selfsight.models.backbones import Backbone, build_backbone
from selfsight.ssl.adapters import limit_to
from selfsight.ssl.network import Network, make_teacher
from selfsight.ssl.objectives import OBJECTIVES
from selfsight.ssl.objectives.base import AnyObjective, Guide
from selfsight.ssl.optimizer import OptimizerSettings, make_optimizer
from selfsight.ssl.replicas import replicated, with_common_norm
from selfsight.ssl.settings import TrainSettings
from selfsight.ssl.sharded import shard
from selfsight.ssl.start import begin
from selfsight.ssl.step import Learner
from selfsight.ssl.strategy import chosen, memory_of
from selfsight.ssl.world import BY_ITSELF, World


def initial_backbone(settings: TrainSettings) -> Backbone:
    """The untrained backbone of a run, the same every time: it is the first to draw after the seed is set."""
    device.seed_everything(settings.seed)
    return build_backbone(settings.backbone)


def make_learner(
    settings: TrainSettings,
    on: torch.device,
    world: World = BY_ITSELF,
    start: Mapping[str, Tensor] | None = None,
    guide: Guide | None = None,
) -> Learner:
    """Student and teacher at the start of a run, with objective and optimiser: the same on all ranks.

    `start` holds weights to begin with, under the names of `teacher.safetensors`; `guide` is what a guided objective follows.
    """
    objective = OBJECTIVES[settings.objective.name](settings.objective, world)
    objective.guide = guide
    student = _network(initial_backbone(settings), objective)
    if start is not None:
        begin(student, start)
    teacher = _network(build_backbone(settings.backbone.calm()), objective)
    if settings.finetune is not None:
        for network in (student, teacher):
            limit_to(network, settings.finetune)
    teacher = make_teacher(student, teacher)
    divided = chosen(settings, world.count, count(student), memory_of(on)) == "fsdp"
    if settings.compile:
        _compile(student, teacher, on, divided)
    for module in () if divided else (student, teacher, objective):
        module.to(on)
    if world.count > 1 and on.type == "cuda":
        student, teacher = with_common_norm(student), with_common_norm(teacher)
    scaler = torch.amp.GradScaler(on.type) if settings.precision == "float16" else None
    learner = Learner(student, teacher, objective, make_optimizer(student, on, settings.optimizer), scaler=scaler)
    if divided:
        divide(learner, on, world, device.half(on, settings.precision), settings.optimizer)
    elif world.count > 1:
        learner.run = replicated(student)
    return learner


def divide(
    learner: Learner, on: torch.device, world: World, half: torch.dtype | None = None, optimizer: OptimizerSettings | None = None
) -> None:
    """Divide all networks between the ranks, a block at a time, so that no device ever holds one whole."""
    mesh = init_device_mesh(on.type, (world.count,))
    others = [module for module in learner.objective.modules() if isinstance(module, Backbone)]  # the Gram teacher
    for network, backbone in [(n, n.backbone) for n in (learner.student, learner.teacher)] + [(b, b) for b in others]:
        shard(network, backbone.net.get_submodule("blocks").children(), mesh, half)
    learner.objective.to(on)
    learner.optimizer = make_optimizer(learner.student, on, optimizer)  # its parameters are others now
    learner.shards = world


def _compile(student: Network, teacher: Network, on: torch.device, divided: bool) -> None:
    """A block at a time: it is compiled once for all of them, and shared wrappers still see each."""
    if divided:
        raise ConfigError("compile: is not for a training divided by --strategy fsdp; take --strategy ddp, or compile=false")
    if missing := device.missing_compiler(on):
        raise ConfigError(f"compile: on a CPU it needs a C++ compiler, and {missing} is not installed; take compile=false")
    for network in (student, teacher):
        network.backbone.compile_blocks()


def count(network: Network) -> int:
    """Parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def _network(backbone: Backbone, objective: AnyObjective) -> Network:
    return Network(backbone, objective.heads(backbone.width), hides=objective.settings.masking is not None)

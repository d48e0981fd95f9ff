"""`train`: on this machine, on ranks of torchrun, or as a job of a cluster."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfsight.cli.options import DATA, IMAGES, RUN, WHAT, Domain, Limit, MaxBad, MaxPixels, Strict
from selfsight.errors import Interrupted

if TYPE_CHECKING:
    from selfsight.ssl.signals import Asked


def train(
    data: Annotated[list[str] | None, typer.Argument(help=f"{DATA} Several are mixed.", show_default=False)] = None,
    out: Annotated[Path, typer.Option(help="Run folder to make.", show_default=False)] = Path("runs/run"),
    recipe: Annotated[
        str | None, typer.Option(help="Which recipe derives the settings (dino).", rich_help_panel=WHAT, show_default=False)
    ] = None,
    domain: Domain = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="A timm name, or vit_w192_d6_p4: width, depth, patch. Default: by image size.",
            rich_help_panel=WHAT,
            show_default=False,
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(help="Start from the weights of this encoder (see Encoders).", rich_help_panel=WHAT, show_default=False),
    ] = None,
    batch_size: Annotated[
        str | None,
        typer.Option(
            help="Images a step, or auto: the most that fit into memory. Rates follow it.",
            rich_help_panel=WHAT,
            show_default=False,
        ),
    ] = None,
    guide: Annotated[
        str | None,
        typer.Option(help="With --recipe distill: learn what this encoder sees.", rich_help_panel=WHAT, show_default=False),
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Train for so many epochs (100).", rich_help_panel=RUN, show_default=False)
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Or for so many minutes.", rich_help_panel=RUN, show_default=False)
    ] = None,
    limit: Limit = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of every random draw (0).", rich_help_panel=RUN, show_default=False)
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto (default), cpu, cuda, cuda:N or mps.", rich_help_panel=RUN, show_default=False)
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="With torchrun: ddp (each rank holds all), fsdp (each a part) or auto: ddp where it fits.",
            rich_help_panel=RUN,
            show_default=False,
        ),
    ] = None,
    channels: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Channels of the images (3): 1, or those of a multispectral TIFF.",
            rich_help_panel=IMAGES,
            show_default=False,
        ),
    ] = None,
    strict: Strict = False,
    max_bad: Annotated[
        float | None, typer.Option(help=MaxBad.__metadata__[0].help + " (5)", rich_help_panel=IMAGES, show_default=False)
    ] = None,
    max_pixels: MaxPixels = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out from its last checkpoint.", rich_help_panel=RUN)
    ] = False,
    slurm: Annotated[
        str | None,
        typer.Option(
            help="Run it as a job of a Slurm cluster: partition=gpu,nodes=2,gpus=8,hours=24.",
            rich_help_panel=RUN,
            show_default=False,
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.", rich_help_panel=WHAT, show_default=False)] = None,
    set: Annotated[
        list[str] | None,
        typer.Option("--set", help="One setting, e.g. --set views.local_count=4.", rich_help_panel=WHAT, show_default=False),
    ] = None,
) -> None:
    """Train a ViT (or CNN) on unlabelled images; leaves a run folder."""
    if slurm is not None:
        _submit(out, slurm, resume)
        return
    from selfsight.ssl.signals import Asked, Stop

    with Stop(always=True):
        try:
            from selfsight import api
            from selfsight.errors import ConfigError
            from selfsight.terminal import Terminal, train_summary

            told: dict[str, Any] = {"epochs": epochs, "minutes": minutes, "device": device, "limit": limit, "seed": seed}
            told |= {"domain": domain, "backbone": backbone, "init": init, "guide": guide, "channels": channels}
            told |= {"strict": strict or None, "max_bad": max_bad, "max_pixels": max_pixels, "config": config, "set": set or ()}
            told |= {"strategy": strategy, "batch_size": _batch_size(batch_size)}
            images = data[0] if data and len(data) == 1 else data
            with Terminal() as terminal:
                if resume:
                    summary = api.resume(out, data=images, recipe=recipe, watch=terminal, **told)
                elif images:
                    summary = api.train(images, out, recipe=recipe or "dino", watch=terminal, **told)
                else:
                    raise ConfigError(f"train: give DATA. {DATA}")
        except (Asked, Interrupted) as stopped:
            raise stopped_run(stopped, ["train", *(data or [])], out) from None
    terminal.say(train_summary(out, summary))


def _batch_size(text: str | None) -> int | str | None:
    from selfsight.errors import ConfigError

    if text is None or text == "auto":
        return text
    if not text.isdigit() or not int(text):
        raise ConfigError(f"--batch-size: expected a number of images or auto. Got {text!r}.")
    return int(text)


def _submit(out: Path, cluster: str, resume: bool) -> None:
    """The same command without --slurm, as a job."""
    from selfsight import cluster as clusters

    given, words = iter(sys.argv[1:]), []
    for word in given:
        if word == "--slurm":
            next(given)
        elif not word.startswith("--slurm="):
            words.append(word)
    job = clusters.submit(words, out, cluster, resume=resume)
    print(f"submitted as job {job.job_id}; its logs: {job.paths.folder}. It goes on by itself when it was preempted")


def stopped_run(by: Asked | Interrupted, words: list[str], out: Path) -> Interrupted:
    """`by`, with the command by which the training goes on (its first `words`, then where), or begins again."""
    from selfsight.runs import RunFolder

    if not isinstance(by, Interrupted):
        before = "" if RunFolder(out).exists else " before the first step, nothing is lost"
        by = Interrupted(by.number, f"stopped by {by.name}{before}")
    if RunFolder(out).exists:
        how = "go on with: " + shlex.join(["selfsight", *words, "--out", str(out), "--resume"])
    else:
        how = "start again with: " + shlex.join(["selfsight", *sys.argv[1:]])
    told = Interrupted(by.number, f"{by}; {how}")
    told.alone = by.alone
    return told

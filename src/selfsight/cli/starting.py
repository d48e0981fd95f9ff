"""The verbs to begin with: `demo`, `views` and `doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selfsight.cli.options import Data, Device, Domain


def demo(
    data: Annotated[
        str | None, typer.Argument(help="Your own images; default: images drawn on the spot.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("demo"),
    minutes: Annotated[float | None, typer.Option(help="Training time.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of images and training.")] = 0,
    device: Device = "auto",
) -> None:
    """The main job in minutes: draw images, train without labels, compare, report."""
    from selfsight import walkthrough
    from selfsight.cli.answers import compare_summary
    from selfsight.terminal import Terminal

    with Terminal() as terminal:
        made = walkthrough.demo(data, out, minutes=minutes or walkthrough.MINUTES, seed=seed, device=device, watch=terminal)
    compare_summary(terminal, made.results, made.report.parent)


def views(
    data: Data,
    out: Annotated[Path, typer.Option(help="Picture to write, .png or .jpg.", show_default=False)],
    recipe: Annotated[str, typer.Option(help="A recipe of train, or published views: dinov2-paper, small.")] = "dino",
    domain: Domain = None,
    images: Annotated[int, typer.Option(help="How many images to show.")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the training to show.")] = 0,
    channels: Annotated[int | None, typer.Option(min=1, help="Channels of the images (3).", show_default=False)] = None,
    set: Annotated[
        list[str] | None, typer.Option("--set", help="One setting, e.g. --set views.grey=0.", show_default=False)
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Time so many workers; default: those of a training.", show_default=False)
    ] = None,
    device: Device = "auto",
) -> None:
    """Draw what the network will see of your images, and time how it is made on this machine."""
    from selfsight import api
    from selfsight.terminal import Terminal, views_summary

    with Terminal() as terminal:
        made = api.views(
            data,
            out,
            recipe=recipe,
            domain=domain,
            images=images,
            seed=seed,
            channels=channels,
            workers=workers,
            device=device,
            set=set or (),
            watch=terminal,
        )
        views_summary(terminal, made)


def doctor(
    compile: Annotated[bool, typer.Option("--compile", help="Measure what torch.compile gains, too (a minute or more).")] = False,
) -> None:
    """What this machine has, what is missing, and how fast it is."""
    from selfsight import checkup
    from selfsight.terminal import doctor_table

    findings = checkup.doctor(compile)
    doctor_table(findings)
    if any(finding.level == "bad" for finding in findings):
        raise typer.Exit(1)

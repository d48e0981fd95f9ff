"""`propagate`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfsight.cli.going_on import going_on
from selfsight.cli.options import Device
from selfsight.runs import counted

if TYPE_CHECKING:
    from rich.table import Table


def propagate(
    encoder: Annotated[str, typer.Argument(help="Encoder spec.")],
    video: Annotated[str, typer.Argument(help="Video file, or a folder of frames in order.")],
    mask: Annotated[Path, typer.Argument(help="Indexed PNG of the first frame: 0 is no object, each object has its number.")],
    out: Annotated[Path, typer.Option(help="Folder for the masks and the film.", show_default=False)],
    truth: Annotated[
        Path | None, typer.Option(help="Folder of true masks by the names of frames, to measure J and F.", show_default=False)
    ] = None,
    top: Annotated[int, typer.Option(help="A place takes its labels from so many likest places.")] = 5,
    radius: Annotated[int, typer.Option(help="How many places away these may be.")] = 12,
    context: Annotated[int, typer.Option(help="In how many of the last frames, besides the first, they are looked for.")] = 7,
    size: Annotated[
        int | None,
        typer.Option(help="Shorter side of the frames for the encoder; default: that of its input.", show_default=False),
    ] = None,
    device: Device = "auto",
) -> None:
    """Follow the objects of a video's first frame by likeness alone; the same command goes on with an interrupted one."""
    with going_on("; masks that are done are kept;"):
        from selfsight import api
        from selfsight.terminal import Terminal

        with Terminal() as terminal:
            made = api.propagate(
                encoder,
                video,
                mask,
                out,
                truth=truth,
                top=top,
                radius=radius,
                context=context,
                size=size,
                device=device,
                watch=terminal,
            )
    if made["scores"] is not None:
        terminal.console.print(_table(made["scores"]))
        terminal.say(scores_summary(made["scores"]))
    terminal.say(_closing(made))


def scores_summary(scores: Mapping[str, Any]) -> str:
    """J&F, and what standing still would have."""
    return (
        f"J&F {scores['j_and_f']:.1f} over {scores['frames']} frames; "
        f"{scores['floor']['j_and_f']:.1f} where the first mask stays where it is"
    )


def _table(scores: Mapping[str, Any]) -> Table:
    from rich.table import Table

    table = Table(title="percent", title_justify="left")
    table.add_column("object")
    for measure in ("J", "F"):
        for what in ("mean", "recall", "decay"):
            table.add_column(f"{measure} {what}", justify="right")
    rows = [*scores["objects"].items(), *([("all", scores)] if len(scores["objects"]) > 1 else [])]
    for name, row in rows:
        table.add_row(name, *(f"{row[measure][what]:.1f}" for measure in ("j", "f") for what in ("mean", "recall", "decay")))
    return table


def _closing(made: Mapping[str, Any]) -> str:
    """The last line."""
    height, width = made["grid"]
    what = f"{counted(len(made['objects']), 'object')} in {counted(made['frames'], 'frame')}, seen as {height} x {width} places"
    return f"done: {', '.join(made['files'])}; {what}"

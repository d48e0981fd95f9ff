"""`attend`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from selfsight.cli.going_on import going_on
from selfsight.cli.options import DATA, Device, Limit, MaxBad, MaxPixels, Strict
from selfsight.runs import counted

_MAPS = (
    "attention, heads, mask, rollout, registers, point, similarity, pca, component, norm, outliers; with commas. "
    "By default what the encoder has."
)


def attend(
    encoder: Annotated[str, typer.Argument(help="Encoder spec.")],
    input: Annotated[str, typer.Argument(help=f"An image, or: {DATA}")],
    out: Annotated[Path, typer.Option(help="Folder to write to.", show_default=False)],
    maps: Annotated[str, typer.Option(help=_MAPS, show_default=False)] = "",
    format: Annotated[
        str, typer.Option(help="png, npz, sheet; mp4 and gif of videos; with commas.", show_default="png,npz,sheet or sheet,mp4")
    ] = "",
    size: Annotated[
        int | None, typer.Option(help="Pixels of the shorter side (the encoder's own size).", show_default=False)
    ] = None,
    tile: Annotated[
        int | None, typer.Option(help="See larger pictures in overlapping tiles of this side.", show_default=False)
    ] = None,
    block: Annotated[int, typer.Option(help="Whose attention is shown: from 0, or -1 for the last.")] = -1,
    mass: Annotated[float, typer.Option(help="Share of the attention that the mask holds.")] = 0.6,
    query: Annotated[
        str | None, typer.Option(help="A point x,y in pixels of the picture: what is like it.", show_default=False)
    ] = None,
    registers: Annotated[str, typer.Option(help="off, or auto: replace outlier tokens by their neighbours.")] = "off",
    rows: Annotated[int, typer.Option(help="Pictures on the sheet.")] = 24,
    limit: Limit = None,
    device: Device = "auto",
    strict: Strict = False,
    max_bad: MaxBad = 5.0,
    max_pixels: MaxPixels = None,
) -> None:
    """Maps of what an encoder sees in images or a video; the same command goes on with an interrupted one."""
    with going_on("; what is done is kept,"):
        from selfsight import api
        from selfsight.terminal import Terminal

        with Terminal() as terminal:
            summary = api.attend(
                encoder,
                input,
                out,
                maps=maps,
                format=format,
                size=size,
                tile=tile,
                block=block,
                mass=mass,
                query=query,
                registers=registers,
                rows=rows,
                limit=limit,
                device=device,
                strict=strict,
                max_bad=max_bad,
                max_pixels=max_pixels,
                watch=terminal,
            )
    terminal.say(_closing(out, summary))


def _closing(out: Path, summary: Mapping[str, Any]) -> str:
    """The last line."""
    text = f"done: {out}, {counted(summary['pictures'], 'picture')}, maps {', '.join(summary['maps'])}"
    if summary["sheet"]:
        text += f"; look at {summary['sheet']}"
    if summary["films"]:
        text += f"; {counted(len(summary['films']), 'film')}, first {summary['films'][0]}"
    if summary["outliers"]:
        text += f"; {100 * summary['outliers']:.1f} % of the tokens are outliers (--registers auto replaces them)"
    if summary["bad_images"]:
        text += f"; {counted(summary['bad_images'], 'file')} skipped, listed in {out / 'bad_images.jsonl'}"
    return text

"""`objects`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from selfsight.cli.going_on import going_on
from selfsight.cli.options import Data, Device, Limit, MaxBad, MaxPixels, Strict, Workers
from selfsight.runs import counted


def objects(
    encoder: Annotated[str, typer.Argument(help="Encoder spec: a ViT, or a CNN of torch.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="COCO file (.json), or the folder of another --format to write.", show_default=False)],
    method: Annotated[str, typer.Option(help="tokencut, lost, attention (of CLS) or kmeans.")] = "tokencut",
    count: Annotated[int, typer.Option(help="Objects an image, at most.")] = 1,
    size: Annotated[
        int | None, typer.Option(help="Shorter side of the image in pixels (that of the encoder's input).", show_default=False)
    ] = None,
    mass: Annotated[
        float | None, typer.Option(help="With attention: the share of it that is kept (0.6).", show_default=False)
    ] = None,
    refine: Annotated[str, typer.Option(help="none, or guided: masks drawn to the edges of the image.")] = "none",
    format: Annotated[str | None, typer.Option(help="coco, yolo, yolo-seg or masks (PNG).", show_default=False)] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="A .png that shows what was found in the first images.", show_default=False)
    ] = None,
    limit: Limit = None,
    device: Device = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images a batch.")] = 8,
    workers: Workers = 0,
    strict: Strict = False,
    max_bad: MaxBad = 5.0,
    max_pixels: MaxPixels = None,
) -> None:
    """Find objects in images without a label: masks and boxes; the same command goes on with an interrupted one."""
    with going_on(" before the first image;"):
        from selfsight import api
        from selfsight.terminal import Terminal

        with Terminal() as terminal:
            found = api.objects(
                encoder,
                data,
                out,
                method=method,
                count=count,
                size=size,
                mass=mass,
                refine=refine,
                format=format,
                sheet=sheet,
                limit=limit,
                device=device,
                batch_size=batch_size,
                workers=workers,
                strict=strict,
                max_bad=max_bad,
                max_pixels=max_pixels,
                watch=terminal,
            )
    terminal.say(_closing(out, found))


def _closing(out: Path, found: Mapping[str, Any]) -> str:
    """The last line."""
    from selfsight.runs import bad_list_of
    from selfsight.terminal import skipped

    rate = found["images_per_second"]
    speed = "all done before" if rate is None else f"{rate:.1f} images/s"
    empty = f", none in {found['empty']}" if found["empty"] else ""
    what = f"{counted(found['objects'], 'object')} in {counted(found['images'], 'image')}"
    text = f"done: {', '.join(found['files'])}, {what}{empty}, {speed}"
    return text + skipped(bad_list_of(out))

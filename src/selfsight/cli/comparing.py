"""`compare` and `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selfsight.cli.going_on import going_on
from selfsight.cli.options import DATA, Device, MaxBad, MaxPixels, NoImages, Strict, Workers


def compare(
    encoder: Annotated[
        list[str], typer.Option("--encoder", "-e", help="An encoder; the first is the incumbent.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Results folder.", show_default=False)],
    data: Annotated[str | None, typer.Argument(help=f"{DATA} Not needed with --shift.", show_default=False)] = None,
    test: Annotated[str | None, typer.Option(help="Test images; default: a quarter of each class.", show_default=False)] = None,
    incumbent: Annotated[str | None, typer.Option(help="The encoder in use today, if not the first.", show_default=False)] = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            help="Of knn, linear, finetune, segmentation, shift, with commas between; default: knn,linear.", show_default=False
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Repeats of tasks that draw at random.")] = 1,
    margin: Annotated[float, typer.Option(help="Points that a cheaper challenger may be worse.")] = 1.0,
    limit: Annotated[int | None, typer.Option(help="First N training images, N test images drawn.", show_default=False)] = None,
    group_by: Annotated[
        str | None, typer.Option(help="Column (patient, video, site) whose groups stay in one part.", show_default=False)
    ] = None,
    masks: Annotated[
        str | None,
        typer.Option(
            help="Masks for segmentation: COCO .json, VOC folder, folder of PNGs, alpha; a drawn set has its own.",
            show_default=False,
        ),
    ] = None,
    mask_limit: Annotated[int, typer.Option(min=1, help="Pictures with masks that segmentation looks at, at most.")] = 300,
    shift: Annotated[
        str | None,
        typer.Option(help="Set for the task shift, or the spec of one, which is drawn to OUT/drawn first.", show_default=False),
    ] = None,
    shift_count: Annotated[int, typer.Option(min=1, help="Training pictures of a spec that is drawn.")] = 1000,
    before: Annotated[
        Path | None,
        typer.Option(help="Results of the task shift before 'refine': says what changed since.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of splits.")] = 0,
    device: Device = "auto",
    workers: Workers = 0,
    strict: Strict = False,
    max_bad: MaxBad = 5.0,
    max_pixels: MaxPixels = None,
    no_images: NoImages = False,
) -> None:
    """Compare encoders on your images; writes results and a report with the verdict."""
    from selfsight import api
    from selfsight.cli.answers import compare_summary
    from selfsight.terminal import Terminal

    with Terminal() as terminal, going_on("; features and what was measured against masks are kept;"):
        results = api.compare(
            data,
            encoder,
            out,
            test=test,
            incumbent=incumbent,
            tasks=None if tasks is None else [name.strip() for name in tasks.split(",") if name.strip()],
            margin=margin,
            seeds=seeds,
            seed=seed,
            limit=limit,
            group_by=group_by,
            masks=masks,
            mask_limit=mask_limit,
            shift=shift,
            shift_count=shift_count,
            before=before,
            device=device,
            workers=workers,
            strict=strict,
            max_bad=max_bad,
            max_pixels=max_pixels,
            images=not no_images,
            watch=terminal,
        )
    compare_summary(terminal, results, out)


def report(
    folder: Annotated[Path, typer.Argument(help="Results folder of a comparison.")],
    no_images: NoImages = False,
) -> None:
    """Draw report.html of a results folder again."""
    from selfsight import api

    print(api.report(folder, images=not no_images))

"""Arguments and options that several verbs share."""

from __future__ import annotations

from typing import Annotated

import typer

DATA = "Folder of images (sub-folders are classes), Parquet, table of paths, tar shards (also s3://, https://), video or mixture."
WHAT, RUN, IMAGES = "What is trained", "How long and where", "Which images"
"""Groups of options on the help pages."""
Data = Annotated[str, typer.Argument(help=DATA)]
Limit = Annotated[int | None, typer.Option(help="Use at most this many images.", rich_help_panel=IMAGES, show_default=False)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes that read and decode images; 0 reads in this one.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first image that cannot be read.", rich_help_panel=IMAGES)]
MaxBad = Annotated[
    float, typer.Option(help="Stop where more images than this cannot be read, in percent.", rich_help_panel=IMAGES)
]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        min=1, help="Refuse larger images (200 million pixels): decompression bombs.", rich_help_panel=IMAGES, show_default=False
    ),
]
Domain = Annotated[
    str | None,
    typer.Option(
        help="What the images are: photos (default), documents, aerial or microscopy.",
        rich_help_panel=IMAGES,
        show_default=False,
    ),
]
NoImages = Annotated[bool, typer.Option("--no-images", help="Leave every picture and file name out of the report.")]

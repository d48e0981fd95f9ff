"""The command line: parse, call the function of the same name, print. Nothing else is decided here."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from selfsight import __version__
from selfsight.errors import ElsewhereError, Interrupted, SelfsightError

if TYPE_CHECKING:
    from selfsight.ssl.signals import Asked

app = typer.Typer(
    name="selfsight",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="[bold]Should a self-supervised Vision Transformer replace your CNN?[/bold]\n\n"
    "Train one on your unlabelled images, compare it with what you use today, read the verdict.\n\n"
    "[dim]Start with[/dim] selfsight demo[dim], or on your own images:[/dim]\n\n"
    "  selfsight train photos --out runs/mine --minutes 60\n\n"
    "  selfsight compare labelled --encoder efficientnet-lite0 --encoder runs/mine --out results",
    epilog="Encoders: runs/NAME · timm/NAME · file/PATH?arch=NAME · onnx/PATH · efficientnet-lite0 · random/NAME · pixels. "
    "Options follow a question mark: timm/resnet50.a1_in1k?size=160",
)

_DATA = (
    "Folder of images (sub-folders are classes), Parquet, table of paths, tar shards (also s3://, https://), video or mixture."
)
_WHAT, _RUN, _IMAGES = "What is trained", "How long and where", "Which images"
"""Groups of options on the help pages."""
Data = Annotated[str, typer.Argument(help=_DATA)]
Limit = Annotated[int | None, typer.Option(help="Use at most this many images.", rich_help_panel=_IMAGES, show_default=False)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes that read and decode images; 0 reads in this one.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first image that cannot be read.", rich_help_panel=_IMAGES)]
MaxBad = Annotated[
    float, typer.Option(help="Stop where more images than this cannot be read, in percent.", rich_help_panel=_IMAGES)
]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        min=1, help="Refuse larger images (200 million pixels): decompression bombs.", rich_help_panel=_IMAGES, show_default=False
    ),
]
Domain = Annotated[
    str | None,
    typer.Option(
        help="What the images are: photos (default), documents, aerial or microscopy.",
        rich_help_panel=_IMAGES,
        show_default=False,
    ),
]
NoImages = Annotated[bool, typer.Option("--no-images", help="Leave every picture and file name out of the report.")]


def _version(asked: bool) -> None:
    if asked:
        print(f"selfsight {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    return


@app.command(rich_help_panel="The main job")
def train(
    data: Annotated[list[str] | None, typer.Argument(help=f"{_DATA} Several are mixed.", show_default=False)] = None,
    out: Annotated[Path, typer.Option(help="Run folder to make.", show_default=False)] = Path("runs/run"),
    recipe: Annotated[
        str | None, typer.Option(help="Which recipe derives the settings (dino).", rich_help_panel=_WHAT, show_default=False)
    ] = None,
    domain: Domain = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="A timm name, or vit_w192_d6_p4: width, depth, patch. Default: by image size.",
            rich_help_panel=_WHAT,
            show_default=False,
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(help="Start from the weights of this encoder (see Encoders).", rich_help_panel=_WHAT, show_default=False),
    ] = None,
    batch_size: Annotated[
        str | None,
        typer.Option(
            help="Images a step, or auto: the most that fit into memory. Rates follow it.",
            rich_help_panel=_WHAT,
            show_default=False,
        ),
    ] = None,
    guide: Annotated[
        str | None,
        typer.Option(help="With --recipe distill: learn what this encoder sees.", rich_help_panel=_WHAT, show_default=False),
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Train for so many epochs (100).", rich_help_panel=_RUN, show_default=False)
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Or for so many minutes.", rich_help_panel=_RUN, show_default=False)
    ] = None,
    limit: Limit = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of every random draw (0).", rich_help_panel=_RUN, show_default=False)
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto (default), cpu, cuda, cuda:N or mps.", rich_help_panel=_RUN, show_default=False)
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="With torchrun: ddp (each rank holds all), fsdp (each a part) or auto: ddp where it fits.",
            rich_help_panel=_RUN,
            show_default=False,
        ),
    ] = None,
    channels: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Channels of the images (3): 1, or those of a multispectral TIFF.",
            rich_help_panel=_IMAGES,
            show_default=False,
        ),
    ] = None,
    strict: Strict = False,
    max_bad: Annotated[
        float | None, typer.Option(help=MaxBad.__metadata__[0].help + " (5)", rich_help_panel=_IMAGES, show_default=False)
    ] = None,
    max_pixels: MaxPixels = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out from its last checkpoint.", rich_help_panel=_RUN)
    ] = False,
    slurm: Annotated[
        str | None,
        typer.Option(
            help="Run it as a job of a Slurm cluster: partition=gpu,nodes=2,gpus=8,hours=24.",
            rich_help_panel=_RUN,
            show_default=False,
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.", rich_help_panel=_WHAT, show_default=False)] = None,
    set: Annotated[
        list[str] | None,
        typer.Option("--set", help="One setting, e.g. --set views.local_count=4.", rich_help_panel=_WHAT, show_default=False),
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
                    raise ConfigError(f"train: give DATA. {_DATA}")
        except (Asked, Interrupted) as stopped:
            raise _stopped(stopped, data, out) from None
    terminal.say(train_summary(out, summary))


@app.command(rich_help_panel="The main job")
def compare(
    data: Data,
    encoder: Annotated[
        list[str], typer.Option("--encoder", "-e", help="An encoder; the first is the incumbent.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Results folder.", show_default=False)],
    test: Annotated[str | None, typer.Option(help="Test images; default: a quarter of each class.", show_default=False)] = None,
    incumbent: Annotated[str | None, typer.Option(help="The encoder in use today, if not the first.", show_default=False)] = None,
    tasks: Annotated[str, typer.Option(help="Tasks, separated by commas.")] = "knn,linear",
    seeds: Annotated[int, typer.Option(help="Repeats of tasks that draw at random.")] = 1,
    margin: Annotated[float, typer.Option(help="Points that a cheaper challenger may be worse.")] = 1.0,
    limit: Annotated[int | None, typer.Option(help="First N training images, N test images drawn.", show_default=False)] = None,
    group_by: Annotated[
        str | None, typer.Option(help="Column (patient, video, site) whose groups stay in one part.", show_default=False)
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
    from selfsight.terminal import Terminal, compare_summary

    with Terminal() as terminal:
        results = api.compare(
            data,
            encoder,
            out,
            test=test,
            incumbent=incumbent,
            tasks=[name.strip() for name in tasks.split(",") if name.strip()],
            margin=margin,
            seeds=seeds,
            seed=seed,
            limit=limit,
            group_by=group_by,
            device=device,
            workers=workers,
            strict=strict,
            max_bad=max_bad,
            max_pixels=max_pixels,
            images=not no_images,
            watch=terminal,
        )
    compare_summary(terminal, results, out)


@app.command(rich_help_panel="The main job")
def report(
    folder: Annotated[Path, typer.Argument(help="Results folder of a comparison.")],
    no_images: NoImages = False,
) -> None:
    """Draw report.html of a results folder again."""
    from selfsight import api

    print(api.report(folder, images=not no_images))


@app.command(rich_help_panel="Use an encoder")
def embed(
    encoder: Annotated[str, typer.Argument(help="Encoder spec.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Parquet file to write.", show_default=False)],
    limit: Limit = None,
    device: Device = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images a batch.")] = 64,
    workers: Workers = 0,
    strict: Strict = False,
    max_bad: MaxBad = 5.0,
    max_pixels: MaxPixels = None,
) -> None:
    """Images in, a Parquet file of features out."""
    from selfsight import api
    from selfsight.terminal import Terminal, embed_summary

    with Terminal() as terminal:
        summary = api.embed(
            encoder,
            data,
            out,
            limit=limit,
            device=device,
            batch_size=batch_size,
            workers=workers,
            strict=strict,
            max_bad=max_bad,
            max_pixels=max_pixels,
            watch=terminal,
        )
    terminal.say(embed_summary(out, summary))


@app.command(rich_help_panel="Start here")
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
    from selfsight.terminal import Terminal, compare_summary

    with Terminal() as terminal:
        made = walkthrough.demo(data, out, minutes=minutes or walkthrough.MINUTES, seed=seed, device=device, watch=terminal)
    compare_summary(terminal, made.results, made.report.parent)


@app.command(rich_help_panel="Start here")
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


@app.command(rich_help_panel="Start here")
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


def _stopped(by: Asked | Interrupted, data: list[str] | None, out: Path) -> Interrupted:
    """`by`, with the command by which the training goes on, or begins again."""
    from selfsight.runs import RunFolder

    if not isinstance(by, Interrupted):
        before = "" if RunFolder(out).exists else " before the first step, nothing is lost"
        by = Interrupted(by.number, f"stopped by {by.name}{before}")
    if RunFolder(out).exists:
        how = "go on with: " + shlex.join(["selfsight", "train", *(data or []), "--out", str(out), "--resume"])
    else:
        how = "start again with: " + shlex.join(["selfsight", *sys.argv[1:]])
    told = Interrupted(by.number, f"{by}; {how}")
    told.alone = by.alone
    return told


def main(argv: list[str] | None = None) -> NoReturn:
    """Run the program; a user's mistake is one line and exit code 2, never a traceback."""
    try:
        code: Any = app(args=argv, standalone_mode=False)
    except ElsewhereError as error:
        sys.exit(error.exit_code)
    except SelfsightError as error:
        if error.alone or os.environ.get("RANK", "0") == "0":
            print(f"selfsight: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        print(f"selfsight: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, (FileExistsError, NotADirectoryError, PermissionError, IsADirectoryError)) else 1)
    except typer.Abort:
        sys.exit(130)
    except KeyboardInterrupt:
        print("selfsight: stopped", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        # Typer's own usage errors carry the exit code and print themselves in its style.
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            error.show()
            sys.exit(error.exit_code)
        raise
    sys.exit(code if isinstance(code, int) else 0)

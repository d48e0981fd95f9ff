"""`finetune` and `predict`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from selfsight.cli.options import DATA, IMAGES, RUN, WHAT, Data, Device, Limit, MaxBad, MaxPixels, Strict, Workers
from selfsight.errors import Interrupted


def finetune(
    encoder: Annotated[str | None, typer.Argument(help="Encoder spec.", show_default=False)] = None,
    data: Annotated[str | None, typer.Argument(help=f"{DATA} With labels.", show_default=False)] = None,
    out: Annotated[Path, typer.Option(help="Run folder to make.", show_default=False)] = Path("runs/classifier"),
    validation: Annotated[
        str | None,
        typer.Option(help="Images to judge by; default: a fifth of each class.", rich_help_panel=IMAGES, show_default=False),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            help="Column (patient, video, site) whose groups stay in one part.", rich_help_panel=IMAGES, show_default=False
        ),
    ] = None,
    freeze: Annotated[bool, typer.Option("--freeze", help="Train the head alone.", rich_help_panel=WHAT)] = False,
    lora: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Train adapters of this rank in a ViT's attention, not its weights (needs peft).",
            rich_help_panel=WHAT,
            show_default=False,
        ),
    ] = None,
    mixup: Annotated[
        float | None,
        typer.Option(min=0, help="Mix images in shares from Beta(A, A), say 0.2.", rich_help_panel=WHAT, show_default=False),
    ] = None,
    cutmix: Annotated[
        float | None,
        typer.Option(min=0, help="Put a part of another image in, say 1.0.", rich_help_panel=WHAT, show_default=False),
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Train for at most so many epochs (20).", rich_help_panel=RUN, show_default=False)
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Or for so many minutes.", rich_help_panel=RUN, show_default=False)
    ] = None,
    patience: Annotated[
        float | None, typer.Option(help="Epochs without better weights to end at (5).", rich_help_panel=RUN, show_default=False)
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images a step; rates follow it.", rich_help_panel=WHAT, show_default=False)
    ] = None,
    limit: Limit = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of every random draw (0).", rich_help_panel=RUN, show_default=False)
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto (default), cpu, cuda, cuda:N or mps.", rich_help_panel=RUN, show_default=False)
    ] = None,
    strict: Strict = False,
    max_bad: Annotated[
        float | None, typer.Option(help=MaxBad.__metadata__[0].help + " (5)", rich_help_panel=IMAGES, show_default=False)
    ] = None,
    max_pixels: MaxPixels = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out from its last checkpoint.", rich_help_panel=RUN)
    ] = False,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.", rich_help_panel=WHAT, show_default=False)] = None,
    set: Annotated[
        list[str] | None,
        typer.Option("--set", help="One setting, e.g. --set views.flip=0.", rich_help_panel=WHAT, show_default=False),
    ] = None,
) -> None:
    """Cut the head off an encoder and train a new one on labelled images; leaves a run that answers with classes."""
    from selfsight.cli.training import stopped_run
    from selfsight.ssl.signals import Asked, Stop

    words = ["finetune", *(word for word in (encoder, data) if word is not None)]
    with Stop(always=True):
        try:
            from selfsight import api
            from selfsight.terminal import Terminal

            class Shows(Terminal):
                """Tells what every look at the validation part found."""

                def on_probe(self, row: Mapping[str, Any]) -> None:
                    self._probe = f"  {_scores(row)}"
                    self.say(f"  epoch {row['epoch']:6.2f}{self._probe}")

            told: dict[str, Any] = {"validation": validation, "group_by": group_by, "freeze": freeze, "lora": lora}
            told |= {"mixup": mixup, "cutmix": cutmix, "epochs": epochs, "minutes": minutes, "patience": patience}
            told |= {"batch_size": batch_size, "limit": limit, "seed": seed, "device": device, "strict": strict or None}
            told |= {"max_bad": max_bad, "max_pixels": max_pixels, "config": config, "set": set or (), "resume": resume}
            with Shows() as terminal:
                summary = api.finetune(encoder, data, out, watch=terminal, **told)
        except (Asked, Interrupted) as stopped:
            raise stopped_run(stopped, words, out) from None
    terminal.say(_summary(out, summary))


def predict(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Run folder that finetune left.", show_default=False)],
    images: Data,
    out: Annotated[Path, typer.Option(help="File to write, .parquet or .csv.", show_default=False)],
    limit: Limit = None,
    device: Device = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images a batch.")] = 64,
    workers: Workers = 0,
    strict: Strict = False,
    max_bad: MaxBad = 5.0,
    max_pixels: MaxPixels = None,
) -> None:
    """Images in, a file of classes and probabilities out."""
    from selfsight import api
    from selfsight.terminal import Terminal

    with Terminal() as terminal:
        found = api.predict(
            folder,
            images,
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
    terminal.say(_predicted(out, found))


_NAMES = {
    "val_top1": "top-1",
    "val_balanced_accuracy": "balanced",
    "val_map": "mAP",
    "val_macro_f1": "macro-F1",
    "val_accuracy": "accuracy",
}


def _scores(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {row[key]:.1f} %" for key, name in _NAMES.items() if key in row)


def _summary(out: Path, summary: Mapping[str, Any]) -> str:
    """The closing line of a fine-tuning."""
    told, step = summary["calibration"], summary["best_step"]
    best = "the linear probe, nothing was better" if step == 0 else f"best at step {step}"
    text = f"done: {out}, {summary['step']} steps, {best}: {_scores(summary['validation'])} on the validation part; "
    text += (
        f"calibration error {told['ece_before']:.1f} % -> {told['ece_after']:.1f} % at temperature {summary['temperature']:.2f}"
    )
    return text + (f"; {summary['bad_images']} files left out, listed in bad_images.jsonl" if summary["bad_images"] else "")


def _predicted(out: Path, found: Mapping[str, Any]) -> str:
    """The closing line of a prediction."""
    from selfsight.runs import bad_list_of

    common = sorted(found["answers"].items(), key=lambda pair: -pair[1])[:5]
    text = f"done: {out}, {found['images']} images: " + ", ".join(f"{name} {count}" for name, count in common if count)
    for key, name in (("top1", "top-1 accuracy"), ("accuracy", "accuracy of all yes and no")):
        if key in found:
            text += f"; {name} {found[key]:.1f} % (95 %: {found['low']:.1f} to {found['high']:.1f})"
    bad = found["bad_images"]
    return text + (f"; {bad} files left out, listed in {bad_list_of(out)}" if bad else "")

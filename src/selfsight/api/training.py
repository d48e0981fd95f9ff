"""`train`: from images without labels to a run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from selfsight import config
from selfsight import device as devices
from selfsight.api.guiding import EncoderGuide
from selfsight.api.probe import make_probe
from selfsight.api.starting import Handed, saved_start
from selfsight.api.tolerance import tolerance
from selfsight.api.watch import Silent, Watch
from selfsight.data.decode import DecodeSettings
from selfsight.data.presets import DEFAULT_DOMAIN
from selfsight.data.sources import BadImage, Data, Source, absolute, first, open_source
from selfsight.encoders import parse_spec
from selfsight.errors import ConfigError, InputError, nearest
from selfsight.runs import RunFolder, append_jsonl
from selfsight.ssl import parallel
from selfsight.ssl.changing import continued, record
from selfsight.ssl.estimate import estimate
from selfsight.ssl.facts import look_at
from selfsight.ssl.fit import Training
from selfsight.ssl.memory import largest_batch, within_memory
from selfsight.ssl.recipes import NEEDS, RECIPES, Derived, as_tree, replacing, with_domain
from selfsight.ssl.settings import TrainSettings, check
from selfsight.ssl.world import World

DEFAULT_EPOCHS = 100.0


def train(
    data: Data,
    out: str | Path,
    *,
    recipe: str = "dino",
    domain: str | None = None,
    backbone: str | None = None,
    init: str | None = None,
    guide: str | None = None,
    epochs: float | None = None,
    minutes: float | None = None,
    batch_size: int | Literal["auto"] | None = None,
    limit: int | None = None,
    seed: int | None = None,
    device: str | None = None,
    strategy: str | None = None,
    channels: int | None = None,
    strict: bool | None = None,
    max_bad: float | None = None,
    max_pixels: int | None = None,
    config: str | Path | None = None,
    set: Sequence[str] | Mapping[str, Any] = (),
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Train without labels and leave a run folder at `out`; returns a summary (step, loss, elapsed_s, knn_top1...).

    `data` is a source, a list of them, or a mapping of sources to weights.

    `init` is an encoder whose weights the training starts from; network, sizes and normalisation follow it.
    `guide` is an encoder that the recipe distill follows. Rates follow `batch_size`; "auto" is the largest that fits into
    memory.

    Settings come, each over the one before, from the recipe for these images, from the `domain` (photos, documents, aerial,
    microscopy), which says how their views may be changed, from the file `config`, from the named arguments and from `set`
    (`["views.local_count=4"]` or a nested dictionary). More unreadable images than `max_bad` percent (5) stop the run, with
    `strict` the first one does; `max_pixels` refuses larger ones; `channels` takes images of other than three. Labels in the data
    are used by the k-NN probe alone. Of several ranks each holds the state of the training whole (`strategy` ddp) or a part of it
    (fsdp). Raises `InputError` for what is wrong beforehand, `TrainingError` for a run that collapsed,
    `Interrupted` on a signal.
    """
    given: dict[str, Any] = {"epochs": epochs, "minutes": minutes, "limit": limit, "seed": seed, "device": device}
    given |= {"domain": domain, "init": init, "guide": guide, "strategy": strategy}
    given |= {"tolerance": told_tolerance(strict, max_bad), "views": reading(channels, max_pixels)}
    given |= {"batch_size": None if batch_size == "auto" else batch_size}
    if recipe == "finetune":
        raise ConfigError("--recipe finetune: needs a validation part; take the verb: selfsight finetune ENCODER DATA --out DIR")
    folder = unused(out)
    handed = Handed()
    with parallel.joined() as world:
        watch = watch if watch is not None and world.leads else Silent()
        source = world.in_turn(lambda: open_source(data))
        plan = world.first(lambda: plan_training(source, recipe, backbone, given, config, set, world.cores, handed))
        settings = plan[0].model_copy(update={"data": seen_from_anywhere(data)})
        parallel.check(settings, world)
        source = first(source, settings.limit)
        initial = world.in_turn(lambda: handed.initial(settings.init))
        start = None if initial is None else initial.tensors(settings)
        following = _following(settings, handed, world)
        if batch_size == "auto":
            if world.count > 1:
                raise ConfigError(f"--batch-size auto: measures one device, and there are {world.count} ranks; give a number")
            fits, why = largest_batch(settings, source, world.device(settings.device), start, following)
            plan = plan_training(source, recipe, backbone, given | {"batch_size": fits}, config, set, world.cores, handed)
            settings = plan[0].model_copy(update={"data": settings.data})
            plan = plan[0], replacing(plan[1], [Derived("batch_size", fits, why)]), plan[2]
        with within_memory(settings, folder):
            expected = estimate(settings, source, world, start, following)
        watch.on_plan(settings, plan[1], expected)
        for note in () if initial is None else initial.notes:
            watch.say(f"{settings.init}: {note}")
        world.first(lambda: begin(folder, plan[2]))
        return _run(settings, source, folder, watch, world, start, following, resume=False)


def unused(out: str | Path) -> RunFolder:
    """The run folder to make; `InputError` where there is one."""
    folder = RunFolder(out)
    if folder.exists:
        raise InputError(f"{out}: holds a run already; go on with it by --resume, or give another --out")
    return folder


def begin(folder: RunFolder, bad: Sequence[BadImage]) -> None:
    """Make the folder, and list the bad images met so far."""
    folder.path.mkdir(parents=True, exist_ok=True)
    if bad:
        append_jsonl(folder.bad_images, [{"key": b.key, "reason": b.reason} for b in bad])


def resume(
    out: str | Path,
    *,
    epochs: float | None = None,
    minutes: float | None = None,
    device: str | None = None,
    strategy: str | None = None,
    strict: bool | None = None,
    max_bad: float | None = None,
    config: str | Path | None = None,
    set: Sequence[str] | Mapping[str, Any] = (),
    watch: Watch | None = None,
    **again: Any,
) -> dict[str, Any]:
    """Go on with an interrupted or finished run from its last checkpoint, with the settings in its `config.yaml`.

    What leaves it the same training may change: the budget (it counts from the start of the run; the schedules go on at the share
    of it that is used), the device, precision, threads, workers, `parts`, how its state is divided between ranks, how often it is
    logged, probed and saved, and what it bears of bad images. The change is kept in `config.yaml` and listed in `changes.jsonl`.
    Whatever else `train` takes may be given `again`, where it is as it was; `ConfigError` names what may not change.
    """
    folder = RunFolder(out)
    if not folder.exists:
        raise InputError(f"{out}: is no run to resume; expected a folder with config.yaml, as 'selfsight train' leaves it")
    given = again | {"epochs": epochs, "minutes": minutes, "device": device, "strategy": strategy}
    given |= {"tolerance": told_tolerance(strict, max_bad)}
    before = load_settings(folder)
    if before.finetune is not None:
        raise InputError(f"{out}: is a fine-tuning; go on with: selfsight finetune --out {out} --resume")
    settings = continued(before, changes(given, config, set), folder)
    resumed = can_go_on(folder)
    with parallel.joined() as world:
        parallel.check(settings, world)
        source = first(world.in_turn(lambda: open_source(settings.data)), settings.limit)
        if len(source) != settings.images:
            raise InputError(
                f"{settings.data}: holds {len(source)} images now, {settings.images} when the run began; start a new run"
            )
        watch = watch if watch is not None and world.leads else Silent()
        start = None if resumed else saved_start(folder, settings)
        if said := world.first(lambda: record(before, settings, folder)):
            watch.say(said)
        following = _following(settings, Handed(), world)
        return _run(settings, source, folder, watch, world, start, following, resume=resumed)


def can_go_on(folder: RunFolder) -> bool:
    """Whether there is a checkpoint; `InputError` where there was one once."""
    if folder.teacher.is_file() and not folder.checkpoints:
        raise InputError(
            f"{folder.path}: its checkpoint is gone, so it cannot go on as it was; its teacher can: "
            f"start a new run with --init {folder.path} and another --out"
        )
    return bool(folder.checkpoints)


def load_settings(folder: RunFolder) -> TrainSettings:
    """The settings that a run was made with."""
    return config.load(TrainSettings, folder.config)


def changes(given: dict[str, Any], file: str | Path | None, overrides: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    """What a run is to go on with: a file of settings, over it what is named, over that single settings."""
    file_tree = config.read_yaml(file) if file is not None else {}
    set_tree = dict(overrides) if isinstance(overrides, Mapping) else config.parse_overrides(overrides)
    given["views"] = reading(given.pop("channels", None), given.pop("max_pixels", None))
    if isinstance(given.get("backbone"), str):
        given["backbone"] = {"name": given["backbone"]}
    over = config.merge(config.merge(file_tree, {key: value for key, value in given.items() if value is not None}), set_tree)
    if "data" in over:
        over["data"] = seen_from_anywhere(over["data"])
    for key in ("init", "guide"):
        if isinstance(over.get(key), str):
            over[key] = parse_spec(over[key]).absolute
    return over


def _following(settings: TrainSettings, handed: Handed, world: World) -> EncoderGuide | None:
    """The guide of a training, on its device."""
    guide = world.in_turn(lambda: handed.guide(settings.guide))
    return None if guide is None else guide.same(settings).on(world.device(settings.device), settings)


def plan_training(
    source: Source,
    recipe: str,
    backbone: str | None,
    given: Mapping[str, Any],
    file: str | Path | None,
    overrides: Sequence[str] | Mapping[str, Any],
    cores: int | None = None,
    handed: Handed | None = None,
    learns: str = "all",
) -> tuple[TrainSettings, list[Derived], list[Any]]:
    """Complete settings, what the recipe derived and was not overridden, and the bad images met on the way.

    `cores` are those of one rank; default: all. `learns` is what is trained of an encoder that is fine-tuned.
    """
    cores = cores or devices.cores()
    if recipe not in RECIPES:
        raise ConfigError(f"--recipe: no recipe '{recipe}'. {nearest(recipe, RECIPES)}")
    file_tree = config.read_yaml(file) if file is not None else {}
    set_tree = dict(overrides) if isinstance(overrides, Mapping) else config.parse_overrides(overrides)
    named_tree: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if backbone is not None:
        named_tree["backbone"] = {"name": backbone}
    # A budget of one kind takes the place of the other kind wherever that came from; DATA is always the argument's.
    for budget, other in (("epochs", "minutes"), ("minutes", "epochs")):
        if budget in named_tree:
            named_tree.setdefault(other, None)
    over = config.merge(config.merge(file_tree, named_tree), set_tree)
    over = {key: value for key, value in over.items() if key not in ("data", "images")}
    if isinstance(over.get("limit"), int):
        source = first(source, over["limit"])
    _check_encoders(recipe, over)
    handed = handed or Handed()
    initial = handed.initial(over.get("init"))
    guide = handed.guide(over.get("guide"))
    if initial is not None:
        over = config.merge({"views": {"read": {"channels": initial.channels}}}, over) | {"init": initial.spec.absolute}
    if guide is not None:
        over |= {"guide": guide.spec.absolute}
    on = devices.resolve(str(over.get("device", "auto")))
    look = look_at(source, on.type != "cpu", cores, _decode_settings(over))
    asked = over.get("batch_size")
    facts = look.facts._replace(batch=asked if isinstance(asked, int) and asked > 0 else None, learns=learns)
    name = _network(over)
    rows = RECIPES[recipe](facts, name if initial is None else initial.name)
    if facts.batch is not None:
        rows = replacing(rows, [Derived("batch_size", facts.batch, "given")])
    if initial is not None:
        rows = replacing(rows, initial.rows())
    rows = replacing(rows, [] if guide is None else guide.rows())
    derived = with_domain(rows, _domain(over, named_tree, file_tree, file), look.facts.channels)
    tree = as_tree(derived) | {"recipe": recipe, "data": absolute(source.location), "images": len(source)}
    tree = config.merge(tree | _shared_out(on, cores), over)
    if tree.get("epochs") is None and tree.get("minutes") is None:
        tree["epochs"] = DEFAULT_EPOCHS
    settings = config.build(TrainSettings, tree, str(file or "settings"))
    check(settings)
    if initial is not None:
        derived = [initial.checked(settings), *derived]
    values = settings.model_dump(mode="json")
    return settings, [d for d in derived if _at(values, d.key) == d.value], look.bad


def _network(over: Mapping[str, Any]) -> str | None:
    """The network that was asked for by name."""
    section = over.get("backbone")
    name = section.get("name") if isinstance(section, Mapping) else None
    if name is not None and not isinstance(name, str):
        raise ConfigError(f"backbone.name: expected a name. Got {name!r}.")
    return name


def _shared_out(on: torch.device, cores: int) -> dict[str, int | None]:
    """Cores for workers and for torch, whose threads wait for each other in every operation: sharing a core with a worker slows
    all of them down."""
    workers = usual_workers(on, cores)
    return {"workers": workers, "threads": max(1, cores - workers) if on.type == "cpu" else None}


def _check_encoders(recipe: str, over: Mapping[str, Any]) -> None:
    """`ConfigError` for an encoder too few or too many."""
    needed = NEEDS.get(recipe)
    if needed is not None and over.get(needed) is None:
        raise ConfigError(f"--recipe {recipe}: needs an encoder; name it, such as --{needed} efficientnet-lite0")
    if over.get("guide") is not None and needed != "guide":
        raise ConfigError(f"--guide {over['guide']}: recipe {recipe} follows no encoder; take --recipe distill")


def seen_from_anywhere(data: Data) -> str | list[str] | dict[str, float]:
    """The same data under names that hold in any folder, for a resume."""
    if isinstance(data, Mapping):
        return {absolute(str(location)): float(weight) for location, weight in data.items()}
    return absolute(str(data)) if isinstance(data, str | Path) else [absolute(str(location)) for location in data]


def told_tolerance(strict: bool | None, max_bad: float | None) -> dict[str, Any] | None:
    """Only what was given, so that a file of settings may say the rest."""
    given = tolerance(bool(strict), 0.0 if max_bad is None else max_bad).model_dump()
    return {key: given[key] for key, value in (("strict", strict), ("max_bad", max_bad)) if value is not None} or None


def reading(channels: int | None, max_pixels: int | None) -> dict[str, Any] | None:
    given = {"channels": channels, "max_pixels": max_pixels}
    found = {key: value for key, value in given.items() if value is not None}
    return {"read": found} if found else None


def _decode_settings(over: Mapping[str, Any]) -> DecodeSettings:
    views = over.get("views")
    read = views.get("read") if isinstance(views, Mapping) else None
    return config.build(DecodeSettings, read if isinstance(read, Mapping) else {}, "views.read")


def usual_workers(on: torch.device, cores: int) -> int:
    """Worker processes of a rank: one beside the network on the CPU, all cores but one where an accelerator has that."""
    return 1 if on.type == "cpu" else min(12, max(1, cores - 1))


def _domain(over: Mapping[str, Any], named: Mapping[str, Any], file: Mapping[str, Any], where: str | Path | None) -> str:
    """The views in a file are those of its own domain, so no other one can be named beside it."""
    domain = str(over.get("domain", DEFAULT_DOMAIN))
    before = file.get("domain", domain)
    if "domain" in named and "views" in file and before != domain:
        raise ConfigError(f"--domain {domain}: the views in {where} are those of the domain {before}; leave --domain out")
    return domain


def _at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree[part]
    return tree


def _run(
    settings: TrainSettings,
    source: Source,
    folder: RunFolder,
    watch: Watch,
    world: World,
    start: Mapping[str, Tensor] | None,
    guide: EncoderGuide | None,
    *,
    resume: bool,
) -> dict[str, Any]:
    probe = make_probe(source, settings.views, settings.seed, world.device(settings.device), world)
    with within_memory(settings, folder):
        training = Training(
            settings, source, folder, probe=probe, watcher=watch, resume=resume, world=world, start=start, guide=guide
        )
        return training.run()

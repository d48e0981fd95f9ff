"""`propagate`: the objects of a video's first frame found again in all others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from selfsight import device as devices
from selfsight.api.tracked import Tracked
from selfsight.api.watch import Silent, Watch
from selfsight.attention.overlays import Pixels, overlaid, write_film
from selfsight.attention.placing import check_outside
from selfsight.attention.propagation import Frame, Ids, Propagation, Rule, label_map, one_hot
from selfsight.attention.seeing import Eyes
from selfsight.data.clips import Clip, open_clip
from selfsight.data.object_ids import read_first_ids, read_ids, size_of
from selfsight.data.sources import absolute
from selfsight.data.sources.video_frames import import_av
from selfsight.encoders import load_encoder
from selfsight.errors import DataError, WeightsError
from selfsight.evaluate.tracks import Tracks
from selfsight.runs import alone, place_for_folder, write_atomic, write_json_atomic

_DEFAULT = Rule()


class _Start(NamedTuple):
    """The mask of the first frame, and the numbers of its objects."""

    path: Path
    ids: Ids
    objects: list[int]

    @property
    def classes(self) -> list[int]:
        return [0, *self.objects]


def propagate(
    encoder: str,
    video: str | Path,
    mask: str | Path,
    out: str | Path,
    *,
    truth: str | Path | None = None,
    top: int = _DEFAULT.top,
    radius: int = _DEFAULT.radius,
    context: int = _DEFAULT.context,
    size: int | None = None,
    device: str = "auto",
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Follow the objects of `mask` through `video` by the likeness of what `encoder` sees, with nothing trained for it.

    `video` is a file that PyAV reads or a folder of frames in order, `mask` an indexed PNG of its first frame, 0 for no object. A
    place takes its labels from the `top` places most like it, at most `radius` places away, in the first frame and the last
    `context` ones (`attention.propagation`). `size` is the side to which the shorter side of a frame is brought; by default that
    of the encoder's own input.

    `out` gets `masks/NAME.png` of every frame, `overlay.mp4` if PyAV is installed, and with `truth`, a folder of such PNGs by the
    names of frames, `scores.json`: J and F of each object over the frames between the first and the last. The same call goes on
    after an interruption, to the same masks to the bit. Returns frames, objects, grid, resumed (frames of earlier calls), scores
    (None without `truth`) and files. Raises `InputError`.
    """
    watch = watch or Silent()
    rule = Rule(top, radius, context).checked()
    path = place_for_folder(out)
    check_outside(path, str(video))
    with closing(open_clip(video)) as clip:
        start = _Start(Path(mask), *read_first_ids(Path(mask)))
        _check_size(start.path, start.ids.shape[::-1], clip)
        true = {} if truth is None else _true_masks(Path(truth), clip)
        eyes = _eyes(encoder, size, device, watch)
        with alone(path):
            tracked = Tracked(path, clip.names, _about(eyes, clip, start, rule))
            resumed = tracked.done
            grid = _follow(eyes, clip, start, rule, tracked, watch)
            files = [tracked.masks, *_film(clip, tracked, resumed, watch)]
            scores = _score(tracked, start, true, watch) if true else None
    if scores is not None:
        write_json_atomic(path / "scores.json", scores)
        files.append(path / "scores.json")
    return {
        "frames": len(clip),
        "objects": start.objects,
        "grid": grid,
        "resumed": resumed,
        "scores": scores,
        "files": [str(file) for file in files],
    }


def _eyes(spec: str, size: int | None, device: str, watch: Watch) -> Eyes:
    on = devices.resolve(device)
    loaded = load_encoder(spec)
    for note in loaded.notes:
        watch.say(f"{spec}: {note}")
    if not loaded.read.rgb:
        raise WeightsError(f"{spec}: takes images of {loaded.read.channels} channels; the frames of a video have three colours")
    return Eyes(loaded.to(on), size)


def _about(eyes: Eyes, clip: Clip, start: _Start, rule: Rule) -> dict[str, Any]:
    """All that decides a mask."""
    return {
        "encoder": eyes.encoder.spec,
        "fingerprint": eyes.encoder.fingerprint,
        "size": eyes.prepare.size,
        "video": absolute(clip.location),
        "mark": clip.mark,
        "mask": hashlib.blake2b(start.ids.tobytes(), digest_size=20).hexdigest(),
        "objects": start.objects,
        **rule._asdict(),
    }


def _follow(eyes: Eyes, clip: Clip, start: _Start, rule: Rule, tracked: Tracked, watch: Watch) -> tuple[int, int]:
    """Masks of all frames that have none yet; the grid."""
    features = _features(eyes, clip, 0)
    grid = (features.shape[0], features.shape[1])
    if tracked.done == len(clip):
        tracked.finish()
        return grid
    propagation = Propagation(Frame(features, _on_grid(start, grid).to(features.device)), rule)
    for place, soft in tracked.context():
        propagation.recall(Frame(_features(eyes, clip, place), soft.to(features.device)))
    if tracked.done:
        watch.say(f"{tracked.folder}: goes on after {tracked.done} of {len(clip)} frames")
    else:
        tracked.add(start.ids, [])
    for place in range(tracked.done, len(clip)):
        watch.advance("frames", place, len(clip))
        soft = propagation.advance(_features(eyes, clip, place))
        found = label_map(soft, start.classes, eyes.patch, start.ids.shape)
        tracked.add(found, propagation.last)
    watch.advance("frames", len(clip), len(clip))
    tracked.finish()
    return grid


def _features(eyes: Eyes, clip: Clip, place: int) -> Tensor:
    """Patches after the last norm, [H, W, D]."""
    device = next(eyes.backbone.parameters()).device
    tokens = eyes.encoder.tokens(eyes.prepare(clip.frame(place))[None].to(device))
    return tokens.patches[0].float().reshape(*tokens.grid, -1)


def _on_grid(start: _Start, grid: tuple[int, int]) -> Tensor:
    """One-hot labels of the first frame; each object must hold a place, or it could never be found again."""
    labels = one_hot(start.ids, start.classes, grid)
    lost = [each for each, shown in zip(start.classes, labels.flatten(1).any(1).tolist(), strict=True) if each and not shown]
    if lost:
        raise DataError(
            f"{start.path}: object {lost[0]} is too small for a map of {grid[0]} x {grid[1]} places; "
            "give a larger --size, or an encoder of smaller patches"
        )
    return labels


def _film(clip: Clip, tracked: Tracked, resumed: int, watch: Watch) -> list[Path]:
    """`overlay.mp4`, made again only where masks have been."""
    path = tracked.folder / "overlay.mp4"
    if resumed == len(clip) and path.is_file():
        return [path]
    try:
        import_av()
    except DataError as error:
        watch.say(f"no overlay.mp4: {error}")
        return []

    def frames() -> Iterator[Pixels]:
        for place in range(len(clip)):
            watch.advance("overlay", place, len(clip))
            yield overlaid(clip.frame(place), read_ids(tracked.mask(place)))
        watch.advance("overlay", len(clip), len(clip))

    write_atomic(path, lambda temporary: write_film(temporary, frames(), clip.rate))
    return [path]


def _check_size(path: Path, size: tuple[int, ...], clip: Clip) -> None:
    if size != clip.size:
        found, expected = (" x ".join(map(str, each)) for each in (size, clip.size))
        raise DataError(f"{path}: has {found} pixels; expected {expected} as the frames of {clip.location} have")


def _true_masks(folder: Path, clip: Clip) -> dict[int, Path]:
    """True masks by the places of their frames, without the first, which is given, and the last, which DAVIS leaves out."""
    files = sorted(folder.glob("*.png")) if folder.is_dir() else []
    if not files:
        raise DataError(f"--truth {folder}: expected a folder of indexed PNGs, named like the frames ({clip.names[0]}.png, ...)")
    places = {name: place for place, name in enumerate(clip.names)}
    for path in files:
        if path.stem not in places:
            raise DataError(f"{path}: no frame has this name; frames go from {clip.names[0]} to {clip.names[-1]}")
        _check_size(path, size_of(path), clip)
    found = {places[path.stem]: path for path in files}
    between = {place: path for place, path in found.items() if 0 < place < len(clip) - 1}
    if not between:
        raise DataError(f"--truth {folder}: holds no mask of a frame between the first and the last, which DAVIS leaves out")
    return between


def _score(tracked: Tracked, start: _Start, true: dict[int, Path], watch: Watch) -> dict[str, Any]:
    tracks = Tracks(start.ids, start.objects)
    for number, (place, path) in enumerate(true.items()):
        watch.advance("scores", number, len(true))
        tracks.add(read_ids(tracked.mask(place)), read_ids(path))
    watch.advance("scores", len(true), len(true))
    return tracks.scores()

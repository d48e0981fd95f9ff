"""What labels cost beside the render, and what it costs to start Blender for every picture.

    python benchmarks/render.py
    python benchmarks/render.py --count 40 --side 256

Needs the extra `synth`. Claims: a rendered picture with all its labels, files included, takes at most 1.15 times the time of the
bare Cycles render of the same scene (`render-labels`, a ratio of times: lower is better); and it is at least 3 times as fast as a
process for every picture that renders it twice, once for colours and once for masks (`render-peer`, a ratio of rates). The bare
render and the peer have the same scene, samples and denoiser; the peer's second render is of one sample without denoising.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from selfsight.synthesis.backends.blender import Blender
from selfsight.synthesis.backends.blender.arranging import arranged
from selfsight.synthesis.backends.blender.loaded import blender
from selfsight.synthesis.backends.blender.passes import rendered
from selfsight.synthesis.backends.blender.scenery import scenery_of
from selfsight.synthesis.backends.blender.stage import Stage, stage
from selfsight.synthesis.files import resolved
from selfsight.synthesis.loading import checked
from selfsight.synthesis.render import Job, Order
from selfsight.synthesis.sampler import sample
from selfsight.synthesis.scene import Scene
from selfsight.synthesis.spec import SynthSpec

COST, GAIN = 1.15, 3.0


def order(folder: Path, side: int, count: int) -> Order:
    classes = {name: {"assets": f"model/{name}"} for name in ("suzanne", "torus", "cube")}
    factors = {"count": 2, "texture": ["plain", "checks", "mottled"], "distractors": 1, "camera_azimuth": {"uniform": [-20, 20]}}
    given = {"name": "benchmark", "size": side, "backend": "blender", "classes": classes, "factors": factors}
    spec = checked(SynthSpec.model_validate({**given, "splits": {"train": 1.0}, "render": {"device": "cpu"}}), "benchmark")
    return Order(resolved(spec, Blender(folder), "benchmark"), folder, folder / "out", count, 0)


def placed(asked: Order, scene: Scene, labels: bool) -> Stage:
    """Blender's scene, ready to be rendered with or without the passes that labels come from."""
    backend, place = Blender(asked.base), stage()
    place.configure(asked.spec.render, 0)
    scenery = scenery_of(scene, asked.base)
    eye, things = arranged(scene, asked.base, asked.spec.render.sizes, scenery)
    place.set(scene, eye, things, scenery, asked.base, backend.pictures)
    place.layer.use_pass_z = place.layer.use_pass_normal = place.layer.use_pass_object_index = labels
    return place


def ours(asked: Order, number: int) -> float:
    pen = asked.pen()
    placed(asked, sample(asked.spec, 0, "train", number), True)
    start = time.perf_counter()
    pen(Job("train", number))
    return time.perf_counter() - start


def bare(asked: Order, number: int) -> float:
    """The render alone: the scene stands, nothing is read or written."""
    place = placed(asked, sample(asked.spec, 0, "train", number), False)
    start = time.perf_counter()
    rendered(place.scene.name)
    return time.perf_counter() - start


def twice(asked: Order, number: int) -> None:
    """What the process of the peer does."""
    place = placed(asked, sample(asked.spec, 0, "train", number), False)
    rendered(place.scene.name)
    material = blender().data.materials.new("mask")
    for each in place.scene.objects:
        for slot in each.material_slots:
            slot.link, slot.material = "OBJECT", material
    place.scene.cycles.samples, place.scene.cycles.use_denoising = 1, False
    place.scene.update_tag()
    rendered(place.scene.name)


def peer(number: int, side: int) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, __file__, "--one", str(number), "--side", str(side)], check=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20, help="pictures of each, one after the other in turns")
    parser.add_argument("--peers", type=int, default=5, help="pictures of the peer, which is slow")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        asked = order(Path(name), given.side, given.count)
        if given.one is not None:
            twice(asked, given.one)
            return
        Blender(asked.base).check(asked.spec)
        for number in range(3):  # Blender builds its shaders once
            ours(asked, number)
            bare(asked, number)
        mine, alone = [], []
        for number in range(given.count):
            mine.append(ours(asked, number))
            alone.append(bare(asked, number))
        theirs = [peer(number, given.side) for number in range(given.peers)]
    a, b, c = (statistics.median(times) for times in (mine, alone, theirs))
    cost = statistics.median(x / y for x, y in zip(mine, alone, strict=True))
    print(f"render-labels ratio={cost:.2f} ours={a:.3f} peer={b:.3f} limit={COST * b:.3f} unit=s/picture")
    print(f"render-peer ratio={c / a:.1f} ours={1 / a:.2f} peer={1 / c:.2f} limit={GAIN / c:.2f} unit=pictures/s")


if __name__ == "__main__":
    main()

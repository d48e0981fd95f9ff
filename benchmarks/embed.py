"""Claims: `embed` makes EfficientNet-Lite0's features of JPEG files at 3 times the rate of the usual loop around timm, and those
of ViT-S/16 at 0.8 of what the matrix product's rate allows, both on two CPU cores.

    python benchmarks/embed.py [--case lite0 --case vit-s] [--images FOLDER] [--count 500] [--rounds 3] [--threads 2]

Ours is the rate that `selfsight.embed` reports: reading, decoding, resizing, network, Parquet file. As for the peers, the network
is loaded before; its graph for ONNX Runtime is written before as well, once. The peer is the loop that everyone writes: Pillow,
timm's own evaluation transform, a DataLoader with one worker, the eager network with the same weights. Where it is installed, an
image-feature-extraction pipeline of transformers takes part with ViT-S/16 of random weights, so that nothing is downloaded. All
take turns within a round, and the ratio is the median of the ratios within a round.

Without --images, JPEGs of 500 x 375 pixels are drawn. The limit is the rate of a 2048 x 2048 float32 matrix product, measured in
each round, over the operations of an image: 9.2 GFLOP of ViT-S/16, 0.77 of EfficientNet-Lite0, whose depthwise convolutions never
come near it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import selfsight
from selfsight import device
from selfsight.encoders import lite0, load_encoder

BATCH = 64
Side = Callable[[], float]
"""Makes the features of all images; images a second."""


class Case(NamedTuple):
    """`gflop` are those of an image; `least` is what is claimed, of the peer or of the limit."""

    spec: str
    gflop: float
    least: float
    of: str


CASES = {
    "lite0": Case("efficientnet-lite0", 0.77, 3.0, "peer"),
    "vit-s": Case("random/vit_small_patch16_224", 9.2, 0.8, "limit"),
}


def drawn(folder: Path, count: int) -> Path:
    """Smooth noise, which compresses about as photographs do."""
    draw = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        coarse = Image.fromarray(draw.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((500, 375), Image.Resampling.BICUBIC)
        fine = np.asarray(coarse, dtype=np.int16) + draw.integers(-12, 13, (375, 500, 3))
        Image.fromarray(fine.clip(0, 255).astype(np.uint8)).save(folder / f"{number:05d}.jpg", quality=90)
    return folder


class Files(Dataset[Tensor]):
    """The peer's data set."""

    def __init__(self, paths: list[Path], transform: Callable[[Image.Image], Tensor]) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(Image.open(self.paths[index]).convert("RGB"))


def plain_timm(case: Case, paths: list[Path]) -> Side:
    name = lite0.ARCHITECTURE if case.spec == "efficientnet-lite0" else case.spec.removeprefix("random/")
    net: nn.Module = lite0.network() if case.spec == "efficientnet-lite0" else timm.create_model(name)
    net.reset_classifier(0)
    if case.spec != "efficientnet-lite0":
        net.load_state_dict(load_encoder(case.spec).backbone.net.state_dict())
    net.eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=net), is_training=False)
    loader = DataLoader(Files(paths, transform), batch_size=BATCH, num_workers=1)

    def loop() -> int:
        with torch.no_grad():
            return len(torch.cat([net(batch) for batch in loader]))

    return timed(loop)


def transformers_pipeline(paths: list[Path]) -> Side:
    from transformers import ViTConfig, ViTImageProcessor, ViTModel, pipeline

    config = ViTConfig(hidden_size=384, num_attention_heads=6, intermediate_size=1536)
    model = ViTModel(config, add_pooling_layer=False).eval()
    extractor = pipeline("image-feature-extraction", model=model, image_processor=ViTImageProcessor(), device="cpu")

    return timed(lambda: len(extractor([str(path) for path in paths], batch_size=BATCH)))


def timed(work: Callable[[], int]) -> Side:
    """`work` returns of how many images it made the features."""

    def side() -> float:
        start = time.perf_counter()
        count = work()
        return count / (time.perf_counter() - start)

    return side


def peers(case: Case, paths: list[Path]) -> dict[str, Side]:
    """The loop around timm, and whoever else is there."""
    sides: dict[str, Side] = {"timm": plain_timm(case, paths)}
    if case.spec.startswith("random/"):
        try:
            sides["transformers"] = transformers_pipeline(paths)
        except ImportError as error:
            print(f"transformers takes no part: {error}")
        print("dinotool takes no part: its networks come from the hub of torch, which this run does not ask")
    return sides


def ours(case: Case, folder: Path, out: Path, runtime: str, count: int) -> Side:
    def whole() -> float:
        made = selfsight.embed(case.spec, folder, out, batch_size=BATCH, runtime=runtime, limit=count)
        return float(made["images_per_second"])

    return whole


def agree(case: Case, out: Path, paths: list[Path]) -> None:
    """The features of the file are those of the eager network."""
    encoder = load_encoder(case.spec)
    images = torch.stack([encoder.prepare(Image.open(path).convert("RGB")) for path in paths[:8]])
    table = pq.read_table(out)
    written = torch.from_numpy(np.stack(table["vector"].to_numpy()[:8]))
    difference = float((written - encoder.encode(images)).abs().max())
    if difference > 1e-3:
        sys.exit(f"embed: features differ by {difference:.2g} from those of torch")


def run(name: str, case: Case, folder: Path, count: int, rounds: int, at: Path) -> None:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))[:count]
    if not paths:
        sys.exit(f"embed: no JPEG in {folder}")
    out = at / "features.parquet"
    runtime = str(selfsight.embed(case.spec, folder, out, limit=len(paths), runtime="auto")["runtime"])
    if runtime == "torch":  # so few images are not worth a graph; the claim is about many
        runtime = "onnx"
        selfsight.embed(case.spec, folder, out, limit=len(paths), runtime=runtime)
    agree(case, out, paths)
    sides = {"ours": ours(case, folder, out, runtime, len(paths)), **peers(case, paths)}
    rows: list[dict[str, Any]] = []
    for number in range(rounds):
        order = list(sides) if number % 2 else list(reversed(sides))
        found = {side: sides[side]() for side in order}
        rows.append(found | {"limit": device.matmul_gflops(torch.device("cpu"), 2048) / case.gflop})
        print(f"round {number + 1}: " + "   ".join(f"{side} {value:7.2f}" for side, value in rows[-1].items()), flush=True)
    median = {side: statistics.median(row[side] for row in rows) for side in rows[0]}
    peer = max((side for side in sides if side != "ours"), key=lambda side: median[side])
    of = peer if case.of == "peer" else "limit"
    ratio = statistics.median(row["ours"] / row[of] for row in rows)
    print(f"runtime {runtime}, {len(paths)} images; claimed: {case.least} of the {case.of}")
    print(
        f"embed-{name} ratio={ratio:.2f} ours={median['ours']:.2f} peer={median[peer]:.2f} limit={median['limit']:.2f} "
        "unit=images/s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--case", choices=CASES, action="append", help="default: all")
    parser.add_argument("--images", type=Path, help="a folder of JPEGs; default: drawn ones")
    parser.add_argument("--count", type=int, default=500, help="images of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory(prefix="selfsight-embed-") as name:
        folder = given.images or drawn(Path(name) / "jpegs", given.count)
        for case in given.case or CASES:
            run(case, CASES[case], folder, given.count, given.rounds, Path(name))


if __name__ == "__main__":
    main()

"""Claim: the attention map of a picture costs at most 1.15 of the plain forward pass, and the process stays under 2 GB, where a
ViT-S of patch 8 sees 480 x 480 pixels: 3,600 patches, six heads.

    python benchmarks/attention.py [--size 480] [--rounds 5] [--threads 2] [--backbone vit_small_patch8_224]

Ours is `Gaze`: the forward pass block by block, then the row of CLS in the last block, from its queries and keys. The limit
is the forward pass of the same network with fused attention and nothing else. The peer is the way that timm documents: fused
attention off, `AttentionExtract` with a hook on the last block, which holds all 3,601 rows. All three take turns within a round,
so that whatever else the machine does falls on all; the ratio is the median of ours / limit within a round.

Memory is the peak of a process of its own that loads the network and makes one map (`--alone SIDE`); what the libraries need
before is part of it, and Linux is needed. Before anything is timed, the maps of both sides must agree.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import timm
import torch
from timm.layers import set_fused_attn
from timm.utils import AttentionExtract
from torch import Tensor

from selfsight.attention.looking import Gaze
from selfsight.attention.seeing import Eyes
from selfsight.encoders import TorchEncoder, load_encoder

COST, MEMORY = 1.15, 2.0
"""What is claimed: times the forward pass, and 10^9 bytes."""

Floats = npt.NDArray[np.float32]
Side = Callable[[Tensor], Floats | None]
"""A picture [1, 3, H, W] to the map [heads, N] of it."""


def network(backbone: str, size: int) -> TorchEncoder:
    encoder = load_encoder(f"random/{backbone}?size={size}")
    assert isinstance(encoder, TorchEncoder)
    return encoder


def ours(encoder: TorchEncoder) -> Side:
    gaze = Gaze(Eyes(encoder), frozenset({"attention"}))
    return lambda image: gaze.look(image).attention


def plain(encoder: TorchEncoder) -> Side:
    def forward(image: Tensor) -> None:
        encoder.tokens(image)

    return forward


def timm_extract(encoder: TorchEncoder, backbone: str, size: int) -> Side:
    set_fused_attn(False)
    net = timm.create_model(backbone, img_size=size, num_classes=0).eval()
    set_fused_attn(True)
    net.load_state_dict(encoder.backbone.net.state_dict())
    extract = AttentionExtract(net, method="hook", names=[f"blocks.{len(net.blocks) - 1}.attn.attn_drop"])

    @torch.no_grad()
    def whole(image: Tensor) -> Floats:
        (matrix,) = extract(image).values()
        return matrix[0, :, 0, 1:].numpy()

    return whole


def seconds(side: Side, image: Tensor) -> float:
    start = time.perf_counter()
    side(image)
    return time.perf_counter() - start


def peak(side: str, given: argparse.Namespace) -> float:
    """10^9 bytes of a process that makes one map."""
    command = [sys.executable, __file__, "--alone", side, "--size", str(given.size), "--backbone", given.backbone]
    done = subprocess.run([*command, "--threads", str(given.threads)], capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def alone(given: argparse.Namespace) -> None:
    encoder = network(given.backbone, given.size)
    side = ours(encoder) if given.alone == "ours" else timm_extract(encoder, given.backbone, given.size)
    side(torch.randn(1, 3, given.size, given.size))
    # What getrusage says begins with the size of the process that started this one.
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    print(int(line.split()[1]) * 1024 / 1e9)


def run(given: argparse.Namespace) -> None:
    encoder = network(given.backbone, given.size)
    sides = {"ours": ours(encoder), "limit": plain(encoder), "peer": timm_extract(encoder, given.backbone, given.size)}
    image = torch.randn(1, 3, given.size, given.size, generator=torch.Generator().manual_seed(0))
    mine, theirs = sides["ours"](image), sides["peer"](image)
    assert mine is not None
    assert theirs is not None
    if (difference := float(np.abs(mine - theirs).max() / theirs.max())) > 1e-3:
        sys.exit(f"attention: maps differ by {difference:.2g} of their greatest value")
    rows = []
    for number in range(given.rounds):
        order = list(sides) if number % 2 else list(reversed(sides))
        found = {name: seconds(sides[name], image) for name in order}
        rows.append(found)
        print(f"round {number + 1}: " + "   ".join(f"{name} {found[name]:6.2f} s" for name in sides), flush=True)
    median = {name: statistics.median(row[name] for row in rows) for name in sides}
    ratio = statistics.median(row["ours"] / row["limit"] for row in rows)
    memory = {side: peak(side, given) for side in ("ours", "peer")}
    print(f"claimed: at most {COST} of the forward pass, less than {MEMORY:g} GB")
    for name, share, found, limit, unit in (
        ("attention-memory", memory["ours"] / MEMORY, memory, MEMORY, "GB"),
        ("attention", ratio, median, median["limit"], "s"),
    ):
        print(f"{name} ratio={share:.2f} ours={found['ours']:.2f} peer={found['peer']:.2f} limit={limit:.2f} unit={unit}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=480)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--backbone", default="vit_small_patch8_224")
    parser.add_argument("--alone", choices=("ours", "peer"), help="make one map and print the peak memory of this process")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.alone:
        alone(given)
    else:
        run(given)


if __name__ == "__main__":
    main()

"""What an encoder costs to run, measured in a process of its own so that nothing else counts.

`python -m selfsight.comparison.cost SPEC DEVICE BATCH` loads the encoder, encodes random images for a second or more and prints
one line of JSON: images a second (median of repeats) and peak memory.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time

from selfsight.errors import SelfsightError
from selfsight.results import Cost

BATCH = 32
_SECONDS = 1.5


def measure(spec: str, device: str, batch: int = BATCH) -> Cost:
    """Cost of the encoder `spec` on `device`; a `SelfsightError` carries what the measuring process said."""
    command = [sys.executable, "-m", "selfsight.comparison.cost", spec, device, str(batch)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"TORCH_CPP_LOG_LEVEL": "ERROR"}, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise SelfsightError(f"{spec}: its cost could not be measured ({last})")
    return Cost.model_validate_json(done.stdout.strip().splitlines()[-1])


def main(spec: str, device_name: str, batch: int) -> dict[str, object]:
    """Measure here and now; memory is what this process's peak grew by while loading and encoding."""
    import torch

    from selfsight import device
    from selfsight.encoders import load_encoder

    on = device.resolve(device_name)
    before = device.peak_memory_mb()
    encoder = load_encoder(spec).to(on)
    images = torch.rand(batch, 3, *encoder.prepare.shape, device=on)
    if on.type == "cuda":
        torch.cuda.reset_peak_memory_stats(on)
    encoder.encode(images)
    device.synchronize(on)
    rates: list[float] = []
    started = time.perf_counter()
    while not rates or (time.perf_counter() - started < _SECONDS and len(rates) < 1000):
        begin = time.perf_counter()
        encoder.encode(images)
        device.synchronize(on)
        rates.append(batch / (time.perf_counter() - begin))
    memory = device.peak_memory_mb(on) - (0.0 if on.type == "cuda" else before)
    cost = Cost(
        encoder=spec,
        parameters=encoder.parameters,
        feature_width=encoder.feature_width,
        images_per_second=round(statistics.median(rates), 2),
        peak_memory_mb=round(memory, 1),
        device=device.describe(on),
        batch_size=batch,
    )
    return cost.model_dump()


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]))))

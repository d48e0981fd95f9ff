"""The samples that are missing in a file of features, computed part by part."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field

from selfsight.api.watch import Watch
from selfsight.data.sources import Source, absolute
from selfsight.data.tolerance import Tolerance
from selfsight.encoders import Encoder, parse_spec
from selfsight.encoders.feature_file import Parts, encoded_part
from selfsight.encoders.features import Stretch, stretches
from selfsight.encoders.on_ray import Task, parts_on_ray
from selfsight.encoders.runtimes import Runtime
from selfsight.errors import Interrupted
from selfsight.ssl.signals import Asked, Stop

PART_BYTES, _PART_SECONDS = 16 * 2**20, 20.0
"""When a part is closed. A kill costs at most one part."""


@dataclass
class Filling:
    """What is to be done, and the stretches of the part that is open."""

    encoder: Encoder
    source: Source
    runtime: Runtime
    parts: Parts
    dtype: str
    batch_size: int
    workers: int
    _open: list[Stretch] = field(default_factory=list)
    _since: float = 0.0

    def run(self, bearing: Tolerance, watch: Watch) -> None:
        """Fill every gap. On Ctrl-C and SIGTERM the open part is written and `Interrupted` raised."""
        bad, total = self.parts.bad, len(self.source)
        with Stop() as stop:
            try:
                for gap in self.parts.missing:
                    with closing(self._stretches(*gap)) as found:
                        for stretch in stop.waiting(found):
                            bad += stretch.bad
                            done = self._add(stretch)
                            bearing.check(bad, done, total, self.source.location)
                            watch.advance(self.encoder.spec, done, total)
                            stop.check()
                    self._close()
            except Asked as asked:
                self._close()
                raise self._interrupted(asked) from None

    def run_on_ray(self, bearing: Tolerance, watch: Watch, limit: int | None) -> None:
        """The same by actors of Ray, `workers` of them; `limit` is that of the source. Parts are written as they come back."""
        spec, data = parse_spec(self.encoder.spec).absolute, absolute(self.source.location)
        task = Task(spec, data, limit, self.encoder.read, self.batch_size, self.dtype)
        samples = max(1, PART_BYTES // (4 * self.encoder.feature_width) // self.batch_size) * self.batch_size
        cuts = [
            (start, min(stop, start + samples)) for first, stop in self.parts.missing for start in range(first, stop, samples)
        ]
        total = len(self.source)
        with Stop() as stopping:
            try:
                for part in stopping.waiting(parts_on_ray(task, cuts, self.workers)) if cuts else ():
                    self.parts.add(part.content, part.start)
                    bearing.check(self.parts.bad, self.parts.samples, total, self.source.location)
                    watch.advance(self.encoder.spec, self.parts.samples, total)
                    stopping.check()
            except Asked as asked:
                raise self._interrupted(asked) from None

    def _interrupted(self, asked: Asked) -> Interrupted:
        done = f"{self.parts.samples} of {len(self.source)} images are done"
        return Interrupted(asked.number, f"stopped by {asked.name}: {done}")

    def _stretches(self, start: int, stop: int) -> Generator[Stretch]:
        return stretches(
            self.encoder, self.source, self.runtime, batch_size=self.batch_size, workers=self.workers, start=start, stop=stop
        )

    def _add(self, stretch: Stretch) -> int:
        """Samples that are done with this stretch. A part that is large or old enough is closed."""
        if not self._open:
            self._since = time.monotonic()
        self._open.append(stretch)
        if sum(part.vectors.nbytes for part in self._open) >= PART_BYTES or time.monotonic() - self._since > _PART_SECONDS:
            self._close()
        return self.parts.samples + sum(part.stop - part.start for part in self._open)

    def _close(self) -> None:
        if self._open:
            content = encoded_part(self._open, self.source, self.encoder.feature_width, self.dtype)
            self.parts.add(content, self._open[0].start)
            self._open = []

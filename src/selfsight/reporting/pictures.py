"""The small pictures of the page, each embedded once however often it is shown."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from selfsight.reporting import words
from selfsight.reporting.folder import ResultsFolder
from selfsight.reporting.outcomes import Paired, disagreements

GALLERY = 18
PICKS = 60
QUERIES = 12


class Pictures:
    """Hands out the number of each picture and keeps the bytes of those asked for."""

    def __init__(self, thumbs: dict[str, bytes]) -> None:
        self.known = thumbs
        self.numbers: dict[str, int] = {}

    def number(self, key: str) -> int:
        """Index in `payload`, or -1 for an image without a picture."""
        if key not in self.known:
            return -1
        return self.numbers.setdefault(key, len(self.numbers))

    @property
    def payload(self) -> list[str]:
        return [base64.b64encode(self.known[key]).decode() for key in self.numbers]


@dataclass(frozen=True)
class Card:
    """One picture with its file name and, under it, who said what: (encoder colour, text, right)."""

    picture: int
    key: str
    truth: str = ""
    said: tuple[tuple[str, str, bool], ...] = ()


@dataclass(frozen=True)
class Gallery:
    title: str
    note: str
    cards: list[Card]


def disagreement_galleries(
    folder: ResultsFolder, pair: Paired, colours: tuple[str, str], names: tuple[str, str], pictures: Pictures
) -> list[Gallery]:
    """Images on which exactly one of the two encoders was right, in both directions."""
    galleries = []
    for right, name in zip(("challenger", "incumbent"), reversed(names), strict=True):
        total, rows = disagreements(pair, right, GALLERY, pictures.known)
        if rows:
            cards = [_card(folder, pair, row, colours, pictures) for row in rows]
            shown = f", {len(rows)} shown" if len(rows) < total else ""
            galleries.append(Gallery(f"Only {name} was right", f"{words.number(total, 0)} images{shown}", cards))
    return galleries


def _card(folder: ResultsFolder, pair: Paired, row: int, colours: tuple[str, str], pictures: Pictures) -> Card:
    classes = folder.results.data.classes
    truth = int(pair.truth[row])
    said = []
    for colour, answer in zip(colours, (int(pair.incumbent[row]), int(pair.challenger[row])), strict=True):
        said.append((colour, classes[answer] if answer >= 0 else "no class", answer == truth))
    return Card(pictures.number(pair.keys[row]), pair.keys[row], classes[truth], tuple(said))


def picks_gallery(folder: ResultsFolder, pictures: Pictures) -> Gallery | None:
    """The images to label first, in order."""
    labelling = folder.results.labelling
    if labelling is None or not labelling.picks:
        return None
    shown = labelling.picks[:PICKS]
    note = "in this order"
    if len(shown) < len(labelling.picks):
        note += f"; {len(shown)} of {len(labelling.picks)} shown"
    return Gallery("Label these first", note, [Card(pictures.number(key), key) for key in shown])


def neighbour_rows(folder: ResultsFolder, pictures: Pictures) -> list[tuple[Card, list[tuple[str, list[Card]]]]]:
    """(query, [(encoder, its nearest images)]) for the first queries that have a picture."""
    rows = []
    for row in folder.neighbours:
        query = Card(pictures.number(str(row["query"])), str(row["query"]))
        found = [(spec, [Card(pictures.number(key), key) for key in keys]) for spec, keys in row["neighbours"].items()]
        if query.picture >= 0 and found:
            rows.append((query, found))
        if len(rows) == QUERIES:
            break
    return rows

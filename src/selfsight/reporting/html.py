"""Assembles the page: every section that has its data, and the one script that draws."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import plotly.graph_objects as go
import plotly.io
from plotly.offline import get_plotlyjs

from selfsight.reporting import figures, figures_detail, figures_shift, looks, outcomes, pictures, shifts, tables, words
from selfsight.reporting.folder import ResultsFolder, load
from selfsight.reporting.palette import UNKNOWN, class_marker, encoder_colours
from selfsight.runs import write_text_atomic

CONFUSION_CLASSES = 30
LEGEND_CLASSES = 60


def render(folder: Path, images: bool = True) -> Path:
    """Write `report.html` into a results folder and return its path.

    Without `images` the file holds no picture and no file name. Raises `InputError` for a folder that is no results folder.
    """
    page = Page(load(Path(folder), images), images)
    path = Path(folder) / "report.html"
    write_text_atomic(path, page.html())
    return path


def script_json(text: str) -> str:
    """JSON that no HTML parser can leave: `</script>` and `<!--` lose their angle brackets."""
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


class Page:
    """Gathers the sections; `plots` are the figures by the id of the element that holds them."""

    def __init__(self, folder: ResultsFolder, images: bool) -> None:
        self.folder, self.results, self.images = folder, folder.results, images
        self.colours = encoder_colours(folder.results)
        self.pictures = pictures.Pictures(folder.thumbs | {look.name: look.jpeg for look in folder.looks})
        self.plots: dict[str, str] = {}
        self.endpoint = words.endpoint(folder.results)
        self.pair = self._pair()

    def html(self) -> str:
        environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        environment.filters["number"] = words.number
        sections = dict(self.sections())
        template = environment.from_string(_asset("template.html.j2"))
        return template.render(
            r=self.results, images=self.images, top=self.top(), sections=sections, colours=looks.colours_of(self.results),
            unknown=UNKNOWN,
            style=_asset("report.css"), script=_asset("report.js"), plotly=get_plotlyjs(),
            plots=script_json("{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in self.plots.items()) + "}"),
            thumbs=script_json(json.dumps(self.pictures.payload)),
        )  # fmt: skip

    def sections(self) -> Iterator[tuple[str, dict[str, Any]]]:
        yield "labelling", _filled(gallery=pictures.picks_gallery(self.folder, self.pictures) if self.images else None)
        yield "scores", _filled(table=tables.scores(self.results), plot=self.plot("scores", figures.scores_plot(self.results)))
        yield (
            "differences",
            _filled(
                table=tables.comparisons(self.results), plot=self.plot("differences", figures.differences_plot(self.results))
            ),
        )
        yield "looks", self.looks()
        yield "shifts", self.shifts()
        yield "cost", _filled(table=tables.cost(self.results), plot=self.plot("cost", figures.cost_plot(self.results)))
        yield "classes", self.classes()
        yield "gallery", _filled(galleries=self.galleries())
        yield "neighbours", _filled(rows=pictures.neighbour_rows(self.folder, self.pictures))
        yield "map", self.maps()
        yield "curves", _filled(plots=self.curves(), encoders=[str(c.get("encoder", "")) for c in self.folder.curves])
        yield "data", {"bad": self.folder.bad_images[:50], "encoders": tables.encoders(self.results)}
        yield "repeat", self.repeat()

    def plot(self, name: str, figure: go.Figure | None) -> dict[str, Any] | None:
        """Register a figure; returns what the template needs to leave room for it."""
        if figure is None:
            return None
        self.plots[f"plot-{name}"] = plotly.io.to_json(figure, validate=False)
        return {"id": f"plot-{name}", "height": figure.layout.height}

    def top(self) -> dict[str, Any]:
        """The verdict in a sentence, its rule, and the headline numbers."""
        verdict = self.results.verdict
        if verdict is None:
            return {"verdict": None, "tiles": []}
        n = self._test_images()
        rule = [line for line in self.results.plan if "margin" in line.lower()]
        return {
            "verdict": verdict, "sentence": words.verdict_sentence(self.results, verdict, n), "rule": rule, "n": n,
            "margin": words.points(verdict.margin), "endpoint": words.endpoint_name(self.results), "tiles": self._tiles(n),
        }  # fmt: skip

    def _test_images(self) -> int:
        for c in figures.verdict_pairs(self.results, self.results.verdict) if self.results.verdict else []:
            if self.endpoint == (c.task, c.metric, c.condition):
                return c.n
        return self.results.data.n_test

    def _tiles(self, n: int) -> list[dict[str, str]]:
        verdict = self.results.verdict
        assert verdict is not None
        tiles = [{"value": words.signed(verdict.difference), "label": "difference in points: challenger minus incumbent",
                  "note": f"{words.signed(verdict.low)} to {words.signed(verdict.high)}", "colour": ""}]  # fmt: skip
        for role, spec in (("incumbent", verdict.incumbent), ("challenger", verdict.challenger)):
            scores = [s for s in self.results.scores if s.encoder == spec and (s.task, s.metric, s.condition) == self.endpoint]
            if scores:
                tiles.append({"value": f"{words.number(scores[0].value)} %", "label": f"{role}: {spec}",
                              "note": words.interval(scores[0]), "colour": self.colours.get(spec, UNKNOWN)})  # fmt: skip
        classes = f"{len(self.results.data.classes)} classes" if self.results.data.classes else ""
        tiles.append({"value": words.number(n, 0), "label": "test images", "note": classes, "colour": ""})
        return tiles

    def _pair(self) -> outcomes.Paired | None:
        verdict = self.results.verdict
        if verdict is None or self.endpoint is None:
            return None
        return outcomes.paired(self.folder, verdict.incumbent, verdict.challenger, self.endpoint)

    def classes(self) -> dict[str, Any]:
        """Confusion of both encoders (as pairs when there are many classes) and the change of each class."""
        if self.pair is None or self.results.verdict is None:
            return {}
        names, verdict = self.results.data.classes, self.results.verdict
        both = [
            self._confusion("incumbent", verdict.incumbent, self.pair.truth, self.pair.incumbent),
            self._confusion("challenger", verdict.challenger, self.pair.truth, self.pair.challenger),
        ]
        change = figures_detail.class_change(self.pair, names)
        plot = self.plot("classes", change[0]) if change else None
        return {"both": both, "change": plot, "total": change[1] if change else 0, "endpoint": words.endpoint_name(self.results)}

    def _confusion(self, role: str, spec: str, truth: outcomes.Ints, said: outcomes.Ints) -> dict[str, Any]:
        names = self.results.data.classes
        matrix = outcomes.confusion_matrix(truth, said, len(names))
        side: dict[str, Any] = {"role": role, "spec": spec, "colour": self.colours.get(spec, UNKNOWN), "plot": None, "pairs": []}
        if len(names) <= CONFUSION_CLASSES:
            side["plot"] = self.plot(f"confusion-{role}", figures_detail.confusion_plot(matrix, names))
        else:
            side["pairs"] = [(names[a], names[b], n, int(matrix[a].sum())) for a, b, n in outcomes.most_confused(matrix)]
        return side

    def galleries(self) -> list[pictures.Gallery]:
        verdict = self.results.verdict
        if self.pair is None or verdict is None or not self.images:
            return []
        names = (verdict.incumbent, verdict.challenger)
        colours = (self.colours.get(names[0], UNKNOWN), self.colours.get(names[1], UNKNOWN))
        return pictures.disagreement_galleries(self.folder, self.pair, colours, names, self.pictures)

    def looks(self) -> dict[str, Any]:
        """What the encoders look at, where they were measured against masks."""
        found = self.results.segmentation
        if found is None:
            return {}
        floors = {e.spec for e in self.results.encoders if e.role == "floor"}
        return {
            "n": found.n, "findings": looks.findings(found, floors), "rows": looks.rows(self.folder, self.pictures),
            "columns": [(spec, words.method_name(method)) for spec, method in found.own.items()],
            "names": looks.names(found),
            "plot": self.plot("looks", looks.plot(self.results, found)), "table": looks.table(found),
            "differences": looks.differences(self.results, found), "protocol": found.protocol,
        }  # fmt: skip

    def shifts(self) -> dict[str, Any]:
        """Conditions, and where a drawn set was examined what each of its factors does to whom."""
        table, found = tables.conditions(self.results), self.results.shift
        if found is None:
            return _filled(table=table, found=None)
        names = shifts.Names(self.images)
        factors = [
            {"name": name, "plot": self.plot(f"factor-{number}", figure)}
            for number, (name, figure) in enumerate(figures_shift.factor_plots(self.results, found, names))
        ]
        effects = shifts.effects_table(self.results, found) if found.effects else None
        return {
            "table": table, "found": found, "findings": shifts.findings(self.results, names), "effects": effects,
            "plot": self.plot("conditions", figures_shift.conditions_plot(self.results, found)) if effects else None,
            "gaps_plot": self.plot("gaps", figures_shift.gaps_plot(self.results)),
            "gaps": shifts.gaps_table(found, self.colours) if found.gaps else None,
            "since": shifts.since_table(found, names, self.colours), "told": shifts.since_sentences(found, names),
            "factors": factors, "slices": shifts.slices_table(self.results, found, names),
        }  # fmt: skip

    def maps(self) -> dict[str, Any]:
        shown, names, labels = [], self.results.data.classes, set()
        for index, features in enumerate(self.folder.maps):
            rows = figures_detail.map_rows(features)
            thumbs = {features.keys[row]: self.pictures.number(features.keys[row]) for row in rows}
            figure = figures_detail.map_plot(features, names, thumbs, names=self.images)
            shown.append({"spec": features.encoder, "plot": self.plot(f"map-{index}", figure)})
            labels |= set(features.labels[rows].tolist()) - {-1}
        legend = [{"label": i, "name": names[i], "colour": class_marker(i)[0], "shape": class_marker(i)[1]}
                  for i in sorted(labels)]  # fmt: skip
        if not shown:
            return {}
        return {"maps": shown, "legend": legend if len(legend) <= LEGEND_CLASSES else [], "labelled": bool(legend)}

    def curves(self) -> list[dict[str, Any]]:
        drawn = []
        for measure, (title, meaning) in words.CURVES.items():
            plot = self.plot(f"curve-{measure}", figures_detail.curve_plot(self.folder.curves, measure, self.colours))
            if plot:
                drawn.append({"title": title, "meaning": meaning, "plot": plot})
        return drawn

    def repeat(self) -> dict[str, Any]:
        provenance = self.results.provenance
        plain, nested = {}, {}
        for key, value in provenance.items():
            if isinstance(value, dict | list):
                nested[key] = json.dumps(value, indent=2, ensure_ascii=False)
            else:
                plain[key] = value
        command = _command(provenance)
        return {"plain": plain, "nested": nested, "command": command} if provenance else {}


def _filled(**content: Any) -> dict[str, Any]:
    """The content of a section, or nothing where all of its parts that could be drawn are missing."""
    drawn = [value for name, value in content.items() if name != "encoders"]
    return content if any(drawn) else {}


def _command(provenance: dict[str, Any]) -> str:
    """The command line, wherever in the provenance it stands."""
    for key, value in provenance.items():
        if key == "command" and value:
            return value if isinstance(value, str) else shlex.join(str(part) for part in value)
        if isinstance(value, dict) and (found := _command(value)):
            return found
    return ""


def _asset(name: str) -> str:
    return resources.files("selfsight.reporting").joinpath(name).read_text(encoding="utf-8")

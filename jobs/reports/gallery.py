"""The gallery: one HTML page that shows every clip beside what its models made of it. It asks no network for anything.

The page is gallery.html.j2 with gallery.css and gallery.js in it. It forbids itself every request, and every script but
its own, by a Content-Security-Policy. Videos and pictures are blocks of base64 at its end, which the script decodes as
they come into view; if they are many, they are files in a folder beside the page instead.
"""

from __future__ import annotations

import base64
import hashlib
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from infra.errors import printable
from jobs.reports.media import Media

PARTS = Path(__file__).parent
WIDE, HIGH = 256, 168  # px that a sample may take; small ones are enlarged by a whole factor
STRIP = 112  # px, the width of the picture of a spread


@dataclass(frozen=True)
class Figure:
    """A score that clips have. spec: its format. meaning: one line for people, "" where there is none."""

    name: str
    spec: str
    meaning: str = ""


@dataclass(frozen=True)
class Shot:
    """A video or picture.

    Attributes:
        kind: "real", "reconstruction", "sample", "plain" (a sample before patches finish it) or "map".
        media: its name in `Media`.
    """

    kind: str
    label: str
    media: str


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is known of one model of one clip.

    Attributes:
        status: "done", "failed", "stopped", "unfinished" or "damaged".
        reason: why it is not done; one line.
        scores: by the name of the figure; finite.
        size: (height, width) of its videos in px; None where that is not known.
        facts, settings: name → value, as text.
        command: that made it; several lines are several commands.
    """

    status: str
    reason: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    shots: Sequence[Shot] = ()
    size: tuple[int, int] | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    command: str = ""

    def of_kind(self, *kinds: str) -> list[Shot]:
        """Its shots of these kinds, in their order."""
        return [shot for shot in self.shots if shot.kind in kinds]


@dataclass(frozen=True)
class Column:
    """The models that stand in one column: an experiment's, or those of one combination of a sweep.

    Attributes:
        facts: of all of them: corpus, preset …
        models: by clip.
        failures: (source, reason) of what is no clip.
    """

    name: str
    facts: Mapping[str, str]
    models: Mapping[str, Model]
    failures: Sequence[tuple[str, str]] = ()


# -- the page


def render(columns: Sequence[Column], figures: Sequence[Figure], media: Media) -> bytes:
    """The page. Every text in it is escaped. media: holds what the columns show."""
    css, script = ((PARTS / name).read_text() for name in ("gallery.css", "gallery.js"))
    clips = sorted({clip for column in columns for clip in column.models})
    settings = {tuple(m.settings.items()): "" for column in columns for m in column.models.values() if m.settings}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PARTS),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else _shown(value),
    )
    environment.filters |= {"as": format, "key": lambda settings: tuple(settings.items()), "breakable": _breakable}
    page = environment.get_template("gallery.html.j2").render(
        columns=columns,
        clips=clips,
        figures=figures,
        spreads=_spreads(columns, figures),
        settings={key: f"settings-{place}" for place, key in enumerate(settings)},
        media=media,
        policy=_policy(css, script, media),
        folder=f"{quote(media.folder)}/" if media.in_folder else "",
        css=Markup(css),
        script=Markup(script),
        shown_size=_shown_size,
        strip=STRIP,
        sources={clip: _source(columns, clip) for clip in clips},
        scores_of={clip: _sortable(columns, clip) for clip in clips},
        text_of={clip: _searched(columns, clip) for clip in clips},
        failures=list(dict.fromkeys((source, reason) for column in columns for source, reason in column.failures)),
        troubles=Counter(m.status for column in columns for m in column.models.values() if m.status != "done"),
    )
    return page.encode(errors="backslashreplace")


def _shown(value: Any) -> Any:
    """Line ends stay; other control characters and bytes that are no text are written out."""
    return "\n".join(map(printable, value.split("\n"))) if isinstance(value, str) else value


def _breakable(name: str) -> Markup:
    """A name whose line may be broken after each underscore."""
    return Markup("_<wbr>").join(name.split("_"))


def _sortable(columns: Sequence[Column], clip: str) -> dict[str, float]:
    """What the clip is sorted by: its scores, by column and figure as the page's options write them."""
    models = [(place, column.models[clip]) for place, column in enumerate(columns) if clip in column.models]
    return {f"{place} {name}": value for place, model in models for name, value in model.scores.items()}


def _source(columns: Sequence[Column], clip: str) -> str:
    """The name of the file that the clip is of; "" where that is not known."""
    sources = [column.models[clip].facts.get("source", "") for column in columns if clip in column.models]
    return PurePosixPath(next(filter(None, sources), "")).name


def _searched(columns: Sequence[Column], clip: str) -> str:
    """The text that a filter looks through: names, states and what was said of the clip."""
    models = [column.models[clip] for column in columns if clip in column.models]
    said = [" ".join([model.status, model.reason, *model.warnings, model.facts.get("source", "")]) for model in models]
    return " ".join([clip, *said]).lower()


def _policy(css: str, script: str, media: Media) -> str:
    """Only the style and the script of the page itself, and of the rest only what lies in it or beside it."""
    own = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (css, script)]
    beside = " 'self' file:" if media.in_folder else ""
    return (
        f"default-src 'none'; style-src 'sha256-{own[0]}'; script-src 'sha256-{own[1]}'; "
        f"img-src blob: data:{beside}; media-src blob:{beside}; base-uri 'none'; form-action 'none'"
    )


def _shown_size(size: tuple[int, int] | None, factor: float = 1) -> tuple[int, int] | None:
    """(height, width) in px at which a video stands in the page: by a whole factor if it is enlarged."""
    if size is None or min(size) < 1:
        return None
    height, width = (side + side % 2 for side in size)  # as in an mp4
    room = min(HIGH * factor / height, WIDE * factor / width)
    zoom = max(1, int(room)) if room >= 1 else room
    return round(height * zoom), round(width * zoom)


# -- where a score lies among those of the corpus


@dataclass(frozen=True)
class Spread:
    """A figure over the clips of a column, drawn between the least and the greatest of all columns."""

    values: Sequence[float]
    low: float
    high: float

    @property
    def mean(self) -> float:
        """Over the clips."""
        return statistics.fmean(self.values)

    @property
    def sd(self) -> float:
        """Over the clips, divided by their number."""
        return statistics.pstdev(self.values)

    def x(self, value: float) -> float:
        """Where a value stands, in px of STRIP, within its ends."""
        part = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(4 + (STRIP - 8) * min(1.0, max(0.0, part)), 1)

    def rank(self, value: float) -> int:
        """1 for the least."""
        return 1 + sum(other < value for other in self.values)

    @property
    def ticks(self) -> str:
        """The path of a small line for every clip; of those within a pixel one."""
        return "".join(f"M{x}.5 4v8" for x in sorted({int(self.x(value)) for value in self.values}))


def _spreads(columns: Sequence[Column], figures: Sequence[Figure]) -> list[dict[str, Spread]]:
    """By column, then by figure."""
    found: list[dict[str, Spread]] = [{} for _ in columns]
    for figure in figures:
        values = [[m.scores[figure.name] for m in c.models.values() if figure.name in m.scores] for c in columns]
        if ends := [value for some in values for value in some if math.isfinite(value)]:
            for place, some in enumerate(values):
                if some:
                    found[place][figure.name] = Spread(some, min(ends), max(ends))
    return found

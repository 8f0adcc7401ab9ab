"""What the folder of a clip or a trial holds, for people to look at.

A file that is missing leaves its part out. A file that is damaged costs its clip only, whose reason says so.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra import clip_folder
from infra.errors import one_line, printable
from jobs.experiment.command import as_set
from jobs.experiment.experiment import Experiment
from jobs.experiment.result import FIGURES, Result, columns
from jobs.invocation import start_of
from jobs.reports.gallery import Model, Shot
from jobs.reports.media import Media

NOT_SCORES = {"num_samples", "seed", "time_ms", "layouts_redrawn"}  # of metrics.json


@dataclass(frozen=True)
class ModelReader:
    """Reads models of one experiment. evaluation: the folder of what evaluate.py left of them."""

    experiment: Experiment
    media: Media
    evaluation: str
    command: str

    def model(self, name: str) -> Model:
        """Of the clip's or trial's folder of this name. Whatever is damaged in it is the model's reason."""
        damages: list[str] = []
        result = self._result(name, damages)
        metrics = self._json(name, clip_folder.METRICS, damages)
        config = self._json(name, clip_folder.CONFIG, damages)
        scores = _numbers(name, clip_folder.METRICS, metrics, damages)
        if result is not None and result.status == "done":
            fields = result.to_dict()
            figures = {name: fields[name] for name in columns(FIGURES, [fields]) if name in fields}
            scores |= _numbers(name, clip_folder.RESULT, figures, damages)
        shots = self._shots(name, damages)
        size, facts, settings = _described(config, damages)
        status, reason = "unfinished", "its training has not ended; the same command goes on with it"
        if result is not None:
            status, reason = result.status, result.reason
            if status == "done" and not shots:
                reason = "there is no sample in its folder"
        elif not config:
            reason = "its training has not begun"
        if damages:
            status, reason = "damaged", "; ".join(damages)
        warnings = result.warning if result is not None else self._text(name, clip_folder.WARNINGS)
        checkpoint = printable(self.experiment.checkpoint(name))
        more = shlex.join([*start_of("sample"), checkpoint, "--n", "10", "--out", "samples/"])
        command = "\n".join(filter(None, [self.command, more if status == "done" else ""]))
        return Model(
            status=status,
            reason=reason,
            scores=scores,
            shots=shots,
            size=size,
            facts=facts,
            settings=settings,
            warnings=warnings.splitlines(),
            command=command,
        )

    def _read(self, name: str, file: str) -> bytes | None:
        """None if it is not there. Raises OSError."""
        return self.experiment.store.read([f"{name}/{file}"]).get(f"{name}/{file}")

    def _text(self, name: str, file: str) -> str:
        return (self._read(name, file) or b"").decode(errors="replace")

    def _json(self, name: str, file: str, damages: list[str]) -> dict[str, Any]:
        """Empty if it is not there, or damaged."""
        try:
            content = self._read(name, file)
            return dict(json.loads(content).items()) if content is not None else {}
        except (OSError, ValueError, AttributeError) as error:
            damages.append(f"{file} cannot be read ({one_line(error)})")
            return {}

    def _result(self, name: str, damages: list[str]) -> Result | None:
        try:
            content = self._read(name, clip_folder.RESULT)
            result = Result.from_json(content) if content is not None else None
            if result and not all(isinstance(text, str) for text in (result.status, result.reason, result.warning)):
                raise ValueError("status, reason and warning are no texts")
            return result
        except (OSError, ValueError, TypeError, AttributeError) as error:
            mend = "delete it, and the clip goes on from its checkpoint"
            damages.append(f"{clip_folder.RESULT} cannot be read ({one_line(error)}); {mend}")
            return None

    # -- its videos and pictures

    def _shots(self, name: str, damages: list[str]) -> list[Shot]:
        """In the order in which people look at them."""
        samples = f"{name}/{clip_folder.SAMPLES}"
        found = self._files(samples)
        wanted: list[tuple[str, str, str]] = []  # kind, label, path
        for stem, label in (("real", "original"), ("reconstruction", "reconstruction")):
            wanted += [(stem, label, found[stem])] if stem in found else []
        for kind in ("sample", "plain"):
            places = [
                (match[1], path) for stem, path in found.items() if (match := re.fullmatch(rf"{kind}_(\d+)", stem))
            ]
            wanted += [(kind, f"{kind} {place}", path) for place, path in places]
        wanted += self._maps(found) or self._maps(self._files(f"{self.evaluation}/{name}"))
        shots = []
        together: dict[str, bytes] = {}
        with contextlib.suppress(OSError):  # from an object store side by side; after an error one by one
            together = self.experiment.store.read(path for _, _, path in wanted)
        for kind, label, path in wanted:
            try:
                content = together[path] if path in together else self.experiment.store.read([path]).get(path)
            except OSError as error:
                damages.append(f"{path.rpartition('/')[2]} cannot be read ({one_line(error)})")
                continue
            if content == b"":
                damages.append(f"{path.rpartition('/')[2]} is empty")
            elif content is not None:
                shots.append(Shot(kind, label, self.media.add(content, Path(path).suffix)))
        return shots

    def _files(self, folder: str) -> dict[str, str]:
        """By stem, the path of each video or picture in a folder, in the order of the names; an mp4 before a png."""
        names = sorted(self.experiment.store.names(folder), key=lambda name: (not name.endswith(".mp4"), name))
        found: dict[str, str] = {}
        for name in names:
            if name.endswith((".mp4", ".png")):
                found.setdefault(Path(name).stem, f"{folder}/{name}")
        return dict(sorted(found.items()))

    @staticmethod
    def _maps(found: Mapping[str, str]) -> list[tuple[str, str, str]]:
        """(kind, label, path) of the maps among the files of a folder."""
        maps = [("map", "where samples differ", found["diversity"])] if "diversity" in found else []
        for stem, path in found.items():
            if place := re.fullmatch(r"nnf_(\d+)", stem):
                maps.append(("map", f"where the patches of sample {place[1]} come from", path))
        return maps


def _numbers(name: str, file: str, values: Mapping[str, Any], damages: list[str]) -> dict[str, float]:
    """The finite numbers among them; what is none is damage."""
    found = {}
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            damages.append(f"{file} cannot be read ({key} is no number)")
        elif value is not None and math.isfinite(value) and key not in NOT_SCORES:
            found[key] = float(value)
    return found


def _described(
    config: Mapping[str, Any], damages: list[str]
) -> tuple[tuple[int, int] | None, dict[str, str], dict[str, str]]:
    """What a clip's config.json tells of it: (height, width), facts for people, all settings."""
    if not config:
        return None, {}, {}
    try:
        sizes = [(int(frames), int(height), int(width)) for frames, height, width in config["sizes_thw"]]
        frames, height, width = sizes[-1]
        facts = {
            "source": printable(config["source"]),
            "size": f"{height}×{width} px" + (f", {frames} frames" if frames > 1 else ""),
            "chunks": str(chunks) if (chunks := config.get("chunks", 1)) > 1 else "",
            "scales": " ".join(f"{height}×{width}" for _, height, width in sizes),
            "precision": config.get("precision_used", ""),
            "device": config.get("device", ""),
        }
        settings = {name: as_set(value) for name, value in config["config"].items()}
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        damages.append(f"{clip_folder.CONFIG} cannot be read ({type(error).__name__}: {one_line(error)})")
        return None, {}, {}
    return (height, width), {name: fact for name, fact in facts.items() if fact}, settings

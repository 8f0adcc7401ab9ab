"""The gallery of experiments and sweeps: what their folders hold, read for the page that jobs/reports/gallery.py makes.

A file that is missing leaves its part out. A file that is damaged costs its clip only, which the page says.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra import clip_folder
from infra.errors import UsageError, one_line, printable
from infra.store import Store
from jobs.experiment.experiment import EVALUATION, Experiment, Submission, clip_folders
from jobs.experiment.result import FIGURES, Result, columns, spec_of
from jobs.experiment.settings import ModelSettings
from jobs.reports.gallery import Column, Figure, Media, Model, Shot, render
from model.config import TrainConfig
from model.presets import PRESETS, of_method

GALLERY = "gallery.html"
NOT_SCORES = {"num_samples", "seed", "layouts_redrawn"}  # of metrics.json
MEANINGS = {
    "minutes": "of training",
    "svfid": "distance of the samples' features to the clip's; lower is nearer",
    "sifid": "distance of the samples' features to the image's; lower is nearer",
    "blur": "the same of the clip itself, blurred by 1 px: a yardstick",
    "reconstruction": "the same of the reconstruction",
    "diversity": "how much the samples differ from each other; higher is more diverse",
    "nn_distance": "distance of the samples' patches to the nearest of the clip; 0 is a copy",
    "nnfdiv": "how little of the clip's order is in a sample; 0 is a copy",
    "coherence": "share of neighbouring patches that are neighbours in the clip; 1 is a copy, noise is near 0",
}


@dataclass(frozen=True)
class Gallery:
    """A gallery that was written.

    Attributes:
        uri: path or URI of the page.
        media_uri: of the folder of videos and pictures beside it; None if they are in the page.
        bytes: of the page, and of that folder.
        clips: how many it shows.
        damaged: a line for each model with a file that cannot be read.
    """

    uri: str
    media_uri: str | None
    bytes: int
    clips: int
    damaged: Sequence[str]


def write_gallery(experiments: Sequence[Experiment], out: Path | None = None) -> Gallery:
    """Write the page that shows experiments, or sweeps, side by side.

    Args: out: its file; None: gallery.html in the folder of the first experiment, wherever that is. If the videos are
    many, they go to a folder of the same name, but .media, beside it.

    Raises UsageError for a folder that is no experiment, or whose definition is damaged; StorageError.
    """
    store, name = (Store(str(out.parent)), out.name) if out else (experiments[0].store, GALLERY)
    media = Media(store, f"{Path(name).stem}.media")
    names = [experiment.name for experiment in experiments]
    shown = [
        column
        for experiment in experiments
        for column in _columns(experiment, experiment.uri if names.count(experiment.name) > 1 else "", media)
    ]
    page = render(shown, _figures(shown), media)
    store.write(name, page)
    media.remove_stale()
    models = [(column.name, clip, model) for column in shown for clip, model in column.models.items()]
    return Gallery(
        uri=f"{store.uri}/{name}",
        media_uri=f"{store.uri}/{media.folder}" if media.in_folder else None,
        bytes=len(page) + (media.bytes if media.in_folder else 0),
        clips=len({clip for _, clip, _ in models}),
        damaged=[f"{of}: {clip}: {model.reason}" for of, clip, model in models if model.status == "damaged"],
    )


# -- an experiment is a column, of a sweep each combination


def _columns(experiment: Experiment, distinct: str, media: Media) -> Iterator[Column]:
    """distinct: in place of its name, where another has the same; else ""."""
    name, sweep = distinct or experiment.name, experiment.sweep()
    facts = {"folder": experiment.uri}
    if experiment.has_submission():
        submission, settings = experiment.submission(), experiment.settings()
        command = submission.command or (_command(experiment, submission, settings) if settings else "")
        facts |= {"corpus": submission.corpus, "preset": submission.preset, "command": command}
        reader = _Reader(experiment, media, EVALUATION, command)
        models = {clip_id: reader.model(clip_id) for clip_id in submission.clip_ids}
        yield Column(name, facts, models, submission.failures)
    elif sweep is not None:
        facts |= {"corpus": sweep["corpus"], "sweep": " ".join(sweep["sweep"])}
        for combination, trials in _combinations(experiment, sweep["clips"]).items():
            reader = _Reader(experiment, media, f"{EVALUATION}/{combination}", "")
            models = {clip: reader.model(trial) for clip, trial in trials.items()}
            yield Column(f"{name} {combination}", facts, models)
    else:
        mend = "give the folder of one, or its name and --storage"
        raise UsageError(f"{experiment.uri}: no experiment of train_corpus.py or tune.py; {mend}")


def _combinations(experiment: Experiment, clips: Sequence[str]) -> dict[str, dict[str, str]]:
    """By combination, the trial of each clip: a trial's folder is named CLIP--COMBINATION."""
    found: dict[str, dict[str, str]] = {}
    for trial in sorted(clip_folders(experiment.names())):
        for clip in clips:
            if trial.startswith(f"{clip}--"):
                found.setdefault(trial.removeprefix(f"{clip}--"), {})[clip] = trial
    return found


def _command(experiment: Experiment, submission: Submission, settings: ModelSettings) -> str:
    """The command that makes such an experiment, as far as its files tell it."""
    words = ["python", "jobs/train_corpus.py", "--corpus", submission.corpus]
    if (preset := PRESETS.get(submission.preset)) is None:  # of a file
        words += ["--config", f"{experiment.uri}/experiment.json"]
    else:
        base, config = preset(), settings.main
        words += ["--preset", submission.preset]
        if config.method != base.method:
            words += ["--method", config.method]
            base = of_method(base, config.method)
        words += _changes(base, config)
    return shlex.join([*words, "--storage", experiment.storage.uri, "--experiment", experiment.name])


def _changes(base: TrainConfig, config: TrainConfig) -> list[str]:
    """The options that make `config` of `base`."""
    words, before = [], base.to_dict()
    for name, value in config.to_dict().items():
        if value == before[name]:
            continue
        if name == "stride" and value is not None:
            words += ["--long", "--stride", str(value)]
        else:
            words += ["--set", f"{name}={_as_set(value)}"]
    return words


def _as_set(value: object) -> str:
    """A setting's value as --set takes it."""
    if isinstance(value, list | tuple):
        return ",".join(map(_as_set, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


# -- a model: the folder of a clip, or of a trial


@dataclass(frozen=True)
class _Reader:
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
            figures = {k: v for k, v in result.to_dict().items() if k in columns(FIGURES, [result.to_dict()])}
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
        more = [
            "python",
            "jobs/sample.py",
            printable(self.experiment.checkpoint(name)),
            "--n",
            "10",
            "--out",
            "samples/",
        ]
        command = "\n".join(filter(None, [self.command, shlex.join(more) if status == "done" else ""]))
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
        for kind, label, path in wanted:
            try:
                content = self.experiment.store.read([path]).get(path)
            except OSError as error:
                damages.append(f"{path.rpartition('/')[2]} cannot be read ({one_line(error)})")
                continue
            if content:
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
        settings = {name: _as_set(value) for name, value in config["config"].items()}
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        damages.append(f"{clip_folder.CONFIG} cannot be read ({type(error).__name__}: {one_line(error)})")
        return None, {}, {}
    return (height, width), {name: fact for name, fact in facts.items() if fact}, settings


# -- the scores that there are


def _figures(shown: Sequence[Column]) -> list[Figure]:
    """Those of the results table first and in its order, then what else the clips have."""
    rows = [model.scores for column in shown for model in column.models.values()]
    there = {name for row in rows for name in row}
    first = [name for name in columns(FIGURES, rows) if name in there]
    first = [*(name for name in first if name != "minutes"), *(["minutes"] if "minutes" in there else [])]
    others = sorted(there - set(first))
    return [Figure(name, spec_of(name), _meaning(name)) for name in first] + [
        Figure(name, ".4g", _meaning(name)) for name in others
    ]


def _meaning(name: str) -> str:
    ending = name.rpartition("_")[2]
    return MEANINGS.get(name) or MEANINGS.get(ending) or MEANINGS.get(name.partition("_")[0], "")

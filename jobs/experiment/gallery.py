"""The gallery of experiments and sweeps: the page that jobs/reports/gallery.py makes of what their folders hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.errors import UsageError
from infra.store import Store
from jobs.experiment.command import command_of
from jobs.experiment.experiment import EVALUATION, Experiment, clip_folders
from jobs.experiment.result import FIGURES, columns, spec_of
from jobs.experiment.shown_model import ModelReader
from jobs.reports.gallery import Column, Figure, render
from jobs.reports.media import Media

GALLERY, MEDIA = "gallery.html", "gallery.media"
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
        command = submission.command or (command_of(experiment, submission, settings) if settings else "")
        facts |= {"corpus": submission.corpus, "preset": submission.preset, "command": command}
        reader = ModelReader(experiment, media, EVALUATION, command)
        models = {clip_id: reader.model(clip_id) for clip_id in submission.clip_ids}
        yield Column(name, facts, models, submission.failures)
    elif sweep is not None:
        facts |= {"corpus": sweep["corpus"], "sweep": " ".join(sweep["sweep"])}
        for combination, trials in _combinations(experiment, sweep["clips"]).items():
            reader = ModelReader(experiment, media, f"{EVALUATION}/{combination}", "")
            models = {clip: reader.model(trial) for clip, trial in trials.items()}
            yield Column(f"{name} {combination}", facts, models)
    else:
        mend = "give the folder of one, or its name and --storage"
        raise UsageError(f"{experiment.uri}: no experiment of train_corpus.py or tune.py; {mend}")


def _combinations(experiment: Experiment, clips: Sequence[str]) -> dict[str, dict[str, str]]:
    """By combination, the trial of each clip: a trial's folder is named CLIP--COMBINATION."""
    found: dict[str, dict[str, str]] = {}
    for trial in sorted(clip_folders(experiment.names())):
        named = [clip for clip in clips if trial.startswith(f"{clip}--")]
        if named:
            clip = max(named, key=len)  # of `cat` and `cat--2`, clip--values of the latter begins as both
            found.setdefault(trial.removeprefix(f"{clip}--"), {})[clip] = trial
    return found


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

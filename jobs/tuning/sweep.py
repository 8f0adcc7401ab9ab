"""A sweep from its request to its table: what there is to do, the trials, and what they add up to."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from infra import clip_folder
from infra.errors import UsageError, counted, one_line, printable, without_secrets
from infra.ray_cluster import ray_session
from infra.tracking.runs import ERRORS, close_parent
from jobs.experiment import runs
from jobs.experiment.corpus import Corpus, preview_corpus
from jobs.experiment.driver_log import driver_log
from jobs.experiment.experiment import SETTINGS, SWEEP, Experiment, Trials, Values, clip_folders
from jobs.experiment.machine import check_machine, check_share
from jobs.invocation import start_of
from jobs.reports.paper import differences
from jobs.training import plan
from jobs.training.corpus_job import GALLERY_CLIPS, find_clips, where_to_look, written_gallery
from jobs.training.decoding import DecodeTasks
from jobs.training.progress import reading
from jobs.tuning import plot, study, summary, trials
from jobs.tuning.axes import ABLATION, RIVAL, combinations, configured, trial_name
from jobs.tuning.request import Sweep, SweepRequest
from model.config import TrainConfig


def run(request: SweepRequest, console: Console) -> bool:
    """Run the sweep. Returns whether any trial or source failed. Raises UsageError, ConfigError, StorageError."""
    experiment = request.experiment
    _check_restore(experiment, request.restore)
    check_machine(experiment, request.tracking_uri)
    with (
        experiment.driver(console.print),
        driver_log(experiment, console),
        contextlib.ExitStack() as session,  # of Ray, as soon as it is needed
    ):
        # -- 1. what there is to do
        tried = combinations(request.config, request.axes, request.rivals)
        configs = [configured(request.config, values) for values in tried]
        tasks = DecodeTasks(experiment, request.corpus, request.decode_tasks, session)
        corpus = find_clips(console, experiment, request.corpus, *configs, decode=tasks)
        clip_ids = [clip.clip_id for clip in corpus.clips]
        listed = _trials(tried, clip_ids)
        definition = _definition(request, clip_ids)
        _check_definition(experiment, definition, request.asha)
        if request.restore:
            _forget(experiment, _ends_that_go_on(experiment, request))
        tags = {"corpus": request.corpus, "preset": request.preset, "sweep": " ".join(request.given)}
        parent = runs.open_parent_run(experiment, request.tracking_uri, tags, request.config)
        sweep = Sweep(request, {} if request.draws else listed, parent)

        # -- 2. the trials
        console.print(_how_many(request, tried, clip_ids))
        with runs.killed_if_stopped(parent):
            drawn = _train(console, sweep, corpus, definition)

            # -- 3. what they add up to
            ended = sweep.listed or {**experiment.trials(), **drawn}  # one that failed early has no folder
            return _print_results(console, sweep, corpus, ended)


def preview(request: SweepRequest, console: Console) -> bool:
    """Make the checks of `run`, and print clips, trials and iterations; change nothing.

    Returns whether some files cannot be used. Raises what `run` raises.
    """
    experiment = request.experiment
    _check_restore(experiment, request.restore)
    check_machine(experiment, request.tracking_uri)
    check_share(request.share)
    tried = combinations(request.config, request.axes, request.rivals)
    configs = [configured(request.config, values) for values in tried]
    with tempfile.TemporaryDirectory() as nowhere, reading(console) as advance:
        corpus = preview_corpus(request.corpus, Path(nowhere), *configs, advance=advance)
    for _, reason in corpus.failures:
        console.print(f"not usable: {reason}", soft_wrap=True)
    corpus.check(request.corpus)
    clip_ids = [clip.clip_id for clip in corpus.clips]
    listed = _trials(tried, clip_ids)
    _check_definition(experiment, _definition(request, clip_ids), request.asha)
    for clip in corpus.clips:
        console.print(f"{clip.clip_id}  {clip.height}×{clip.width} px (H×W)", soft_wrap=True)
    for values, config in zip(tried, configs, strict=True):
        words = " ".join(f"{key}={value}" for key, value in values.items())
        sums = " + ".join(map(str, config.iterations))
        console.print(f"{words}  iterations a trial: {sums} = {sum(config.iterations)}", soft_wrap=True)
    console.print(_how_many(request, tried, clip_ids), soft_wrap=True)
    total = sum(sum(config.iterations) for config in configs) * len(clip_ids)
    if request.draws:
        total = total // len(configs) * request.draws  # of a range its lower end stands for what Optuna draws
    done = [result for result in experiment.results(listed).values() if result.status == "done"]
    console.print(f"iterations in all: {total}" + (f"; done: {counted(len(done), 'trial')}" if done else ""))
    ended = {result.clip_id for result in done}
    models = [
        (clip, config)
        for values, config in zip(tried, configs, strict=True)
        for clip in corpus.clips
        if trial_name(clip.clip_id, values) not in ended
    ]
    cores = request.share.cores(os.cpu_count() or 1, len(models))
    for line in plan.cost_lines(models, request.num_samples, cores):
        console.print(line, soft_wrap=True)
    return bool(corpus.failures)


# -- what there is to do


def _trials(tried: Sequence[Values], clip_ids: Sequence[str]) -> Trials:
    return {trial_name(clip, values): (clip, values) for values in tried for clip in clip_ids}


def _definition(request: SweepRequest, clip_ids: Sequence[str]) -> dict[str, Any]:
    """What makes a sweep the one that it is."""
    return {
        "config": request.config.to_dict(),
        "sweep": [*request.given, *(f"{RIVAL}={rival}" for rival in request.rivals)],
        "n": request.num_samples,
        "features": request.features,
        "corpus": without_secrets(request.corpus),
        "clips": list(clip_ids),
    }


def _how_many(request: SweepRequest, tried: Sequence[Values], clip_ids: Sequence[str]) -> str:
    number = request.draws or len(tried)
    what = counted(number, "combination") + (" from Optuna" if request.draws else "")
    trials = counted(number * len(clip_ids), "trial")
    return f"{trials}: {what} × {counted(len(clip_ids), 'clip')}, into {request.experiment.uri}"


def _check_restore(experiment: Experiment, restore: bool) -> None:
    names, uri = experiment.names(), experiment.uri
    if restore and SWEEP not in names:
        raise UsageError(f"--restore: {uri} holds no sweep; leave it out, or give the sweep's --storage and name")
    if not restore and SWEEP in names:
        raise UsageError(f"{uri}: holds a sweep; --restore goes on with it, --experiment NAME makes another")
    if SWEEP not in names and SETTINGS in names:
        raise UsageError(f"{uri}: holds models of train_corpus.py; use --experiment NAME")


def _check_definition(experiment: Experiment, definition: Mapping[str, Any], asha: bool) -> None:
    """Raises UsageError if what defines the sweep that is there is another.

    It may have had fewer clips, and without ASHA other features: ASHA would judge a trial anew that is scored again.
    """
    before, uri = experiment.sweep() or definition, experiment.uri
    before = {**before, "config": TrainConfig.from_dict(before["config"]).to_dict()}  # settings that are new since
    fixed = ["config", "sweep", "n", *(["features"] if asha else [])]
    if changed := [name for name in fixed if before[name] != definition[name]]:
        was = f"its {' and '.join(changed)} differ from those given"
        raise UsageError(f"--restore: {uri}: {was}; give the same command, or use --experiment NAME")
    if gone := [clip for clip in before["clips"] if clip not in definition["clips"]]:
        mend = "bring it back, or use --experiment NAME"
        raise UsageError(f"--restore: {uri}: {gone[0]} is not in the corpus now; {mend}")


def _ends_that_go_on(experiment: Experiment, request: SweepRequest) -> set[str]:
    """How the trials ended that --restore goes on with. One that is done is only scored again, by new features."""
    ends = {"failed"} if request.asha else {"failed", "stopped"}
    before = experiment.sweep()
    asked = before is not None and request.features not in (before["features"], "lite0")
    return {*ends, "done"} if asked else ends


def _forget(experiment: Experiment, ends: Collection[str]) -> None:
    """The results of trials that ended so: they go on."""
    for name, result in experiment.results(clip_folders(experiment.names())).items():
        if result.status in ends:
            experiment.remove(f"{name}/{clip_folder.RESULT}")


# -- the trials


def _train(console: Console, sweep: Sweep, corpus: Corpus, definition: Mapping[str, Any]) -> Trials:
    """Run what has no result, and what ASHA and Optuna must see again. The definition is kept before it starts.

    Returns the trials that Optuna drew.
    """
    request, experiment = sweep.request, sweep.request.experiment
    if not request.asha:
        ended = experiment.results(sweep.listed)
        sweep = replace(sweep, listed={name: trial for name, trial in sweep.listed.items() if name not in ended})
    if not sweep.listed and not request.draws:
        return {}
    begun = experiment.trials() if request.draws else {}
    earlier = list({tuple(values.items()): values for _, values in begun.values()}.values())
    with ray_session():
        slots = request.share.slots(len(sweep.listed) or len(corpus.clips) * request.draws)
        frames = trials.put_frames(corpus.clips)
        experiment.begin_sweep(definition)
        experiment.remove(trials.STATE)
        try:
            return trials.run(sweep, frames, slots, earlier, partial(console.print, soft_wrap=True))
        finally:
            with contextlib.suppress(OSError):
                experiment.remove(trials.STATE)


# -- what they add up to


def _print_results(console: Console, sweep: Sweep, corpus: Corpus, ended: Trials) -> bool:
    """Print table and failures, leave the files in the store and in MLflow. Returns whether anything failed."""
    request, parent = sweep.request, sweep.parent
    experiment, keys = request.experiment, [axis.key for axis in request.axes]
    keys = [*keys, *([RIVAL] if request.rivals and RIVAL not in keys else [])]
    results = experiment.results(ended)
    found = summary.lines(ended, results)
    table, page = summary.table(found, keys), summary.notes_below_table(ended, results)
    page += summary.in_paper(found)
    if ABLATION in keys and (others := differences(request.config)):
        page += f"The paper's words are of its own settings. These differ: {others}.\n"
    page += "".join(f"failed  {reason}\n" for _, reason in corpus.failures)
    files = {"sweep.csv": summary.to_csv(ended, results, keys)}
    ours = [line for line in found if line.values not in [{RIVAL: rival} for rival in request.rivals]]
    about = {"corpus": printable(request.corpus), "preset": request.preset, "sweep": " ".join(request.given)}
    if chosen := summary.best(ours, request.metric):
        title = f"{experiment.name}: mean and standard deviation over the clips"
        files["sweep.png"] = plot.figure(found, request.axes, title)
        settings = configured(request.config, chosen.values).to_dict()
        files["best.json"] = json.dumps(settings, indent=2).encode() + b"\n"
        about["best"] = summary.verdict(ours, request.metric)
        page += f"{about['best']}\ntrain with --config {experiment.uri}/best.json\n"
    for name, content in files.items():
        experiment.write(name, content)
    if request.rivals:
        page += study.lay_out(experiment, ended, results)
    table.print(console)
    console.print(page, end="")

    missing = runs.forward_missing(parent, experiment, list(ended))
    ends = [results[name].status if name in results else "failed" for name in ended]
    totals = {f"trials_{end}": float(ends.count(end)) for end in ("done", "stopped", "failed")}
    if chosen:
        totals[f"best/{summary.metric_of(chosen.done.values(), request.metric)}"] = chosen.objective(request.metric)
    failed = bool(totals["trials_failed"] or corpus.failures)
    try:
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / name for name in files]
            for path in paths:
                path.write_bytes(files[path.name])
            close_parent(parent, failed=failed, metrics=totals, table=table.text() + page, files=paths, about=about)
    except ERRORS as error:
        missing[runs.TOTALS] = one_line(error)
    if missing:
        reason = next(iter(missing.values()))
        mend = "the same command with --restore sends the rest"
        console.print(f"warning: {len(missing)} not in MLflow ({reason}); {mend}")
    gallery = written_gallery(experiment, console) if chosen and len(ended) <= GALLERY_CLIPS else None
    for line in where_to_look(experiment, parent, gallery):
        console.print(line, soft_wrap=True)
    if chosen:
        console.print(f"plot:    {experiment.uri}/sweep.png", soft_wrap=True)
        command = [*start_of("train_corpus"), "--corpus", printable(request.corpus)]
        command += ["--config", f"{experiment.uri}/best.json"]
        console.print(f"next:    {shlex.join(command)}", soft_wrap=True)
    return failed

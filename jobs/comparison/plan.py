"""What a comparison would read and train, and how long that would take: --dry-run. Nothing is written."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from infra.errors import counted
from jobs.comparison.neighbours import source_of
from jobs.comparison.run import ComparisonRequest, check_sources, checked
from jobs.comparison.vectors import VectorCache, clip_vectors
from jobs.evaluation.sample_folder import list_samples, list_videos
from jobs.experiment.corpus import preview_corpus
from jobs.experiment.machine import check_share
from jobs.reports.duration import duration
from jobs.training.plan import cost_lines
from pipeline.sources import Video

MEASURED = 4  # videos whose vectors are computed: of the first one that takes the start of a process too


def preview(request: ComparisonRequest, console: Console) -> bool:
    """Make the checks of `run.run`, and print what it would do. Returns whether some files cannot be used.

    Raises UsageError, VideoError.
    """
    check_share(request.training.share)
    train, test = checked(request)
    listed, failures = list_videos(request.samples)
    samples = min(request.limit, len(list_samples(listed)))
    sources = {source_of(video.path) for video in train.videos}
    check_sources(request, sources)
    lines = [
        f"samples: {counted(samples, 'video')} of {len(listed)}",
        f"training set: {counted(len(train.videos), 'video')} of {counted(len(sources), 'source')}",
        f"test set: {counted(len(test.videos), 'video')}",
        *(f"not usable: {reason}" for reason in (*failures, *train.failures, *test.failures)),
        *_reading(request, [*train.videos, *test.videos]),
        *_training(request, train.videos[0], samples),
    ]
    for line in lines:
        console.print(line, soft_wrap=True)
    return bool(failures or train.failures or test.failures)


def _reading(request: ComparisonRequest, videos: Sequence[Video]) -> Iterator[str]:
    """How long it takes to decode all videos and to compute their vectors."""
    with tempfile.TemporaryDirectory() as nowhere:
        cache = VectorCache(Path(nowhere) / "vectors.npz", request.option, request.spec, 1)
        took = []
        for some in (videos[:1], videos[:MEASURED]):
            began = time.monotonic()
            clip_vectors(some, cache)
            took.append(time.monotonic() - began)
    first, rest = took  # the second time the first video is in the cache
    more = min(MEASURED, len(videos)) - 1
    each = rest / more if more else first
    whole = duration(each * len(videos) / request.workers)
    processes = counted(request.workers, "process")
    yield f"reading: at most {duration(each)} a video, {whole} in all, by {processes}; what --out has is not read again"


def _training(request: ComparisonRequest, video: Video, models: int) -> Iterator[str]:
    """What the models of every nn1 take, if each sample has another, and all are as large as the first clip."""
    training = request.training
    yield f"models: at most {models}, preset {training.preset}, into {training.experiment.uri}"
    with tempfile.TemporaryDirectory() as nowhere:
        clips = preview_corpus(video.path, Path(nowhere), training.settings.main).clips
    if clips:
        cores = training.share.cores(os.cpu_count() or 1, models)
        yield from cost_lines([(clips[0], training.settings.main)] * models, training.num_samples, cores)

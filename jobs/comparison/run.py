"""The comparison from its request to its tables: vectors, neighbours, a model of every nn1, scores."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from infra.errors import UsageError, counted, printable
from infra.store import IN_RAY_JOB
from jobs.comparison.neighbours import Comparer, nearest_two, source_of, write_manifest
from jobs.comparison.tables import Comparison, not_the_papers
from jobs.comparison.vectors import EmbeddedClip, VectorCache, clip_vectors
from jobs.comparison.video_sets import VideoSet, video_set
from jobs.evaluation.sample_folder import list_samples, list_videos, read_whole
from jobs.training import corpus_job
from jobs.training.request import TrainRequest
from model.metrics.features import VideoFeatures
from model.metrics.fid import embeddings
from pipeline.clips import FPS, ClipSpec
from pipeline.video import VideoError


@dataclass(frozen=True, kw_only=True)
class ComparisonRequest:
    """What was asked, checked.

    Attributes:
        samples: folder of videos of the other method.
        train, test: folders or lists of videos: what it was trained on, for the FID.
        videos: where the paths in such lists start; None: see `video_set`.
        name: of the other method.
        limit: samples that are drawn at random.
        option, features: --features, as written and loaded.
        spec: the clips of a video; with a stride.
        seed: of every random choice and of our samples.
        out: folder for the tables and the vectors.
        workers: processes that decode.
        training: of the models of every nn1; its corpus is the manifest that this job writes.
    """

    samples: str
    train: str
    test: str
    videos: str | None
    name: str
    limit: int
    option: str
    features: VideoFeatures
    spec: ClipSpec
    seed: int
    out: Path
    workers: int
    training: TrainRequest

    @property
    def stem(self) -> Path:
        """What the names of the files in `out` begin with."""
        return self.out / f"{self.name}_{self.features.name}"


def run(request: ComparisonRequest, console: Console) -> bool:
    """Compare. Returns whether anything failed. Raises UsageError, StorageError, VideoError."""
    failures: list[str] = []

    def fail(line: str) -> None:
        failures.append(printable(line))
        console.print(failures[-1])

    # -- 1. what there is
    train_set, test_set = checked(request)  # what is wrong ends it here, before hours of decoding
    try:
        request.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {request.out}: cannot be made ({error.strerror}); give another folder") from error
    drawn = _draw(request, fail)
    train = _embed(request, train_set, fail, console)
    sources = [source_of(clip.path) for clip in train]
    check_sources(request, sources)
    test = _embed(request, test_set, fail, console)

    # -- 2. a model of every nn1, by the corpus job
    pairs = nearest_two(np.stack(list(drawn.values())), np.stack([clip.vector for clip in train]), sources)
    neighbours = [(train[first], train[second]) for first, second in pairs]
    found = {nn1.clip_id: nn1 for nn1, _ in neighbours}
    write_manifest(Path(request.training.corpus), found.values(), request.spec.fps or FPS)
    console.print(f"{len(found)} different nn1 of {counted(len(drawn), 'sample')} among {counted(len(train), 'clip')}")
    corpus_job.run(request.training, console)
    experiment = request.training.experiment
    done = {clip_id for clip_id, result in experiment.results(found).items() if result.status == "done"}
    failures += [f"{clip_id}: not trained" for clip_id in found if clip_id not in done]  # the corpus job has said why

    # -- 3. scores and tables of the samples whose nn1 has a model
    trained = [(path, nn1, nn2) for path, (nn1, nn2) in zip(drawn, neighbours) if nn1.clip_id in done]
    rows = Comparer(experiment, request.features, request.spec, request.seed, fail).compare(trained)
    if len(rows) < 2:
        fail(f"of {counted(len(rows), 'sample')} the nn1 has a model, 2 are the least: no tables")
        return True
    comparison = Comparison(
        name=request.name,
        features=request.features.name,
        rows=rows,
        test_set=np.stack([clip.vector for clip in test]),
        seed=request.seed,
        not_the_papers=not_the_papers(request.name, request.features.name, request.training.settings.main),
        notes=_notes(request, train),
        failures=failures,
    )
    console.print("\n" + comparison.write(request.stem))
    return bool(failures)


def checked(request: ComparisonRequest) -> tuple[VideoSet, VideoSet]:
    """The videos of training and test, after the checks that change nothing. Raises UsageError."""
    request.training.check()
    list_videos(request.samples)
    train_set, test_set = (video_set(source, request.videos) for source in (request.train, request.test))
    if IN_RAY_JOB in os.environ and not request.out.is_absolute():
        raise UsageError(f"--out {request.out}: a Ray job's folder is thrown away; give an absolute path")
    return train_set, test_set


def check_sources(request: ComparisonRequest, sources: Collection[str]) -> None:
    """Raises UsageError if the clips of the training set have no two sources."""
    if len(set(sources)) < 2:
        raise UsageError(f"{request.train}: all its clips are of one source video, nn2 must be of another; give more")


def _notes(request: ComparisonRequest, train: list[EmbeddedClip]) -> list[str]:
    count, stride = request.spec.num_frames, request.spec.stride
    notes = [
        f"nn1: the nearest of {len(train)} training clips, which ours was trained on; nn2: the one of another source.",
        f"Nearest: by mean {request.features.name} vectors; the paper does not say by what.",
        f"A clip: {count} frames at 24 FPS, one every {stride} frames; the paper does not say which.",
    ]
    if others := len({path for path in map(source_of, (clip.path for clip in train)) if os.path.isabs(path)}):
        notes.append(f"{others} training videos are not named v_Class_gNN_cNN: each counts as a source of its own.")
    return notes


def _draw(request: ComparisonRequest, fail: Callable[[str], None]) -> dict[str, np.ndarray]:
    """Vectors (D,) float32 of samples drawn at random, by path; `fail` is called for those that cannot be used."""
    listed, failures = list_videos(request.samples)
    videos = list_samples(listed)
    for line in failures:
        fail(line)
    drawn: dict[str, np.ndarray] = {}
    for index in np.random.default_rng(request.seed).permutation(len(videos)):
        if len(drawn) == request.limit:
            break
        path = videos[index].path
        try:
            video = read_whole(path, request.spec.max_height)
            drawn[path] = embeddings([video], request.features)[0].astype(np.float32)
        except VideoError as error:
            fail(str(error))
        except ValueError as error:  # of the features: a single frame
            fail(f"{path}: cannot be compared ({error}); give a longer video")
    if len(drawn) < 2:
        raise UsageError(f"{request.samples}: {counted(len(drawn), 'sample')} can be used, 2 are the least; give more")
    return dict(sorted(drawn.items()))


def _embed(
    request: ComparisonRequest, videos: VideoSet, fail: Callable[[str], None], console: Console
) -> list[EmbeddedClip]:
    """The clips of the videos. Raises UsageError for fewer than two."""
    spec = request.spec
    path = request.out / f"vectors_{request.features.name}_{spec.num_frames}_{spec.stride}.npz"
    cache = VectorCache(path, request.option, spec, request.workers)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(f"videos of {Path(videos.name).name}")
        clips, failures = clip_vectors(
            videos.videos,
            cache,
            warn=console.print,
            advance=lambda number, total: progress.update(bar, completed=number, total=total),
        )
    for line in (*videos.failures, *failures):
        fail(line)
    if len(clips) < 2:
        raise UsageError(f"{videos.name}: {counted(len(clips), 'clip')} can be used, 2 are the least; give more videos")
    return clips

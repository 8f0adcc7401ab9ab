"""The samples of the other method, their nearest clips, and ours: what Tables 1 and 2 of the paper compare (§4.1)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from infra.files import replacing
from jobs.comparison.vectors import EmbeddedClip, read_clip
from jobs.evaluation.sample_folder import read_whole
from jobs.experiment.experiment import Experiment
from jobs.experiment.models import trained_models
from model.checkpoint import CheckpointError
from model.device import best_device
from model.loading import load
from model.metrics.features import VideoFeatures
from model.metrics.fid import embeddings
from model.metrics.svfid import RealClip, svfid
from model.sampling.sampler import random_videos
from pipeline.clips import ClipSpec
from pipeline.shards import ShardError
from pipeline.shards import read_clip as read_shard
from pipeline.video import VideoError

UCF_NAME = re.compile(r"v_(\w+_g\d+)_c\d+")


def source_of(path: str) -> str:
    """What the clips of one source video share: UCF-101's class and group, else the path itself."""
    named = UCF_NAME.fullmatch(Path(path).stem)
    return named[1] if named else path


def nearest_two(samples: np.ndarray, clips: np.ndarray, sources: Sequence[str]) -> list[tuple[int, int]]:
    """For each sample the nearest clip, and the nearest one of another source, by Euclidean distance (paper §4.1).

    The paper does not say in what space; here it is the one of the FID, vectors of `fid.embeddings`.

    Args: samples: (n, D); clips: (m, D), of `sources`, at least two different ones.
    Returns two indices into `clips` a sample.
    """
    number_of = {source: number for number, source in enumerate(dict.fromkeys(sources))}
    source = np.array([number_of[name] for name in sources])
    pairs = []
    for vector in samples:
        distances = np.linalg.norm(clips - vector, axis=1)
        first = int(distances.argmin())
        pairs.append((first, int(np.where(source == source[first], np.inf, distances).argmin())))
    return pairs


def write_manifest(path: Path, clips: Iterable[EmbeddedClip], fps: float) -> None:
    """The clips as train_corpus.py takes them. fps: what their starts are counted at. Raises StorageError."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("clip_id", "path", "start_s"))
    writer.writerows((clip.clip_id, clip.path, clip.start / fps) for clip in clips)
    with replacing(path) as file:
        file.write(text.getvalue().encode("utf-8", "surrogateescape"))


@dataclass(frozen=True, eq=False)
class ComparedSample:
    """A sample of the baseline, and ours beside it."""

    sample: str  # path
    nn1: EmbeddedClip
    nn2: EmbeddedClip
    number: int  # of our sample among the model's: they count from 0 on for samples that share nn1
    scores: Mapping[str, float]  # SVFID: baseline_nn1, ours_nn1, baseline_nn2, ours_nn2
    baseline: np.ndarray  # vector (D,) of the baseline's sample
    ours: np.ndarray  # of ours

    def report(self) -> Mapping[str, Any]:
        """Its entry in the JSON file; starts are frames at 24 FPS."""
        pair = {"nn1": self.nn1, "nn2": self.nn2}
        clips = {name: {"path": clip.path, "start": clip.start} for name, clip in pair.items()}
        return {"sample": self.sample, **clips, "model": self.nn1.clip_id, "number": self.number, **self.scores}


@dataclass(frozen=True)
class Comparer:
    """Compares samples of the other method with ours.

    Attributes:
        experiment: of the models of every nn1.
        spec: how the real clips are cut.
        seed: of our samples.
        fail: called with a line for each sample that cannot be compared.
    """

    experiment: Experiment
    features: VideoFeatures
    spec: ClipSpec
    seed: int
    fail: Callable[[str], None]

    def compare(self, trained: Sequence[tuple[str, EmbeddedClip, EmbeddedClip]]) -> list[ComparedSample]:
        """A random sample of the model of each nn1 beside the other method's sample.

        Args: trained: path of that sample, its nn1, its nn2; the model of nn1 is there.
        """
        models = trained_models(self.experiment)
        frames = models.frames() if models and models.patches else {}
        rows: list[ComparedSample] = []
        for path, nn1, nn2 in trained:
            number = sum(row.nn1 is nn1 for row in rows)
            try:
                loaded = load(self.experiment.checkpoint(nn1.clip_id))
                chunks = [read_shard(entry).frames_thwc for entry in frames.get(nn1.clip_id, ())]
                ours = random_videos(loaded.sampler(chunks, best_device()), 1, self.seed, first=number)[0]
                videos = {"baseline": read_whole(path, self.spec.max_height), "ours": ours.numpy()}
                pair = {"nn1": nn1, "nn2": nn2}
                reals = {name: read_clip(clip.path, clip.start, self.spec) for name, clip in pair.items()}
            except (CheckpointError, VideoError, ShardError, ValueError) as error:
                self.fail(str(error))
                continue
            scores = svfids(videos, reals, self.features)
            baseline, own = embeddings(videos.values(), self.features)
            rows.append(ComparedSample(path, nn1, nn2, number, scores, baseline=baseline, ours=own))
        return rows


def svfids(
    videos: Mapping[str, np.ndarray], reals: Mapping[str, np.ndarray], features: VideoFeatures
) -> Mapping[str, float]:
    """SVFID of every video to every real clip, by "{video}_{clip}"; all float32 (3, T, H, W) in [-1, 1]."""
    clips = {name: RealClip([real], features) for name, real in reals.items()}
    return {f"{who}_{name}": svfid(clip, [each]).mean for name, clip in clips.items() for who, each in videos.items()}

"""One clip, or one long video, from its frames to its results: the unit of work of corpus and sweep.

It writes files (infra/clip_folder.py lists them) and knows no server.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from infra import clip_folder
from infra.errors import Refusal, printable
from infra.files import append, write_json
from infra.metrics_log import MetricsLog
from jobs.experiment.result import Result, write_result
from jobs.reports.pictures import SHOWN_SAMPLES, sheet, write_png
from jobs.training.kept_samples import SCORED_SEED, KeptSamples, Trained
from model.config import TrainConfig
from model.device import best_device, resolve
from model.metrics.diversity import is_of_one_lightness
from model.metrics.names import diversity_name
from model.metrics.option import features_for, from_option
from model.metrics.scores import chunks_to_score, score
from model.metrics.svfid import RealClip
from model.pyramid import ladder, training_pyramids
from model.sampling.sample import frames_per_second
from model.sampling.sampler import FinishedSampler, NetworkSampler, Sampler, check_memory, random_videos, sampler_of
from model.training.loop import Progress, ScaleDone, train_clip
from pipeline import video

START_FRAME = re.compile(r"-(\d{6})$")  # at the end of a clip's id
SHOWN_SEED = 0  # of the samples in the pictures of the scales


@dataclass(frozen=True)
class ClipFrames:
    """A clip with its frames.

    Attributes:
        chunks: uint8 (T, H, W, 3) RGB each, of a short clip one; T is 1 of an image.
        tags: more of its run's tags in MLflow.
    """

    clip_id: str
    source: str
    chunks: Sequence[np.ndarray]
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Scoring:
    """What is scored at the end.

    Attributes:
        num_samples: random videos that are scored and kept, at least 2.
        features: that they are scored with too, as --features names them.
    """

    num_samples: int = 10
    features: str = "lite0"


@dataclass(frozen=True)
class Hooks:
    """What is called while a clip is trained.

    Attributes:
        check: before each write; raises if another process has taken the folder over.
        report: with every logged point, for a progress display.
        scored: after each scale, with the scores of a few of its samples, when they are in the folder.
    """

    check: Callable[[], None] = lambda: None
    report: Callable[[Progress], None] = lambda progress: None
    scored: Callable[[int, Mapping[str, float]], None] = lambda scale, scores: None


def fit_clip(
    clip: ClipFrames, config: TrainConfig, folder: Path, scoring: Scoring = Scoring(), hooks: Hooks = Hooks()
) -> Result:
    """Train one clip in `folder`, going on from its checkpoint if there is one, and keep and score its samples.

    Raises what training raises (NonFiniteLoss, CheckpointError, StorageError, MemoryError …): the caller decides what a
    failure is.
    """
    if config.dims == 3:
        video.ffmpeg_exe()  # without one its videos could not be written at the end
    others = None
    if scoring.features != "lite0":  # before minutes of training, so that a file that cannot be read is told now
        others = features_for(config.dims, from_option(scoring.features))

    trained = _Training(clip, config, folder, hooks).run()

    samples = KeptSamples(trained, scoring.num_samples, hooks.check)
    samples.write(folder / clip_folder.SAMPLES, frames_per_second(config, trained.sampler.size.frames))
    by_others = samples.scores_by(others) if others else {}
    scores = {**samples.scores(), **by_others}
    if isinstance(trained.sampler, FinishedSampler):
        scores["layouts_redrawn"] = trained.sampler.redrawn
    hooks.check()
    how = {"num_samples": scoring.num_samples, "seed": SCORED_SEED, "time_ms": time.time_ns() // 1_000_000}
    write_json(folder / clip_folder.METRICS, scores | how)
    (folder / clip_folder.ERROR).unlink(missing_ok=True)  # of an earlier attempt
    warnings = folder / clip_folder.WARNINGS
    result = Result(
        clip.clip_id,
        "done",
        minutes=trained.minutes,
        svfid_lite0=scores.get("svfid_lite0"),
        svfid_lite0_blur=scores.get("svfid_lite0_blur"),
        sifid_lite0_frames=scores.get("sifid_lite0_frames"),
        sifid_lite0_frames_blur=scores.get("sifid_lite0_frames_blur"),
        diversity=scores[diversity_name(scoring.num_samples)],
        diversity_n=scoring.num_samples,
        nn_distance=scores["nn_distance"],
        nnfdiv=scores.get("nnfdiv"),
        coherence=scores.get("coherence"),
        others=by_others,
        warning=warnings.read_text() if warnings.exists() else "",
    )
    write_result(folder, result)
    return result


class _Training:
    """The scales of a clip, each scored and pictured when it is trained."""

    def __init__(self, clip: ClipFrames, config: TrainConfig, folder: Path, hooks: Hooks) -> None:
        """Begins the folder. Raises Refusal for a clip that nothing can be learned of, or that does not fit."""
        self._clip, self._config, self._folder, self._hooks = clip, config, folder, hooks
        self._pyramids = training_pyramids(clip.chunks, config)
        sizes = ladder(config, *clip.chunks[0].shape[1:3])
        check_memory(config, sizes, len(self._pyramids), best_device())
        (folder / clip_folder.SAMPLES).mkdir(parents=True, exist_ok=True)
        _write_config(folder / clip_folder.CONFIG, clip, config)
        copies = len(self._pyramids) // len(clip.chunks)  # augmented ones, which are not scored against
        self._chunks = chunks_to_score(self._pyramids[::copies])
        for n in range(config.num_scales):  # a small thing may be lost at the coarse ones
            if all(is_of_one_lightness(chunk[n]) for chunk in self._chunks):
                cause = f"at scale {n} every pixel has the same lightness, nothing can be learned"
                raise Refusal(f"{clip.source}: {cause}; give another clip")
        self._log, self._features = MetricsLog(folder / clip_folder.LOG), features_for(config.dims)

    def run(self) -> Trained:
        """Train what is missing."""
        config, last = self._config, self._config.num_scales - 1
        real_zero = torch.from_numpy(self._chunks[0][0])[None]
        done: ScaleDone | None = None
        for done in train_clip(
            config,
            self._pyramids,
            clip_id=self._clip.clip_id,
            path=self._folder / clip_folder.CHECKPOINT,
            log=self._log_and_report,
            warn=self._warn,
        ):
            shown = self._show(NetworkSampler(done.stack, real_zero), done.n)
        stack = done.stack if done else None
        sampler = sampler_of(config, stack, self._pyramids, stack.device if stack else best_device())
        if done is None or done.n < last:  # patches make the rest
            shown = self._show(sampler, last)
        real, reconstruction = shown
        return Trained(sampler, stack, done.train_s / 60 if done else 0.0, real, reconstruction)

    def _show(self, sampler: Sampler, n: int) -> tuple[RealClip, torch.Tensor]:
        """Score and picture a few samples of scale n. Returns the clip at that scale, and its reconstruction."""
        samples = random_videos(sampler, SHOWN_SAMPLES, SHOWN_SEED)
        real = RealClip([chunk[n] for chunk in self._chunks], self._features)
        scores = score(samples, real)
        self._hooks.check()
        self._log.append(n, None, scores)
        reconstruction = sampler.reconstruction()[0]
        picture = sheet(np.asarray(real.video), reconstruction.numpy(), samples.numpy())
        write_png(picture, self._folder / clip_folder.SAMPLES / f"scale_{n:02d}.png")
        self._hooks.scored(n, scores)
        return real, reconstruction

    def _log_and_report(self, progress: Progress) -> None:
        self._hooks.check()
        self._log.append(progress.scale, progress.iteration, progress.metrics)
        self._hooks.report(progress)

    def _warn(self, line: str) -> None:
        append(self._folder / clip_folder.WARNINGS, line)  # kept there until the clip is done, by whatever process


def title_of(clip: ClipFrames, fps: float) -> str:
    """What a person would call it: the name of its file, from when on, and of a trial the values that were tried."""
    values = dict(clip.tags)
    clip_id = values.pop("clip", clip.clip_id)
    words = [Path(clip.source).stem or clip_id]
    if (start := START_FRAME.search(clip_id)) and int(start[1]):
        words.append(f"from {int(start[1]) / fps:.1f} s")
    return printable(" ".join([*words, *(f"{name}={value}" for name, value in values.items() if name != "preset")]))


def _digest(chunks: Sequence[np.ndarray]) -> str:
    """SHA-256 of the frames, hexadecimal."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(np.ascontiguousarray(chunk).data)
    return digest.hexdigest()


def _write_config(path: Path, clip: ClipFrames, config: TrainConfig) -> None:
    _, height, width, _ = clip.chunks[0].shape
    packages = ("torch", "accelerate", "ray", "mlflow", "numpy")
    write_json(
        path,
        {
            "clip_id": clip.clip_id,
            "source": clip.source,
            "title": title_of(clip, config.fps or 1.0),
            "frames_sha256": _digest(clip.chunks),
            "tags": dict(clip.tags),
            "clip_size_thw": list(clip.chunks[0].shape[:3]),
            "chunks": len(clip.chunks),
            "sizes_thw": [list(size) for size in ladder(config, height, width)],
            "config": config.to_dict(),
            "precision_used": resolve(config.precision, best_device()),
            "device": best_device().type,
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "versions": {name: importlib.metadata.version(name) for name in packages},
        },
    )

"""One clip, or one long video, from its frames to its results: the unit of work of corpus and sweep. It writes files
and knows no server.

The folder of a clip, in the order it fills:
    config.json      settings, sizes, precision, versions; written before work starts
    metrics.jsonl    append-only: one line a logged point, {time_ms, scale, iteration, metrics}; iteration is null
                     in the line of a finished scale, which scores a few of its samples
    checkpoint.pt    everything training is (model/checkpoint.py), and checkpoint.previous.pt, the one before it
    warnings.txt     only if there were any: a line for each time that the checkpoint before was used
    samples/         scale_NN.png after each scale; real, reconstruction and sample_NN as mp4 and gif at the end
    metrics.json     the final scores: svfid_lite0 (also of the reconstruction and of the blurred clip), diversity, …
    result.json      written last: its presence with status "done" means done
    error.txt        only of a failed clip: the traceback
    tracked.json     written by jobs/tracking.py when all the others are in MLflow
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from infra.files import append, replacing, write_json
from infra.metrics_log import MetricsLog
from jobs.experiment.corpus import FPS
from jobs.experiment.result import Result, write_result
from jobs.reports.pictures import SHOWN_SAMPLES, sheet
from model import pyramid
from model.config import TrainConfig
from model.device import best_device, resolve
from model.metrics.diversity import lightness
from model.metrics.lite0 import Lite0Features
from model.metrics.scores import chunks_to_score, score, score_of_blur
from model.metrics.svfid import RealClip, svfid
from model.pyramid import ladder, to_frames
from model.sampling.sample import frames_per_second, reconstruct, sample
from model.training.loop import Progress, ScaleDone, train_clip
from pipeline import augment, video

SHOWN_SEED, SCORED_SEED = 0, 1  # the samples in the pictures, and those that are scored and kept as videos


@dataclass(frozen=True)
class Clip:
    """What a task is given. chunks: uint8 (13, H, W, 3) RGB at 24 FPS each, of a short clip one; tags: more of its
    run's tags in MLflow.
    """

    clip_id: str
    source: str
    chunks: Sequence[np.ndarray]
    tags: Mapping[str, str] = field(default_factory=dict)


def fit_clip(
    clip: Clip,
    config: TrainConfig,
    folder: Path,
    *,
    num_samples: int = 10,
    report: Callable[[Progress], None] = lambda progress: None,
    scored: Callable[[int, Mapping[str, float]], None] = lambda scale, scores: None,
) -> Result:
    """Train one clip in `folder`, going on from its checkpoint if there is one.

    Args:
        num_samples: random videos that are scored and kept, at least 2.
        report: told every logged point, for a progress display.
        scored: told each finished scale and the scores of a few of its samples, when they are in the folder.

    Raises what training raises (NonFiniteLoss, CheckpointError, StorageError, MemoryError …): the caller decides what a
    failure is.
    """
    sizes, pyramids = real_pyramids(clip, config)
    samples_dir = folder / "samples"
    samples_dir.mkdir(parents=True, exist_ok=True)
    _write_config(folder / "config.json", clip, config, sizes)
    chunks = chunks_to_score(pyramids[:: len(pyramids) // len(clip.chunks)])  # and not their augmented copies
    if all(lightness(torch.from_numpy(chunk[-1])).std() == 0 for chunk in chunks):
        raise ValueError(
            f"{clip.source}: every pixel has the same lightness, nothing can be learned; give another clip"
        )
    log, warnings = MetricsLog(folder / "metrics.jsonl"), folder / "warnings.txt"

    def log_and_report(progress: Progress) -> None:
        log.append(progress.scale, progress.iteration, progress.metrics)
        report(progress)

    def warn(line: str) -> None:
        append(warnings, line)  # kept there until the clip is done, which may be in another process

    features = Lite0Features()
    done: ScaleDone | None = None
    for done in train_clip(
        config, pyramids, clip_id=clip.clip_id, path=folder / "checkpoint.pt", log=log_and_report, warn=warn
    ):
        shown = sample(done.stack, SHOWN_SAMPLES, SHOWN_SEED)
        real = RealClip([chunk[done.n] for chunk in chunks], features)
        scores = score(shown, real)
        log.append(done.n, None, scores)
        reconstruction = reconstruct(done.stack, torch.from_numpy(chunks[0][0])[None])[0]
        picture = sheet(np.asarray(real.video), reconstruction.numpy(), shown.numpy())
        with replacing(samples_dir / f"scale_{done.n:02d}.png") as file:
            Image.fromarray(picture).save(file, "PNG")
        scored(done.n, scores)
    assert done is not None  # a config has at least one scale

    # -- what the trained model makes, and how it scores
    videos = sample(done.stack, num_samples, SCORED_SEED)
    for name, made in _named_videos(torch.from_numpy(real.video), reconstruction, videos).items():
        for suffix in (".mp4", ".gif"):
            path = samples_dir / f"{name}{suffix}"
            video.encode(to_frames(made.numpy()), path, fps=frames_per_second(done.stack, done.n, FPS))
    metrics = {
        **score(videos, real),
        **score_of_blur(real),
        f"{real.metric}_reconstruction": svfid(real, reconstruction[None]).mean,
    }
    write_json(folder / "metrics.json", {**metrics, "num_samples": num_samples, "seed": SCORED_SEED})
    (folder / "error.txt").unlink(missing_ok=True)  # of an earlier attempt
    result = Result(
        clip.clip_id,
        "done",
        minutes=done.train_s / 60,
        svfid_lite0=metrics["svfid_lite0"],
        svfid_lite0_blur=metrics["svfid_lite0_blur"],
        diversity=metrics["diversity"],
        nn_distance=metrics["nn_distance"],
        warning=warnings.read_text() if warnings.exists() else "",
    )
    write_result(folder, result)
    return result


def real_pyramids(clip: Clip, config: TrainConfig) -> tuple[tuple[pyramid.ScaleSize, ...], list[pyramid.Pyramid]]:
    """The ladder, and the samples to train on: each chunk, followed by its augmented copies."""
    _, height, width, _ = clip.chunks[0].shape
    sizes = ladder(config, height, width)
    samples = [
        copy
        for place, chunk in enumerate(clip.chunks)
        for copy in augment.copies(chunk, flip=config.flip, crops=config.crops, seed=config.seed + place)
    ]
    return sizes, [pyramid.Pyramid(frames, sizes) for frames in samples]


def _named_videos(real: torch.Tensor, reconstruction: torch.Tensor, samples: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"real": real, "reconstruction": reconstruction} | {f"sample_{i:02d}": x for i, x in enumerate(samples)}


def _write_config(path: Path, clip: Clip, config: TrainConfig, sizes: tuple[pyramid.ScaleSize, ...]) -> None:
    packages = ("torch", "accelerate", "ray", "mlflow", "numpy")
    write_json(
        path,
        {
            "clip_id": clip.clip_id,
            "source": clip.source,
            "tags": dict(clip.tags),
            "clip_size_thw": list(clip.chunks[0].shape[:3]),
            "chunks": len(clip.chunks),
            "sizes_thw": [[s.frames, s.height, s.width] for s in sizes],
            "config": config.to_dict(),
            "precision_used": resolve(config.precision, best_device()),
            "device": best_device().type,
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "versions": {name: importlib.metadata.version(name) for name in packages},
        },
    )

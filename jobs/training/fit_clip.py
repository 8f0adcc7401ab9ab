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
from infra.errors import printable
from infra.files import append, write_json
from infra.metrics_log import MetricsLog
from jobs.experiment.result import Result, write_result
from jobs.reports.pictures import SHOWN_SAMPLES, contact_sheet, field_sheet, sheet, spread_sheet, write_png
from jobs.reports.side_by_side import LOOP_S, side_by_side_video
from model.config import TrainConfig
from model.device import best_device, resolve
from model.metrics.diversity import diversity_map, lightness
from model.metrics.features import Video
from model.metrics.names import diversity_name
from model.metrics.nnf import NearestNeighbourField
from model.metrics.option import features_for, from_option
from model.metrics.scores import chunks_to_score, nearest_chunk, score, score_of_blur, score_of_novelty
from model.metrics.svfid import RealClip, svfid
from model.pyramid import ladder, to_frames, training_pyramids
from model.sampling.sample import frames_per_second
from model.sampling.sampler import FinishedSampler, NetworkSampler, Sampler, check_memory, random_videos, sampler_of
from model.training.loop import Progress, ScaleDone, train_clip
from pipeline import video

DIVERSITY_MAP, NEAREST_MAP, COMPARED = "diversity.png", "nnf_00.png", "side_by_side.mp4"  # of the samples
START_FRAME = re.compile(r"-(\d{6})$")  # at the end of a clip's id
SHOWN_SEED, SCORED_SEED = 0, 1  # the samples in the pictures, and those that are scored and kept as videos


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


def fit_clip(
    clip: ClipFrames,
    config: TrainConfig,
    folder: Path,
    *,
    num_samples: int = 10,
    features: str = "lite0",
    check: Callable[[], None] = lambda: None,
    report: Callable[[Progress], None] = lambda progress: None,
    scored: Callable[[int, Mapping[str, float]], None] = lambda scale, scores: None,
) -> Result:
    """Train one clip in `folder`, going on from its checkpoint if there is one.

    Args:
        num_samples: random videos that are scored and kept, at least 2.
        features: that the samples are scored with too at the end, as --features names them.
        check: called before each write; raises if another process has taken the folder over.
        report: called with every logged point, for a progress display.
        scored: called after each scale with the scores of a few of its samples, when they are in the folder.

    Raises what training raises (NonFiniteLoss, CheckpointError, StorageError, MemoryError …): the caller decides what a
    failure is.
    """
    if config.dims == 3:
        video.ffmpeg_exe()  # without one its videos could not be written at the end
    pyramids = training_pyramids(clip.chunks, config)
    check_memory(config, ladder(config, *clip.chunks[0].shape[1:3]), len(pyramids), best_device())
    samples_dir = folder / clip_folder.SAMPLES
    samples_dir.mkdir(parents=True, exist_ok=True)
    _write_config(folder / clip_folder.CONFIG, clip, config)
    chunks = chunks_to_score(pyramids[:: len(pyramids) // len(clip.chunks)])  # and not their augmented copies
    if all(lightness(torch.from_numpy(chunk[-1])).std() == 0 for chunk in chunks):
        raise ValueError(
            f"{clip.source}: every pixel has the same lightness, nothing can be learned; give another clip"
        )
    log, warnings = MetricsLog(folder / clip_folder.LOG), folder / clip_folder.WARNINGS

    def log_and_report(progress: Progress) -> None:
        check()
        log.append(progress.scale, progress.iteration, progress.metrics)
        report(progress)

    def warn(line: str) -> None:
        append(warnings, line)  # kept there until the clip is done, which may be in another process

    own = features_for(config.dims)
    # before minutes of training, so that a file that cannot be read is told now
    others = own if features == "lite0" else features_for(config.dims, from_option(features))

    def show(sampler: Sampler, n: int) -> tuple[RealClip, torch.Tensor]:
        """Score and picture a few samples of scale n. Returns the clip at that scale, and its reconstruction."""
        samples = random_videos(sampler, SHOWN_SAMPLES, SHOWN_SEED)
        real = RealClip([chunk[n] for chunk in chunks], own)
        scores = score(samples, real)
        check()
        log.append(n, None, scores)
        reconstruction = sampler.reconstruction()[0]
        picture = sheet(np.asarray(real.video), reconstruction.numpy(), samples.numpy())
        write_png(picture, samples_dir / f"scale_{n:02d}.png")
        scored(n, scores)
        return real, reconstruction

    done: ScaleDone | None = None
    checkpoint, last = folder / clip_folder.CHECKPOINT, config.num_scales - 1
    real_zero = torch.from_numpy(chunks[0][0])[None]
    for done in train_clip(config, pyramids, clip_id=clip.clip_id, path=checkpoint, log=log_and_report, warn=warn):
        shown = show(NetworkSampler(done.stack, real_zero), done.n)
    device = done.stack.device if done else best_device()
    sampler = sampler_of(config, done.stack if done else None, pyramids, device)
    if done is None or done.n < last:  # patches make the rest
        shown = show(sampler, last)

    # -- samples of the trained model, and their scores
    real, reconstruction = shown
    videos = random_videos(sampler, num_samples, SCORED_SEED)
    fps = frames_per_second(config, sampler.size.frames)
    shown_frames = _named_frames(real, reconstruction, videos, _plain(sampler, done))
    for stale in {path for path in samples_dir.glob("sample_*") if path.stem not in shown_frames}:
        check()
        stale.unlink()  # of a submission that asked for more
    for name, frames in shown_frames.items():
        check()
        write_clip(frames, samples_dir / name, fps)
    nearest = nearest_chunk(videos[0], real)
    for name, picture in _pictures(real, reconstruction, videos, nearest).items():
        check()
        write_png(picture, samples_dir / name)
    if config.dims == 3:
        check()
        compared = _compared(real, reconstruction, videos)
        video.encode(compared, samples_dir / COMPARED, fps=fps, least_s=LOOP_S)
    metrics = {
        **score(videos, real),
        **(score_of_novelty(nearest[1]) if nearest else {}),
        **score_of_blur(real),
        f"{real.metric}_reconstruction": svfid(real, reconstruction[None]).mean,
    }
    scores_of_others = {}
    if others is not own:
        by_others = RealClip(real.chunks, others)
        scores_of_others = {by_others.metric: svfid(by_others, videos).mean, **score_of_blur(by_others)}
        metrics |= scores_of_others
    if isinstance(sampler, FinishedSampler):
        metrics["layouts_redrawn"] = sampler.redrawn
    check()
    how = {"num_samples": num_samples, "seed": SCORED_SEED, "time_ms": time.time_ns() // 1_000_000}
    write_json(folder / clip_folder.METRICS, metrics | how)
    (folder / clip_folder.ERROR).unlink(missing_ok=True)  # of an earlier attempt
    result = Result(
        clip.clip_id,
        "done",
        minutes=done.train_s / 60 if done else 0.0,
        svfid_lite0=metrics.get("svfid_lite0"),
        svfid_lite0_blur=metrics.get("svfid_lite0_blur"),
        sifid_lite0_frames=metrics.get("sifid_lite0_frames"),
        sifid_lite0_frames_blur=metrics.get("sifid_lite0_frames_blur"),
        diversity=metrics[diversity_name(num_samples)],
        diversity_n=num_samples,
        nn_distance=metrics["nn_distance"],
        nnfdiv=metrics.get("nnfdiv"),
        coherence=metrics.get("coherence"),
        others=scores_of_others,
        warning=warnings.read_text() if warnings.exists() else "",
    )
    write_result(folder, result)
    return result


def write_clip(frames_thwc: np.ndarray, path: Path, fps: float) -> None:
    """A video as mp4 and gif, an image, which has one frame, as png. path: without a suffix.

    Raises VideoError, StorageError.
    """
    if len(frames_thwc) == 1:
        write_png(frames_thwc[0], path.with_name(f"{path.name}.png"))
        return
    for suffix in (".mp4", ".gif"):
        video.encode(frames_thwc, path.with_name(f"{path.name}{suffix}"), fps=fps)


def _plain(sampler: Sampler, done: ScaleDone | None) -> torch.Tensor | None:
    """The first samples as the networks alone make them, of the finest size: of a model that patches finish.

    (SHOWN_SAMPLES, 3, T, H, W)
    """
    if done is None or not isinstance(sampler, FinishedSampler):
        return None
    coarse = random_videos(NetworkSampler(done.stack), SHOWN_SAMPLES, SCORED_SEED)
    return torch.nn.functional.interpolate(coarse, size=tuple(sampler.size), mode="trilinear", align_corners=True)


def _named_frames(
    real: RealClip, reconstruction: torch.Tensor, samples: torch.Tensor, plain: torch.Tensor | None
) -> dict[str, np.ndarray]:
    """What is kept as videos or images, by name: uint8 (T, H, W, 3) each."""
    named = {"real": torch.from_numpy(real.video), "reconstruction": reconstruction}
    named |= {f"sample_{i:02d}": x for i, x in enumerate(samples)}
    named |= {f"plain_{i:02d}": x for i, x in enumerate(() if plain is None else plain)}
    return {name: to_frames(each.numpy()) for name, each in named.items()}


def _pictures(
    real: RealClip,
    reconstruction: torch.Tensor,
    samples: torch.Tensor,
    nearest: tuple[Video, NearestNeighbourField] | None,
) -> dict[str, np.ndarray]:
    """By name: the sheet, where samples differ, where the patches of the first come from. uint8 (H, W, 3) each."""
    clip = np.asarray(real.video)
    some = [sample.numpy() for sample in samples[:SHOWN_SAMPLES]]
    if clip.shape[1] == 1:
        shown = {"real": real.video, "reconstruction": reconstruction}
        shown |= {f"sample {i}": sample for i, sample in enumerate(samples)}
        picture = contact_sheet({name: to_frames(np.asarray(each))[0] for name, each in shown.items()})
    else:
        picture = sheet(clip, reconstruction.numpy(), samples.numpy())
    pictures = {clip_folder.SHEET: picture, DIVERSITY_MAP: spread_sheet(some, clip, diversity_map(samples))}
    if nearest:
        pictures[NEAREST_MAP] = field_sheet(some[0], np.asarray(nearest[0]), nearest[1])
    return pictures


def _compared(real: RealClip, reconstruction: torch.Tensor, samples: torch.Tensor) -> np.ndarray:
    """One video of the clip, its reconstruction and the first samples, in a row: uint8 (T, H, W, 3)."""
    shown = {"real": np.asarray(real.video), "reconstruction": reconstruction.numpy()}
    shown |= {f"sample {i}": sample.numpy() for i, sample in enumerate(samples[:SHOWN_SAMPLES])}
    return side_by_side_video({label: to_frames(each) for label, each in shown.items()})


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

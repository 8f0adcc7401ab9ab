"""What a corpus job would do and what that would take: --dry-run. Nothing is written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from infra.errors import counted, printable
from jobs.experiment.corpus import Clip, Corpus, preview_corpus
from jobs.experiment.machine import check_share
from jobs.reports.duration import duration
from jobs.training.corpus_job import is_done, unused
from jobs.training.progress import reading
from jobs.training.request import TrainRequest
from model.config import TrainConfig
from model.device import best_device
from model.pyramid import ladder
from model.timing import checkpoint_bytes, needed_gflops, training_seconds

MEASURED = 2  # sizes of clips whose minutes are measured here; others count by their operations
SAMPLE_PIXEL_BYTES = 0.5  # of a video as mp4 and gif, a pixel


def preview(request: TrainRequest, console: Console) -> bool:
    """Make the checks that the job itself makes, and print the plan. Returns whether some files cannot be used.

    Raises UsageError, ConfigError, StorageError for what the job would refuse.
    """
    request.check()
    check_share(request.share)
    with tempfile.TemporaryDirectory() as nowhere:
        kinds, misfit = request.settings.kinds, request.settings.misfit
        with reading(console) as advance:
            done = _Done(request)
            corpus = preview_corpus(request.corpus, Path(nowhere), *kinds, done=done, advance=advance, misfit=misfit)
    for line in _plan(request, corpus, done):
        console.print(line, soft_wrap=True)
    return bool(corpus.failures)


class _Done:
    """Which clips have nothing left to do. The store is asked for each once."""

    def __init__(self, request: TrainRequest) -> None:
        self._request = request
        self._known: dict[str, bool] = {}

    def __call__(self, clip_ids: Sequence[str]) -> set[str]:
        if unknown := [clip_id for clip_id in clip_ids if clip_id not in self._known]:
            results = {} if self._request.fresh else self._request.experiment.results(unknown)
            samples = self._request.num_samples
            self._known |= {clip_id: is_done(results.get(clip_id), samples) for clip_id in unknown}
        return {clip_id for clip_id in clip_ids if self._known[clip_id]}


def _plan(request: TrainRequest, corpus: Corpus, which_done: _Done) -> Iterator[str]:
    settings, experiment, share = request.settings, request.experiment, request.share
    yield from unused(corpus)
    for _, reason in corpus.failures:
        yield f"not usable: {reason}"
    corpus.check(request.corpus)
    yield f"{counted(len(corpus.clips), 'clip')}, preset {request.preset}, into {printable(experiment.uri)}"
    done = which_done([clip.clip_id for clip in corpus.clips])
    waiting = [clip for clip in corpus.clips if clip.clip_id not in done]
    for clip in corpus.clips:
        yield from _clip_lines(clip, settings.of(clip.dims), "done" if clip.clip_id in done else "to train")
    for config in (settings.of(dims) for dims in sorted({clip.dims for clip in corpus.clips}, reverse=True)):
        yield from _config_lines(config)
    total = sum(sum(settings.of(clip.dims).iterations) for clip in waiting)
    yield f"iterations in all: at most {total}, for {counted(len(waiting), 'clip')}"
    cores = share.cores(os.cpu_count() or 1, len(waiting))
    yield f"resources a clip: {share.gpus_a_clip:g} GPU where the cluster has GPUs, else {counted(cores, 'CPU core')}"
    yield from cost_lines([(clip, settings.of(clip.dims)) for clip in waiting], request.num_samples, cores)


def _clip_lines(clip: Clip, config: TrainConfig, state: str) -> Iterator[str]:
    chunks = f"  {counted(clip.num_chunks, 'chunk')}" if clip.num_chunks > 1 else ""
    frames = ""
    if clip.dims == 3:
        frames = f"  {clip.num_frames * clip.num_chunks} frames from {clip.start_frame / clip.fps:.2f} s on"
    yield f"{clip.clip_id}  {clip.height}×{clip.width} px (H×W){chunks}{frames}  {state}"
    yield f"    ladder T×H×W: {' '.join(map(str, ladder(config, clip.height, clip.width)))}"
    measured = {"height": clip.height, "width": clip.width, "shorter": min(clip.height, clip.width)}
    if config.max_size > measured[config.ladder_side]:
        yield "    the source is smaller than the finest scale, which will be enlarged"


def _config_lines(config: TrainConfig) -> Iterator[str]:
    iterations = config.iterations
    if iterations:
        of = {2: "an image", 3: "a clip"}[config.dims]
        yield f"iterations {of}: {' + '.join(map(str, iterations))} = {sum(iterations)}"
    if config.made_of_patches:
        first = f"scale {config.trained_scales} on" if iterations else "noise on, without training (VGPNN)"
        yield f"made of the clip's patches: from {first}"


def cost_lines(models: Sequence[tuple[Clip, TrainConfig]], num_samples: int, cores: int) -> Iterator[str]:
    """Minutes on this machine, and room in the storage.

    Args:
        models: that are to be trained.
        num_samples: a model; cores: of a CPU.
    """
    if not models:
        return
    seconds, room = 0.0, 0.0
    # 10⁹ operations a second, by dims, and height and width
    speeds: dict[int, dict[tuple[int, int], float]] = {}
    for clip, config in models:
        sizes = ladder(config, clip.height, clip.width)
        if config.iterations:
            work = sum(n * needed_gflops(config, sizes, scale) for scale, n in enumerate(config.iterations))
            of_kind = speeds.setdefault(clip.dims, {})
            key = clip.height, clip.width
            if key not in of_kind and len(of_kind) < MEASURED:
                of_kind[key] = work / training_seconds(config, sizes, cores)
            speed = of_kind.get(key) or next(iter(of_kind.values()))
            seconds += work / speed * clip.num_chunks
        voxels = sizes[-1].frames * sizes[-1].height * sizes[-1].width
        room += 2 * checkpoint_bytes(config) + (num_samples + 6) * voxels * SAMPLE_PIXEL_BYTES
    device = best_device()
    at_once = max(1, (os.cpu_count() or 1) // cores) if device.type == "cpu" else 1
    where = "this machine's GPU, one at a time" if device.type == "cuda" else f"this machine's CPU, {at_once} at a time"
    each = seconds / len(models)
    yield (
        f"time: about {duration(each)} of training a clip, {duration(seconds / at_once)} in all, on {where}; "
        "samples and scores come on top"
    )
    yield f"disk: about {room / 1e6:.0f} MB for checkpoints and samples"

"""What was asked of a corpus job, checked. Other commands build a request directly."""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

from infra.errors import UsageError, one_line
from infra.ray_cluster import ClipShare
from infra.remote import fetch
from jobs.command_line import Length, check_samples, decode_tasks_of, rival_of, share_of, with_method
from jobs.experiment.experiment import Experiment, clip_folders
from jobs.experiment.names import experiment_name
from jobs.experiment.settings import ModelSettings
from model.config import ConfigError, TrainConfig
from model.presets import OTHER_KIND, PRESETS, ablated


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """One submission of a corpus.

    Attributes:
        corpus: as --corpus names it.
        preset: the name of the configuration, for tags and tables.
        tracking_uri: None: the environment's, else the default.
        num_samples: a clip, that are scored and kept; at least 2.
        workers: how many processes train a long video together.
        share: what a clip may take of the cluster.
        fresh: whether earlier work on the corpus's clips is forgotten.
        decode_tasks: how many Ray tasks decode at once; None: as many as the cluster has cores; 0: the driver does.
    """

    corpus: str
    settings: ModelSettings
    preset: str
    experiment: Experiment
    tracking_uri: str | None = None
    num_samples: int = 10
    workers: int = 1
    share: ClipShare = field(default_factory=ClipShare)
    fresh: bool = False
    decode_tasks: int | None = None

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> TrainRequest:
        """Raises UsageError and ConfigError for what cannot work."""
        preset = Path(args.config).stem if args.config else args.preset
        settings = _with_chunks(_settings(args), args)
        if args.as_is:
            settings = settings.with_changes(fps=None)
        check_samples(args.n)
        name = args.experiment or "-".join(
            filter(None, [experiment_name(args.corpus, preset), rival_of(args), args.ablation])
        )
        return cls(
            corpus=args.corpus,
            settings=settings,
            preset=preset,
            experiment=Experiment.open(args.storage, name),
            tracking_uri=args.tracking_uri,
            num_samples=args.n,
            workers=args.workers_per_video,
            share=share_of(args),
            fresh=args.fresh,
            decode_tasks=decode_tasks_of(args),
        )

    def check(self) -> None:
        """Raises UsageError for what would end the job before it reads the corpus. Changes nothing."""
        from jobs.experiment.machine import check_machine  # imports MLflow

        check_machine(self.experiment, self.tracking_uri)
        if not self.fresh:
            self.experiment.check_definition(self.settings, clip_folders(self.experiment.names()), ())


def _settings(args: argparse.Namespace) -> ModelSettings:
    """Of the preset or the file, with everything that changes them. Raises UsageError, ConfigError."""

    def changed(config: TrainConfig) -> TrainConfig:
        config = with_method(config, args).with_overrides(args.set)
        return ablated(config, args.ablation) if args.ablation else config

    if args.config:
        given = _read_config(args.config)
        main, other = changed(given.main), given.other
    else:
        main, other = changed(PRESETS[args.preset]()), PRESETS[OTHER_KIND[args.preset]]()
    if other:
        try:
            other = changed(other)
        except ConfigError as error:  # a setting that clips of the other kind have not, or have otherwise
            return ModelSettings(main, misfit=str(error))
    return ModelSettings(main, other)


def _read_config(path: str) -> ModelSettings:
    """Raises UsageError."""
    try:
        with tempfile.TemporaryDirectory() as cache:
            content = Path(fetch(path, Path(cache))).read_bytes()
        return ModelSettings.from_dict(json.loads(content))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        mend = "give a file such as an experiment.json"
        raise UsageError(f"--config {path}: cannot be read ({one_line(error)}); {mend}") from error


def _with_chunks(settings: ModelSettings, args: argparse.Namespace) -> ModelSettings:
    """The settings with the stride between the chunks of a video, if there are to be any. Raises UsageError."""
    if args.workers_per_video < 1:
        raise UsageError("--workers-per-video must be 1 or more")
    if args.long:
        videos = next((config for config in settings.kinds if config.dims == 3), None)
        if videos is None:
            raise UsageError("--long: an image has no length; leave it out, or give a preset of videos")
        settings = ModelSettings(replace(videos, stride=_stride(videos, args)))
    elif args.stride is not None or (args.workers_per_video > 1 and settings.stride is None):
        raise UsageError("--workers-per-video and --stride are for long videos; add --long")
    if args.workers_per_video > 1 and args.gpus_per_clip is not None and args.gpus_per_clip < 1:
        raise UsageError(f"--gpus-per-clip {args.gpus_per_clip:g}: each of several workers needs a whole GPU; give 1")
    return settings


def _stride(videos: TrainConfig, args: argparse.Namespace) -> int:
    """Frames from one chunk's start to the next. Raises UsageError."""
    length: Length | None = args.stride
    if length is None:
        return videos.stride or videos.num_frames
    if length.in_seconds and (args.as_is or videos.fps is None):
        raise UsageError("--stride: pictures as they are have no rate; give it in frames")
    stride = length.frames(videos.fps or 0)
    if stride < 1:
        raise UsageError(f"--stride: {stride} frames; 1 is the least")
    return stride

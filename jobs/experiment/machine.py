"""Whether a job can run here at all, asked before it reads a video."""

from __future__ import annotations

import os

from infra.errors import UsageError
from infra.ray_address import cluster_address
from infra.ray_cluster import ClipShare
from jobs.experiment.experiment import Experiment
from jobs.experiment.runs import check_tracking
from model.device import best_device
from pipeline.video import VideoError, ffmpeg_exe


def check_machine(experiment: Experiment, tracking: str | None) -> None:
    """Raises UsageError for a storage, an MLflow or an ffmpeg that cannot be used. Makes nothing.

    Args: tracking: --tracking-uri.
    """
    experiment.check_writable()
    check_tracking(experiment, tracking)
    try:
        ffmpeg_exe()
    except VideoError as error:
        raise UsageError(str(error)) from error


def check_share(share: ClipShare) -> None:
    """Raises UsageError for a GPU or more cores than this machine has, where the job would start Ray here."""
    if best_device().type != "cpu" or cluster_address() is not None:
        return
    share.check_without_gpu()
    if share.cpus and share.cpus > (os.cpu_count() or 1):
        raise UsageError(f"--cpus-per-clip {share.cpus}: at most {os.cpu_count()}, which this machine has")

"""Whether a job can run here at all, asked before it reads a video."""

from __future__ import annotations

from infra.errors import UsageError
from jobs.experiment.experiment import Experiment
from jobs.experiment.runs import tracking_uri
from pipeline.video import VideoError, ffmpeg_exe


def check_machine(experiment: Experiment, tracking: str | None) -> None:
    """Raises UsageError for a storage, a tracking URI or an ffmpeg that cannot work. Changes nothing.

    Args: tracking: --tracking-uri. Whether a server answers there is found out when its run is opened.
    """
    experiment.check_writable()
    tracking_uri(experiment, tracking)
    try:
        ffmpeg_exe()
    except VideoError as error:
        raise UsageError(str(error)) from error

"""What a clip's run was given: its frames as a dataset of MLflow's, and the load of its host."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric
from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

HOST_S = 10.0  # seconds between two points of the host's load
DIGEST = 32  # hexadecimal digits of the SHA-256; MLflow takes 36
NAME = 200  # characters of a dataset's name, of 500


def dataset_of(about: Mapping[str, Any]) -> DatasetInput:
    """The frames that a clip is trained on: its digest begins their SHA-256, which the profile holds whole.

    Args: about: the clip's config.json, with `frames_sha256`.
    """
    frames, height, width = about["clip_size_thw"]
    profile = {"chunks": about.get("chunks", 1), "frames": frames, "height": height, "width": width}
    profile |= {"frames_sha256": about["frames_sha256"]}
    dataset = Dataset(
        name=Path(about["source"]).name[:NAME] or about["clip_id"],
        digest=about["frames_sha256"][:DIGEST],
        source_type="local" if "://" not in about["source"] else about["source"].partition("://")[0],
        source=json.dumps({"uri": about["source"]}),
        profile=json.dumps(profile),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


class HostMetrics:
    """What MLflow's own monitors measure of this host: the load of CPU and memory and, where nvidia-ml-py is installed,
    of each GPU. A server that is away loses some of these points, and no others."""

    def __init__(self) -> None:
        self._monitors: list[BaseMetricsMonitor] = [CPUMonitor()]
        with contextlib.suppress(ImportError, RuntimeError):  # no nvidia-ml-py, or no GPU
            self._monitors.append(GPUMonitor())
        self._measured = 0.0

    def points(self) -> list[Metric]:
        """Those of now; none where the last ones are HOST_S young."""
        if time.monotonic() - self._measured < HOST_S:
            return []
        self._measured, found = time.monotonic(), []
        now = time.time_ns() // 1_000_000
        for monitor in self._monitors:
            monitor.collect_metrics()
            values = monitor.aggregate_metrics()
            monitor.clear_metrics()
            # Steps go on where another process ended.
            found += [Metric(f"system/{name}", value, now, now // int(1000 * HOST_S)) for name, value in values.items()]
        return found

"""What a clip takes of a cluster, and how many run at once."""

from __future__ import annotations

import pytest

from infra.errors import UsageError
from infra.ray_cluster import ClipShare

GPU_NODE = {"GPU": 1, "CPU": 8}


def cluster(monkeypatch: pytest.MonkeyPatch, *nodes: dict[str, float]) -> None:
    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True, "Resources": node} for node in nodes])


@pytest.mark.parametrize(
    ("share", "nodes", "count"),
    [
        (1.0, [GPU_NODE] * 3, 3),
        (0.5, [GPU_NODE], 2),
        (0.2, [GPU_NODE] * 2, 10),  # 1 // 0.2 is 4
        (0.1, [{"GPU": 1, "CPU": 64}], 10),
        (0.05, [{"GPU": 1, "CPU": 64}], 20),
        (0.3, [GPU_NODE], 3),
        (2.0, [{"GPU": 5, "CPU": 8}, GPU_NODE], 2),
        (0.1, [GPU_NODE], 8),  # a core a clip
        (1.0, [GPU_NODE, {"CPU": 4}], 1),
    ],
)
def test_clips_on_gpus(
    share: float, nodes: list[dict[str, float]], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster(monkeypatch, *nodes)
    slots = ClipShare(gpus=share).slots(100)
    assert (slots.count, slots.resources) == (count, {"num_gpus": share, "num_cpus": 1})


@pytest.mark.parametrize(
    ("clips", "nodes", "cores", "count"),
    [
        (1, [8], 8, 1),
        (2, [8], 4, 2),
        (8, [8] * 4, 4, 8),  # all cores of the cluster, not of one node, are divided
        (2, [8] * 4, 8, 4),
        (100, [8] * 4, 1, 32),
        (3, [2, 8], 3, 2),
    ],
)
def test_clips_on_cores(clips: int, nodes: list[int], cores: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster(monkeypatch, *({"CPU": cpus} for cpus in nodes))
    slots = ClipShare().slots(clips)
    assert (slots.count, slots.resources) == (count, {"num_cpus": cores})


@pytest.mark.parametrize(
    ("share", "nodes", "told"),
    [
        (ClipShare(), [{"GPU": 1}], "no node that has GPUs has a core; start these nodes with --num-cpus 1 or more"),
        (ClipShare(gpus=2), [GPU_NODE], "--gpus-per-clip 2: above 0, at most 1, the most a node has"),
        (ClipShare(gpus=1), [{"CPU": 4}], "--gpus-per-clip 1: there is no GPU"),
        (ClipShare(cpus=9), [{"CPU": 8}], "--cpus-per-clip 9: at least 1, at most 8, the most a node has"),
        (ClipShare(), [{"CPU": 0}], "no GPU and no core for a clip"),
    ],
)
def test_what_no_node_has_is_one_line(
    share: ClipShare, nodes: list[dict[str, float]], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster(monkeypatch, *nodes)
    with pytest.raises(UsageError) as refused:
        share.slots(4)
    assert told in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, float("nan"), float("inf")])
def test_a_share_that_no_cluster_has_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match=rf"^--gpus-per-clip {share:g}: above 0, and whole above 1$"):
        ClipShare(gpus=share).check()

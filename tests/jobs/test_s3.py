"""A corpus in an object store: a real S3 endpoint (moto's server) on loopback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infra.s3 import s3_server

from .conftest import TINY, make_video, run_job

pytestmark = pytest.mark.slow


@pytest.fixture
def bucket() -> Iterator[str]:
    import s3fs

    with s3_server() as address:
        s3fs.S3FileSystem(endpoint_url=address).mkdir("clips")
        yield "s3://clips"


def test_a_corpus_in_s3_is_trained_and_a_dry_run_of_it_leaves_nothing(bucket: str, tmp_path: Path) -> None:
    import s3fs

    store = s3fs.S3FileSystem(endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    store.put(str(make_video(tmp_path / "one.mp4", size="48x48")), "clips/set/one.mp4")
    store.put(str(make_video(tmp_path / "two.mp4", source="mandelbrot", size="48x48")), "clips/set/deeper/two.mp4")
    command = ("--corpus", f"{bucket}/set", *TINY, "--storage", tmp_path / "runs", "--experiment", "s3")

    plan = run_job("train_corpus.py", *command, "--dry-run")
    assert plan.returncode == 0 and "2 clips" in plan.stdout, plan.stdout
    assert not (tmp_path / "runs").exists()

    done = run_job("train_corpus.py", *command)
    assert done.returncode == 0, done.stdout
    assert len(list((tmp_path / "runs" / "s3").glob("*/result.json"))) == 2

    missing = run_job("train_corpus.py", "--corpus", f"{bucket}/nothing", *TINY, "--storage", tmp_path / "runs")
    assert missing.returncode == 2 and f"{bucket}/nothing" in missing.stdout and "Traceback" not in missing.stdout

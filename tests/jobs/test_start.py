"""Starting a job costs little: `--help` must not import what only work needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from .conftest import ROOT

HEAVY = {"torch", "ray", "mlflow", "accelerate", "webdataset", "ffmpeg", "imageio_ffmpeg", "skimage", "scipy"}


@pytest.mark.parametrize("job", ["train_corpus", "make_shards", "sample", "gallery", "study", "watch"])
def test_help_imports_nothing_heavy(job: str) -> None:
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from jobs import {job}
try:
    {job}.main(["--help"])
except SystemExit as end:
    assert end.code == 0
print("LOADED", *sorted({{name.split(".")[0] for name in sys.modules}}))
"""
    done = subprocess.run([sys.executable, "-c", script], text=True, capture_output=True, check=True)
    loaded = done.stdout.splitlines()[-1].split()
    assert loaded[0] == "LOADED"
    assert not HEAVY & set(loaded)
    assert "usage:" in done.stdout

"""Starting a job costs little: `--help` must not import what only work needs."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import pytest

from .conftest import ROOT

HEAVY = {"torch", "ray", "mlflow", "accelerate", "webdataset", "ffmpeg", "imageio_ffmpeg", "skimage", "scipy"}


@pytest.mark.parametrize("job", ["train_corpus", "make_shards", "sample"])
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


@pytest.mark.parametrize("job", sorted(path.stem for path in (ROOT / "jobs").glob("*.py") if path.stem != "__init__"))
def test_help_says_one_default_of_an_option_and_never_that_there_is_none(
    job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"jobs.{job}")
    if not hasattr(module, "main"):  # what commands share
        return
    with pytest.raises(SystemExit) as end:
        module.main(["--help"])
    assert end.value.code == 0
    options = re.split(r"\n  (?=-|[A-Z{])", capsys.readouterr().out)
    assert len(options) > 1
    for option in map(" ".join, map(str.split, options)):
        assert option.count("(default") <= 1 and "default: None" not in option and "default: False" not in option

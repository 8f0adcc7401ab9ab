"""jobs/export.py: what it writes makes the samples of sample.py where this repository is not."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import venv
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pandas
import pytest
import torch
from mlflow import MlflowClient
from mlflow.models import Model

from jobs import export, sample
from jobs.sampling import run as sampling
from model import checkpoint
from model.checkpoint import Checkpoint
from model.config import TrainConfig
from model.export import served
from model.networks.stacks import new_stack
from model.presets import demo, image_demo, of_method
from model.pyramid import ladder
from tests import closure
from tests.model.test_official import ARGS, Reference, write
from tests.pages import parts_of

from .conftest import make_video

SEED, INDEX, PARITY = 5, 3, 1e-4
HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))


def small(config: TrainConfig, **changes: object) -> TrainConfig:
    settings = {
        "num_scales": 2,
        "min_size": 12,
        "max_size": 18,
        "channels": 4,
        "iters_per_scale": 1,
        "patch_scale": None,
    }
    return replace(config, **{**settings, **changes})  # type: ignore[arg-type]


MODELS = {
    "video": small(demo()),
    "consingan": small(of_method(demo(), "consingan")),
    "image": small(image_demo(), latent="patchvae", latent_dim=5),
    "singan": small(of_method(image_demo(), "singan"), enlarging="cubic", leak=0.05),
    # so large that the patches of its second scale are not all compared
    "patches": small(demo(), patch_scale=1, patch_passes=1, patch_coarse_passes=1, max_size=40),
}

COPY = 0.9  # of it the first layout of sample INDEX of "patches" is the clip, and the second is not


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained models, as checkpoints, and a folder of the authors' code."""
    folder = tmp_path_factory.mktemp("export")
    torch.manual_seed(1)
    for name, config in MODELS.items():
        sizes = ladder(config, 48, 64)
        stack = new_stack(config, sizes)
        while stack.num_scales < config.trained_scales:
            stack.grow()
        trained = Checkpoint(
            config=config,
            sizes=tuple((size.frames, size.height, size.width) for size in sizes),
            clip_id=name,
            samples=1,
            scale=stack.num_scales - 1,
            iteration=1,
            train_s=0.0,
            noise_amps=tuple(0.3 * n for n in range(stack.num_scales)),
            generators=dict(stack.state_dict()),
            critic=None,
            optimizers=(),
        )
        checkpoint.save(trained, folder / f"{name}.pt")
    (folder / "theirs").mkdir()
    args = ARGS | {"img_size": 40, "stop_scale": 1, "stop_scale_time": 1, "vae_levels": 1}
    write(folder / "theirs", Reference(width=4, latent=4, scales=2).state_dict(), amps=[1, 0.3], args=args)
    make_video(folder / "clip.mp4")
    return folder


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[object]:
    """A function: arguments of sample.py → what it writes, float32 (1, 3, T, H, W), and as the frames of that."""
    parts: list[tuple[torch.Tensor, np.ndarray]] = []
    frames = sampling._frames

    def recorded(part: torch.Tensor) -> np.ndarray:
        parts.append((part.clone(), frames(part)))
        return parts[-1][1]

    def run(*arguments: object) -> tuple[np.ndarray, np.ndarray]:
        parts.clear()
        words = [*map(str, arguments), "--seed", str(SEED), "--only", str(INDEX), "--out", str(tmp_path / "samples")]
        assert sample.main(words) == 0
        ((video, uint8),) = parts
        return video.numpy(), uint8

    monkeypatch.setattr(sampling, "_frames", recorded)
    yield run


def without_source(folder: Path, script: str, requirements: Iterable[str]) -> str:
    """Run a script in a new environment with what these requirements bring, and nothing of this repository."""
    venv.create(folder / "venv", with_pip=False)
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    closure.link(requirements, site)
    script = f"import importlib.util\nassert importlib.util.find_spec('model') is None, 'the source is here'\n{script}"
    (folder / "script.py").write_text(script)
    command = [str(folder / "venv" / "bin" / "python"), "-I", str(folder / "script.py")]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # as here: others round otherwise
    done = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return done.stdout


def page_blocks() -> tuple[str, str, str, str]:
    """The Python of the page's part on exports: MLflow's, a program's, of one with patches what differs, ONNX's."""
    mlflow, program, patches, onnx = (block.text for block in parts_of("jobs/README.md")[1] if block.is_python)
    assert "mlflow.pyfunc" in mlflow and "torch.export.load" in program and "onnxruntime" in onnx
    networks = "drawn = z, *noise"
    assert program.count(networks) == 1 and program.partition(networks)[2].count("\n") == 3  # the last three lines
    return mlflow, program, program.partition(networks)[0] + patches, onnx


def exported(*arguments: object) -> None:
    assert export.main([*map(str, arguments)]) == 0


@pytest.mark.slow
def test_files_make_the_samples_of_sample_py_without_the_source(
    made: Path,
    sampled: object,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the very lines of the page. Networks of all methods, of videos and of images, and the authors' files; and with
    the clip's patches, of a layout that is drawn again."""
    _, program, patches, onnx = page_blocks()
    monkeypatch.setattr("model.sampling.sampler.COPY", COPY)
    lines = [f"import numpy\nseeds = 'seed={SEED}, index={INDEX}'\nmade = {{}}"]
    want: dict[str, np.ndarray] = {}
    exported(made / "theirs", "--to", "checkpoint", "--out", tmp_path / "theirs.pt")
    shutil.copy(tmp_path / "theirs.pt", made / "theirs.pt")
    capsys.readouterr()
    real = ("--real", made / "clip.mp4")
    exported(made / "patches.pt", *real, "--to", "torch", "--out", tmp_path / "patches.pt2")
    assert "sample.py's but for 0e+00" in capsys.readouterr().out
    block = patches.replace("bikes", "patches").replace("seed=0, index=3", f"seed={SEED}, index={INDEX}")
    lines.append(f"{block}\nmade['patches'] = video.numpy()\nassert attempt == 1, attempt")
    want["patches"], _ = sampled(made / "patches.pt", *real, "--precision", "float32")  # type: ignore[operator]
    for name in ("video", "consingan", "image", "singan", "theirs"):
        exported(made / f"{name}.pt", "--to", "torch", "--out", tmp_path / f"{name}.pt2")
        about = json.loads((tmp_path / f"{name}.pt2.json").read_text())
        assert about["difference"]["most"] <= PARITY and about["note"] == "" and about["model"] == name
        block = program.replace("bikes", name).replace("seed=0, index=3", f"seed={SEED}, index={INDEX}")
        lines.append(f"{block}\nmade['{name}'] = video.detach().numpy()\nmade['{name} uint8'] = frames.numpy()")
        lines.append("two = program(torch.cat([z, z]), [torch.cat([n, n]) for n in noise])\nassert len(two) == 2")
        want[name], want[f"{name} uint8"] = sampled(made / f"{name}.pt", "--precision", "float32")  # type: ignore[operator]
    assert "but for" in capsys.readouterr().out
    theirs, _ = sampled(made / "theirs")  # type: ignore[operator]
    assert (theirs == want["theirs"]).all()
    if HAS_ONNX:
        exported(made / "theirs", "--to", "onnx", "--out", tmp_path / "theirs.onnx")
        assert "ONNX, opset 18, of " in capsys.readouterr().out
        assert json.loads((tmp_path / "theirs.onnx.json").read_text())["opset"] == 18
        lines.append(f"{onnx.replace('bikes', 'theirs')}\nmade['onnx'] = video")
        want["onnx"] = want["theirs"]
    lines.append("numpy.savez('made.npz', **made)")
    without_source(tmp_path, "\n".join(lines), ["torch", "numpy", *(["onnxruntime"] if HAS_ONNX else [])])
    got = np.load(tmp_path / "made.npz")
    assert set(got) == set(want)
    for name, video in want.items():
        if name.endswith("uint8"):
            assert (np.abs(got[name].astype(int) - video) <= 1).all() and (got[name] == video).mean() > 0.99, name
        else:
            assert video.std() > 0.1 and np.abs(got[name] - video).max() <= PARITY, name


@pytest.mark.slow
def test_registered_models_make_the_frames_of_sample_py_without_the_source(
    made: Path, sampled: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the clip's patches, for which the clip travels too; and an image. A second export is a second version."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    real = ("--real", made / "clip.mp4")
    there = ("--to", "mlflow", "--tracking-uri", uri)
    exported(made / "patches.pt", *there, *real, "--name", "patches of mine")
    exported(made / "singan.pt", *there)
    exported(made / "singan.pt", *there, "--precision", "float32")
    assert "models:/singan/2: registered in sqlite" in capsys.readouterr().out

    client = MlflowClient(uri, registry_uri=uri)
    version = client.get_model_version("patches of mine", "1")
    assert version.tags["clip_id"] == "patches" and "The clip's frames are in it" in version.description
    logged = Path(unquote(urlsplit(client.get_model_version_download_uri("patches of mine", "1")).path))
    meta = Model.load(str(logged))
    assert [spec.name for spec in meta.signature.inputs] == ["seed", "n", "size"]
    assert meta.saved_input_example_info is not None
    assert [model.model_id for model in client.search_logged_models(["1"])].count(meta.model_id) == 1

    block = re.sub('sqlite:.*?(?=")', uri, page_blocks()[0])
    script = textwrap.dedent("""
        import sys, types
        import numpy
        sys.modules["model"] = types.ModuleType("model")  # of another program
        made = {}
        for name, number in (("patches of mine", 1), ("singan", 1), ("singan", 2)):
            exec(BLOCK.replace("bikes-1b0f76-000000/1", f"{name}/{number}").replace('{"seed": 0, "n": 2}', ASKED))
            made[f"{name} {number}"] = videos
        singan = mlflow.pyfunc.load_model("models:/singan/1")
        made["wide"] = singan.predict({"seed": 1, "size": "18x40"})
        assert (singan.predict({}) == singan.predict({"seed": 0, "n": 1})).all()
        for wrong in ({"seed": -1}, {"n": 0}, {"size": "large"}, {"size": "9000x900000"}):
            try:
                singan.predict(wrong)
            except Exception as error:
                print(str(error).splitlines()[0])
        assert not [name for name in sys.modules if name.split(".")[0] in ("infra", "jobs", "ray")]
        numpy.savez("made.npz", **made)
    """)
    asked = json.dumps({"seed": SEED, "n": INDEX + 1})
    script = f"BLOCK, ASKED = {block!r}, {asked!r}\n{script}"
    printed = without_source(tmp_path, script, (logged / "requirements.txt").read_text().splitlines()).splitlines()
    got = np.load(tmp_path / "made.npz")
    asked_of = {
        "patches of mine 1": (made / "patches.pt", *real),
        "singan 1": (made / "singan.pt",),
        "singan 2": (made / "singan.pt", "--precision", "float32"),
    }
    for name, arguments in asked_of.items():
        _, frames = sampled(*arguments)  # type: ignore[operator]
        want = frames[0] if name.startswith("singan") else frames
        assert got[name].shape == (INDEX + 1, *want.shape) and got[name].dtype == np.uint8
        assert want.std() > 10 and (got[name][INDEX] == want).all(), name
    assert got["wide"].shape == (1, 18, 40, 3)
    assert len(printed) == 4 and "seed=-1: from 0" in printed[0] and "size=large: write" in printed[2]


@pytest.mark.parametrize("nothing", [{}, [{}], pandas.DataFrame(), pandas.DataFrame({"seed": []})], ids=repr)
def test_a_request_of_nothing_is_the_first_sample_of_seed_0(made: Path, tmp_path: Path, nothing: object) -> None:
    """As it is, and as MLflow hands {} on."""
    shutil.copy(made / "singan.pt", tmp_path / served.CHECKPOINT)
    (tmp_path / served.ABOUT).write_text(json.dumps({"latent_frames": None}))
    model = served._load_pyfunc(str(tmp_path))
    assert (model.predict(nothing) == model.predict({"seed": 0, "n": 1})).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("nothing.pt", "--to", "torch", "--out", "a.pt2"),
            "nothing.pt: no such file; give the checkpoint.pt of a clip\n",
        ),
        (
            ("clip.mp4", "--to", "torch", "--out", "a.pt2"),
            "clip.mp4: not a readable checkpoint; give the checkpoint.pt of a clip\n",
        ),
        (("video.pt", "--to", "torch"), "--to torch: needs --out FILE.pt2"),
        (("video.pt", "--to", "torch", "--out", "video.onnx"), "--to torch writes .pt2; give video.pt2"),
        (("video.pt", "--to", "checkpoint", "--out", "theirs.pt"), "theirs.pt: is there already"),
        (("video.pt", "--to", "checkpoint", "--out", "a.pt"), "video.pt is one already"),
        (("video.pt", "--to", "torch", "--out", "a.pt2", "--name", "a"), "--name: is an option of --to mlflow"),
        (("video.pt", "--to", "torch", "--out", "a.pt2", "--size", "9x9"), "--size 9x9: write frames"),
        (
            ("video.pt", "--to", "torch", "--out", "a.pt2", "--size", "13x9999999x9999999"),
            "--size 13x9999999x9999999: more than 67,108,864 pixels a frame; make it smaller",
        ),
        (
            ("video.pt", "--to", "torch", "--out", "a.pt2", "--size", "0x10x10"),
            "--size: 0x10x10: smaller than what the networks see",
        ),
        (
            ("video.pt", "--to", "torch", "--out", "a.pt2", "--size", "999997x3000x3000"),
            "--size: a video of 999997×3000×3000 needs ",
        ),
        (
            ("video.pt", "--to", "torch", "--out", "a.pt2", "--size", "14x40x40"),
            "--size: 14x40x40: 14 frames cannot be divided",
        ),
        (("video.pt", "--to", "mlflow", "--out", "a"), "--out: a model for MLflow goes to its registry"),
        (("video.pt", "--to", "mlflow", "--name", "a/b"), "--name a/b: 1 to 200 characters"),
        (
            ("video.pt", "--to", "mlflow", "--tracking-uri", "http://127.0.0.1:1"),
            "http://127.0.0.1:1: MLflow cannot use",
        ),
        (("video.pt", "--to", "mlflow", "--tracking-uri", "file:/x"), "--tracking-uri file:/x: is a folder"),
        (("patches.pt", "--to", "mlflow", "--tracking-uri", "sqlite:///a.db"), "the clip patches is needed"),
        (("patches.pt", "--to", "torch", "--out", "a.pt2"), "the clip patches is needed"),
        (
            ("patches.pt", "--real", "clip.mp4", "--to", "torch", "--out", "a.pt2", "--size", "13x540x720"),
            "a video of 13×540×720 is too large: a program of patches makes at most 2,097,152 pixels in all its frames",
        ),
        (
            ("video.pt", "--to", "torch", "--out", "a.pt2", "--real", "clip.mp4"),
            "--real: a model of networks alone needs no clip",
        ),
        (("theirs", "--to", "checkpoint", "--out", "a.pt", "--real", "clip.mp4"), "--real: a checkpoint holds no clip"),
    ],
)
def test_what_cannot_be_is_one_line(
    made: Path,
    arguments: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(made)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (made / "theirs.pt").touch()
    before = {*made.iterdir()} | {made / name for name in ("a.db", "a.db.lock")}
    assert export.main([*arguments]) == 2
    line = capsys.readouterr().out
    assert line.startswith("error: ") and said in line and line.count("\n") == 1
    assert {*made.iterdir()} <= before


def test_a_missing_package_of_onnx_is_one_line(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert export.main([str(made / "video.pt"), "--to", "onnx", "--out", str(made / "a.onnx")]) == 2
    assert "needs onnx and onnxscript; pip install 'hp-vae-gan[export]'" in capsys.readouterr().out


@pytest.mark.skipif(not HAS_ONNX, reason="needs onnxruntime")
def test_onnx_of_a_model_with_patches_says_that_it_may_choose_others(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exported(made / "patches.pt", "--real", made / "clip.mp4", "--to", "onnx", "--out", tmp_path / "patches.onnx")
    said, note = capsys.readouterr().out.splitlines()
    assert (
        "ONNX, opset 18, of patches, videos of 13×40×53 (T×H×W); the layout of sample 0 of seed 0 is sample.py's"
        in said
    )
    assert re.search(r"of its pixels [0-9.]+% are more than 1e-04 apart, \de-\d\d on average$", said)
    about = json.loads((tmp_path / "patches.onnx.json").read_text())
    assert note == f"note: {about['note']}" and "other ones" in note
    assert about["outputs"] == ["video", "is_the_clip", "layout"] and about["video"]["shape"] == [1, 3, 13, 40, 53]
    assert about["difference"]["layout"] <= PARITY and about["difference"]["mean"] < 0.1

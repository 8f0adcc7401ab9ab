"""What a corpus leaves in MLflow, read back with MLflow's own client."""

from __future__ import annotations

import hashlib
import json
import re
import socket
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.protos.databricks_pb2 import ENDPOINT_NOT_FOUND
from PIL import Image

from infra.store import Store
from infra.tracking import descriptions
from infra.tracking import forward as forwarding
from infra.tracking import runs as tracking
from infra.tracking.uri import default_uri
from jobs import upload
from jobs.experiment.experiment import Experiment, Submission
from jobs.experiment.result import Result, write_result
from jobs.experiment.runs import NO_ANSWER, forward_missing
from jobs.experiment.settings import ModelSettings
from model.config import RUN_SETTINGS
from model.presets import demo
from pipeline import video

from .conftest import Trained


@pytest.fixture(scope="module")
def client(trained: Trained) -> MlflowClient:
    return MlflowClient(f"sqlite:///{trained.storage / 'mlflow.db'}")


@pytest.fixture(scope="module")
def runs(client: MlflowClient) -> dict[str, Run]:
    experiment = client.get_experiment_by_name("mixed")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], "tags.role != 'file'")
    return {run.data.tags.get("clip_id", "corpus").split("-")[0]: run for run in found}


def test_one_parent_run_and_a_child_a_clip(trained: Trained, runs: dict[str, Run]) -> None:
    assert set(runs) == {"corpus", *trained.clips}
    parent = runs["corpus"].info.run_id
    for name, folder in trained.clips.items():
        assert runs[name].data.tags["mlflow.parentRunId"] == parent
        assert runs[name].data.tags["clip_id"] == folder.name
        assert runs[name].info.status == "FINISHED"
    assert runs["corpus"].info.status == "FINISHED"  # some files of the corpus were bad: they have runs of their own
    assert runs["corpus"].data.metrics["clips_done"] == 2
    assert runs["corpus"].data.metrics["clips_failed"] == 7


def test_params_metrics_and_tags(trained: Trained, runs: dict[str, Run]) -> None:
    run = runs["good"]
    metrics = json.loads((trained.clips["good"] / "metrics.json").read_text())
    assert run.data.params["iters_per_scale"] == "4"
    assert run.data.tags["precision_used"] in ("bf16", "float32")
    for name in ("svfid_lite0", "svfid_lite0_blur", "diversity_n2", "nn_distance"):
        assert run.data.metrics[f"score/{name}"] == metrics[name]
    assert run.data.tags["source"] == str(Path(trained.command[1]) / "good.mp4")
    listed = [*runs["corpus"].data.metrics]  # in the order in which MLflow's page has them
    scores = [name for name in listed if name.startswith("score/")]
    assert "score/svfid_lite0_mean" in scores and listed[: len(scores)] == scores


def test_every_point_of_the_log_is_there_once(trained: Trained, client: MlflowClient, runs: dict[str, Run]) -> None:
    for line in (trained.clips["good"] / "metrics.jsonl").read_text().splitlines():
        point = json.loads(line)
        after = point["iteration"] is None  # of TINY's scales each has four iterations
        prefix, step = (
            ("train/after_scale", point["scale"]) if after else ("train", 4 * point["scale"] + point["iteration"])
        )
        for name, value in point["metrics"].items():
            history = client.get_metric_history(runs["good"].info.run_id, f"{prefix}/{name}")
            (stored,) = [metric for metric in history if metric.step == step]
            assert stored.value == value and stored.timestamp == point["time_ms"]


def test_artifacts(client: MlflowClient, runs: dict[str, Run]) -> None:
    run_id = runs["good"].info.run_id
    top = {item.path for item in client.list_artifacts(run_id)}
    assert {"config.json", "metrics.json", "samples", "images"} <= top
    samples = {Path(item.path).suffix for item in client.list_artifacts(run_id, "samples")}
    assert samples == {".mp4", ".gif", ".png"}
    pictures = [item.path for item in client.list_artifacts(run_id, "images") if item.path.endswith(".png")]
    assert sorted(int(path.split("+step+")[1].split("+")[0]) for path in pictures) == [0, 1, 2, 3]
    assert {item.path for item in client.list_artifacts(runs["corpus"].info.run_id)} == {
        "results.txt",
        "corpus.png",
        "gallery.html",
    }


def test_the_run_of_a_clip_has_a_name_a_description_its_frames_and_its_model(
    trained: Trained, client: MlflowClient, runs: dict[str, Run]
) -> None:
    run, folder = runs["good"], trained.clips["good"]
    assert run.info.run_name == "good"
    tags = {name: run.data.tags[name] for name in ("status", "method", "dims", "preset")}
    assert tags == {"status": "done", "method": "hpvaegan", "dims": "3", "preset": "demo"}
    note = run.data.tags["mlflow.note.content"]
    assert "13 frames of 48×64 px (H×W)" in note and "svfid_lite0" in note
    assert f"(get-artifact?path=samples/sheet.png&run_uuid={run.info.run_id})" in note

    (given,) = run.inputs.dataset_inputs
    frames = video.decode(Path(trained.command[1]) / "good.mp4", num_frames=13, fps=24)
    assert given.dataset.digest == hashlib.sha256(frames.tobytes()).hexdigest()[:32]
    assert json.loads(given.dataset.profile)["frames_sha256"] == hashlib.sha256(frames.tobytes()).hexdigest()
    assert json.loads(given.dataset.source) == {"uri": str(Path(trained.command[1]) / "good.mp4")}

    (output,) = run.outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    assert model.status == "READY" and model.name == "good" and model.source_run_id == run.info.run_id
    kept = Path(unquote(urlsplit(model.artifact_location).path))
    assert (kept / "checkpoint.pt").read_bytes() == (folder / "checkpoint.pt").read_bytes()
    signature = Model.load(str(kept / "MLmodel")).signature
    assert [column.name for column in signature.inputs.inputs] == ["seed", "n"]
    assert signature.outputs.inputs[0].shape == (-1, 13, 30, 40, 3)


def test_the_run_of_the_corpus_says_what_was_asked(client: MlflowClient, runs: dict[str, Run]) -> None:
    run = runs["corpus"]
    assert run.data.params["channels"] == "4" and run.data.tags["preset"] == "demo"
    assert {"host", "mlflow.user", "mlflow.source.name"} <= run.data.tags.keys()
    experiment = client.get_experiment(run.info.experiment_id)
    for note in (run.data.tags["mlflow.note.content"], experiment.tags["mlflow.note.content"]):
        assert "clips: `2 done, 7 failed`" in note and "command: `python " in note and "corpus.png" in note
    view = json.loads(experiment.tags["mlflow.sharedViewState.clips"])
    assert view["orderByKey"] == view["selectedColumns"][0] == "metrics.`score/svfid_lite0`"


def test_a_file_that_is_no_clip_has_a_run_that_says_why(trained: Trained, client: MlflowClient) -> None:
    experiment = client.get_experiment_by_name("mixed")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], "tags.role = 'file'")
    submission = json.loads((trained.base / "submission.json").read_text())
    failures = {Path(source).name: reason for source, reason in submission["failures"]}
    assert {str(Path(run.data.tags["source"]).parent) for run in found} == {str(trained.command[1])}
    assert {run.info.run_name: run.data.tags["failure"] for run in found} == failures and len(failures) == 7
    assert {run.info.status for run in found} == {"FAILED"}


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store of this file's tests, each with an experiment of its own."""
    return default_uri(tmp_path_factory.mktemp("store"))


def test_forwarding_a_log_twice_stores_its_points_once(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "CHUNK", 200)  # two lines and a part of the next
    corpus = tracking.open_parent(uri, "again", tmp_path, {})
    folder = tmp_path / "clip"
    folder.mkdir()
    lines = [{"time_ms": 1000 + i, "scale": 1, "iteration": i, "metrics": {"rec_loss": 1 / i}} for i in range(1, 6)]
    whole = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(whole + '{"time_ms": 2000, "sca')  # torn last line
    for _ in range(2):
        with forwarding.forwarding(corpus, "clip", folder, RUN_SETTINGS):
            pass
        assert forwarding.run_of(corpus, folder) is None  # not all of it can be there: it has no result
    (run,) = MlflowClient(corpus.uri).search_runs([corpus.experiment_id], "tags.clip_id = 'clip'")
    history = MlflowClient(corpus.uri).get_metric_history(run.info.run_id, "train/rec_loss")
    assert sorted((m.step, m.value) for m in history) == [(i, 1 / i) for i in range(1, 6)]
    assert run.info.status == "RUNNING"


def test_a_picture_is_stored_as_mlflow_stores_it(tmp_path: Path, uri: str) -> None:
    corpus, client = tracking.open_parent(uri, "pictures", tmp_path, {}), MlflowClient(uri)
    folder = tmp_path / "clip"
    (folder / "samples").mkdir(parents=True)
    line = {"time_ms": 1234, "scale": 2, "iteration": None, "metrics": {}}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 700, 3), np.uint8))
    picture.save(folder / "samples" / "scale_02.png")
    for _ in range(2):
        write_result(folder, Result("clip", "failed", "some reason"))
        assert forward_missing(corpus, Experiment(Store(str(folder.parent))), [folder.name]) == {}
    theirs = client.create_run(corpus.experiment_id).info.run_id
    client.log_image(theirs, picture, key=forwarding.PICTURES, step=2, timestamp=1234, synchronous=True)
    stored = []
    for run_id in (theirs, forwarding.run_of(corpus, folder) or ""):
        paths = [item.path for item in client.list_artifacts(run_id, "images")]
        pixels = [np.asarray(Image.open(client.download_artifacts(run_id, path))).tolist() for path in paths]
        names = [re.sub("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID", path) for path in paths]
        stored.append((sorted(zip(names, pixels)), client.get_run(run_id).data.tags["mlflow.loggedImages"]))
    assert len(stored[0][0]) == 2 and stored[0] == stored[1]


def test_of_the_samples_folder_only_whole_videos_and_images_are_sent(tmp_path: Path, uri: str) -> None:
    corpus, client = tracking.open_parent(uri, "samples", tmp_path, {}), MlflowClient(uri)
    folder = tmp_path / "clip"
    (folder / "samples").mkdir(parents=True)
    for name in ("sample_00.mp4", "sample_00.gif", "sheet.png", ".sample_01.mp4.x1.tmp", "sample_01.tmp"):
        (folder / "samples" / name).write_bytes(b"content")
    Image.new("RGB", (8, 8)).save(folder / "samples" / "scale_00.png")
    write_result(folder, Result("clip", "done", "", minutes=1.0))
    for name in ("metrics.json", "checkpoint.pt"):
        (folder / name).write_text("{}")
    line = {"time_ms": 1234, "scale": 0, "iteration": None, "metrics": {}}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    assert forward_missing(corpus, Experiment(Store(str(folder.parent))), [folder.name]) == {}
    sent = client.list_artifacts(forwarding.run_of(corpus, folder) or "", "samples")
    assert {Path(item.path).name for item in sent} == {"sample_00.mp4", "sample_00.gif", "sheet.png"}


def test_reopening_a_corpus_finds_its_run_and_a_failure_is_a_tag(tmp_path: Path, uri: str) -> None:
    first = tracking.open_parent(uri, "reopened", tmp_path, {"preset": "demo"})
    assert tracking.open_parent(uri, "reopened", tmp_path, {"preset": "small"}) == first
    assert MlflowClient(uri).get_run(first.run_id).data.tags["preset"] == "small"
    write_result(tmp_path / "broken", Result("broken", "failed", "scale 1, iteration 7: rec_loss is nan"))
    (tmp_path / "broken" / "error.txt").write_text("Traceback …")
    with forwarding.forwarding(first, "broken", tmp_path / "broken", RUN_SETTINGS):
        pass
    run_id = forwarding.run_of(first, tmp_path / "broken")
    assert run_id
    run = MlflowClient(uri).get_run(run_id)
    assert run.info.status == "FAILED" and "iteration 7" in run.data.tags["failure"]
    assert [item.path for item in MlflowClient(uri).list_artifacts(run_id)] == ["error.txt"]


def test_only_the_runs_of_the_clips_named_are_forgotten(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "SEARCHED", 3)  # runs a page
    ours, other = (tracking.open_parent(uri, name, tmp_path, {}) for name in ("ours", "other"))
    client = MlflowClient(uri)
    for corpus in (ours, other):
        for i in range(10):
            tags = {"clip_id": f"clip-{i}", "mlflow.parentRunId": corpus.run_id}
            client.create_run(corpus.experiment_id, tags=tags)
    tracking.forget_clips(ours, ["clip-0", "clip-8", "clip-9", "never trained"])
    left = [
        sorted(run.data.tags["clip_id"] for run in client.search_runs([corpus.experiment_id], "tags.clip_id != ''"))
        for corpus in (ours, other)
    ]
    assert left == [[f"clip-{i}" for i in range(1, 8)], [f"clip-{i}" for i in range(10)]]


def test_an_unreachable_server_is_one_line(tmp_path: Path) -> None:
    told = (
        r"http://127\.0\.0\.1:9: MLflow cannot use it \(Connection refused\); "
        "start it, or leave out --tracking-uri and unset MLFLOW_TRACKING_URI$"
    )
    with pytest.raises(ConnectionError, match=told) as caught:
        tracking.open_parent("http://127.0.0.1:9", "none", tmp_path, {})
    assert "\n" not in str(caught.value)


def test_a_server_that_never_answers_is_one_line_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.tracking.uri.CONNECT_S", 1)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with pytest.raises(ConnectionError, match=r"MLflow cannot use it \(no answer within 1 s\); start it"):
            tracking.open_parent(address, "none", tmp_path, {})


def test_a_server_that_takes_calls_and_never_answers_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "PATIENCE_S", 1.0)
    write_result(tmp_path / "clip", Result("clip", "failed", "some reason"))
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        corpus = tracking.ParentRun(f"http://127.0.0.1:{deaf.getsockname()[1]}", "1", "2")
        missing = forward_missing(
            corpus, Experiment(Store(str(tmp_path))), ["clip"]
        )  # MLflow itself would wait for minutes
    assert missing == {"clip": NO_ANSWER}


def test_a_file_that_cannot_be_understood_is_named_and_the_server_not_blamed(tmp_path: Path, uri: str) -> None:
    corpus = tracking.open_parent(uri, "damaged", tmp_path, {})
    write_result(tmp_path / "clip", Result("clip", "failed", "some reason"))
    (tmp_path / "clip" / "config.json").write_text("{}")
    assert forward_missing(corpus, Experiment(Store(str(tmp_path))), ["clip"]) == {"clip": "KeyError: 'config'"}


def test_a_server_without_logged_models_gets_the_checkpoint_as_a_file(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As MLflow 2 is."""

    def search(*_: object, **__: object) -> None:
        raise MlflowException("Not Found", ENDPOINT_NOT_FOUND)

    monkeypatch.setattr(MlflowClient, "search_logged_models", search)
    corpus, folder = tracking.open_parent(uri, "older", tmp_path, {}), tmp_path / "clip"
    (folder / "samples").mkdir(parents=True)
    about = {
        "clip_id": "clip",
        "source": "clip.mp4",
        "precision_used": "float32",
        "config": {},
        "sizes_thw": [[1, 8, 8]],
    }
    for name, content in (("config.json", about), ("metrics.json", {})):
        (folder / name).write_text(json.dumps(content))
    (folder / "checkpoint.pt").write_bytes(b"weights")
    write_result(folder, Result("clip", "done", "", minutes=1.0))
    assert forward_missing(corpus, Experiment(Store(str(tmp_path))), ["clip"]) == {}
    client, run_id = MlflowClient(uri), forwarding.run_of(corpus, folder) or ""
    assert client.get_run(run_id).info.status == "FINISHED"
    assert "checkpoint.pt" in {item.path for item in client.list_artifacts(run_id)}


def test_a_run_made_twice_by_a_lost_answer_is_one_in_the_end(tmp_path: Path, uri: str) -> None:
    corpus = tracking.open_parent(uri, "twice", tmp_path, {})
    client = MlflowClient(corpus.uri)
    for _ in range(2):
        client.create_run(corpus.experiment_id, tags={"clip_id": "clip", "mlflow.parentRunId": corpus.run_id})
    write_result(tmp_path / "clip", Result("clip", "failed", "some reason"))
    assert forward_missing(corpus, Experiment(Store(str(tmp_path))), ["clip"]) == {}
    (run,) = client.search_runs([corpus.experiment_id], "tags.clip_id = 'clip'")
    assert run.info.status == "FAILED" and run.info.run_id == forwarding.run_of(corpus, tmp_path / "clip")


def test_a_new_result_and_one_of_another_corpus_are_not_in_mlflow_yet(tmp_path: Path, uri: str) -> None:
    folder = tmp_path / "clip"
    first, second = (tracking.open_parent(uri, name, tmp_path, {}) for name in ("first", "second"))
    write_result(folder, Result("clip", "failed", "some reason"))
    assert forward_missing(first, Experiment(Store(str(tmp_path))), ["clip"]) == {}
    assert forwarding.run_of(first, folder) and forwarding.run_of(second, folder) is None
    write_result(folder, Result("clip", "failed", "another reason"))
    assert forwarding.run_of(first, folder) is None
    assert forward_missing(second, Experiment(Store(str(tmp_path))), ["clip"]) == {}
    (run,) = MlflowClient(second.uri).search_runs([second.experiment_id], "tags.clip_id = 'clip'")
    assert run.data.tags["failure"] == "another reason"


def test_what_upload_cannot_use_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert upload.main(["--storage", str(tmp_path), "--experiment", "none"]) == 2
    assert f"{tmp_path / 'none'}: holds no experiment" in capsys.readouterr().out
    (tmp_path / "away").mkdir()
    Experiment(Store(str(tmp_path / "away"))).begin(ModelSettings(demo()), Submission("corpus", "demo", [], []))
    arguments = ["--storage", str(tmp_path), "--experiment", "away", "--tracking-uri", "http://127.0.0.1:9/?token=hid"]
    assert upload.main(arguments) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert "http://127.0.0.1:9/?token=***: MLflow cannot use it" in line


def test_a_run_that_is_stopped_is_killed_and_says_so(tmp_path: Path, uri: str) -> None:
    corpus, client = tracking.open_parent(uri, "stopped", tmp_path, {}), MlflowClient(uri)
    for status in ("done", "training"):
        tags = {"clip_id": status, "status": status, "mlflow.parentRunId": corpus.run_id}
        run = client.create_run(corpus.experiment_id, tags=tags)
        if status == "done":
            client.set_terminated(run.info.run_id)
    tracking.kill_unfinished(corpus)
    found = client.search_runs([corpus.experiment_id], "tags.clip_id != ''")
    said = {run.data.tags["clip_id"]: (run.info.status, run.data.tags["status"]) for run in found}
    assert said == {"done": ("FINISHED", "done"), "training": ("KILLED", "stopped")}
    assert client.get_run(corpus.run_id).info.status == "KILLED"


def test_anew_the_run_of_a_corpus_has_the_new_settings_and_no_old_run_stays(tmp_path: Path, uri: str) -> None:
    client = MlflowClient(uri)
    here = {"storage": "/here/anew"}
    first = tracking.open_parent(uri, "anew", tmp_path, here, {"lr": 1})
    client.create_run(first.experiment_id, tags={"clip_id": "clip", "mlflow.parentRunId": first.run_id})
    assert tracking.open_parent(uri, "anew", tmp_path, here, {"lr": 2}) == first
    elsewhere = tracking.open_parent(uri, "anew", tmp_path, {"storage": "/of/another/anew"}, {"lr": 2}, anew=True)
    assert elsewhere == first and len(client.search_runs([first.experiment_id])) == 2  # on a server that is shared
    tracking.open_parent(uri, "anew", tmp_path, here)
    second = tracking.open_parent(uri, "anew", tmp_path, here, {"lr": 2}, anew=True)
    (run,) = client.search_runs([first.experiment_id])
    assert run.info.run_id == second.run_id != first.run_id and run.data.params == {"lr": "2"}


HARD_WORDS = [
    """a "b" <b>c</b> *d* [e](http://x) 'f' | g_h_ \\x # ~~i~~ & &lt; <script>alert()</script>""",
    "python x --corpus 's3://b/[2024]*  x'",
    "in `ticks` and ``two``",
    "`begins and ends`",
    " blanks ",
]


@pytest.mark.parametrize("words", HARD_WORDS)
def test_a_description_says_any_words_as_they_are(words: str) -> None:
    about = {"clip_id": "clip", "title": words, "source": words, "clip_size_thw": [13, 48, 64]}
    of_clip = descriptions.of_clip("1", about, {}, has_sheet=False)
    of_corpus = descriptions.of_corpus("1", {"command": words}, {}, "")
    found = [token for note in (of_clip, of_corpus) for token in inline_tokens(note)]
    assert [token.content for token in found if token.type == "code_inline"] == [words, "samples/", words]
    assert not {token.type for token in found} & {"html_inline", "link_open", "em_open", "s_open"}
    bold = "".join(token.content for token in found[: [token.type for token in found].index("strong_close")])
    assert bold.split() == words.split()


def inline_tokens(note: str) -> list[Token]:
    """Of a page of Markdown, as CommonMark takes it apart."""
    return [token for block in MarkdownIt().parse(note) for token in block.children or ()]


def test_a_comparison_names_every_run_on_the_pages_of_trained_models() -> None:
    run_ids = [f"{number:032x}" for number in range(60)]
    page = tracking.ParentRun("http://mlflow:5000", "7", "1").comparison(run_ids)
    assert page.startswith("http://mlflow:5000/#/compare-runs?runs=")  # which MLflow takes as the first parameter only
    asked = parse_qs(page.partition("?")[2])
    assert json.loads(asked["runs"][0]) == run_ids and json.loads(asked["experiments"][0]) == ["7"]
    assert asked["workflowType"] == ["machine_learning"]

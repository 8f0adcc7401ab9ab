"""MLflow's own pages over what a corpus left, in a real browser: what a person sees there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from mlflow import MlflowClient
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from infra.tracking.parent import runs_page
from jobs import ui
from tests.browser import browser, keep_screenshot
from tests.infra.mlflow_server import ui_server

from .conftest import Trained

pytestmark = pytest.mark.slow
PATIENCE_S = 60


@pytest.fixture(scope="module")
def chrome() -> Iterator[webdriver.Chrome]:
    with browser() as window:
        yield window


@pytest.fixture(scope="module")
def server(chrome: webdriver.Chrome, trained: Trained) -> Iterator[str]:
    """MLflow's address, served as jobs/ui.py does. It asks for the browser first: no server starts without one."""
    with ui_server(trained.storage) as address:
        yield address


def text_of(chrome: webdriver.Chrome, *awaited: str) -> str:
    """What the page says, once it says all that is awaited."""

    def said(chrome: webdriver.Chrome) -> str | bool:
        text = chrome.find_element(By.TAG_NAME, "body").text
        return text if all(words in text for words in awaited) else False

    return str(WebDriverWait(chrome, PATIENCE_S).until(said))


def test_the_page_that_ui_names_lists_the_runs(chrome: webdriver.Chrome, server: str, trained: Trained) -> None:
    port = int(server.rpartition(":")[2])
    (page,) = [line.split()[0] for line in ui.pages(str(trained.storage), port) if line.endswith("  mixed")]
    chrome.get(page)
    text_of(chrome, "mixed", "Run Name", "score/svfid")
    # A row for each clip, and for each file that is none; they come later than their heads.
    rows = {"good", "süß & spaced", "short.mp4", "audio.mp4"}
    WebDriverWait(chrome, PATIENCE_S).until(
        lambda chrome: rows <= set(text_of(chrome, "Run Name").split("Run Name")[1].splitlines())
    )
    keep_screenshot(chrome, "mlflow-runs")
    assert runs_page("1") in page or runs_page("2") in page


def test_the_page_of_a_clip_has_its_description_picture_and_scores(
    chrome: webdriver.Chrome, server: str, trained: Trained
) -> None:
    client = MlflowClient(f"sqlite:///{trained.storage / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("mixed")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], f"tags.clip_id = '{trained.clips['good'].name}'")
    chrome.get(f"{server}/#/experiments/{experiment.experiment_id}/runs/{run.info.run_id}")
    said = text_of(chrome, "good", "score/svfid_lite0")
    assert "13 frames of 48×64 px (H×W)" in said
    assert "svfid_lite0 " in said and "System metrics" in said

    def loaded(chrome: webdriver.Chrome) -> bool:
        width = "return [...document.images].filter(i => i.src.includes('sheet.png')).map(i => i.naturalWidth)[0]"
        return (chrome.execute_script(width) or 0) >= 1200

    WebDriverWait(chrome, PATIENCE_S).until(loaded)
    keep_screenshot(chrome, "mlflow-run")


def test_a_video_plays_in_the_artifact_viewer(chrome: webdriver.Chrome, server: str, trained: Trained) -> None:
    client = MlflowClient(f"sqlite:///{trained.storage / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("mixed")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], f"tags.clip_id = '{trained.clips['good'].name}'")
    page = (
        f"{server}/#/experiments/{experiment.experiment_id}/runs/{run.info.run_id}/artifacts/samples/side_by_side.mp4"
    )
    chrome.get(page)

    def playing(chrome: webdriver.Chrome) -> bool:
        script = """const video = document.querySelector('video'); if (!video) return [0, 0];
            video.muted = true; video.play(); return [video.videoWidth, video.currentTime]"""
        width, seconds = chrome.execute_script(script)
        return width >= 1200 and seconds > 0.2

    WebDriverWait(chrome, PATIENCE_S).until(playing)
    keep_screenshot(chrome, "mlflow-video")

"""The pictures of README.md, of what `make demo` left: `make pictures` runs this in Debian's Chromium."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mlflow import MlflowClient
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from infra.tracking.parent import run_page, runs_page
from infra.tracking.uri import default_uri
from tests.browser import browser
from tests.infra.mlflow_server import ui_server

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "infra" / "pictures"
EXPERIMENT = "demo"
PATIENCE_S, SETTLE_S = 60, 4  # for a page, and for what it draws after that
SIZE = (1700, 900)  # px
ASSISTANT_CLOSE = "[data-component-id='mlflow.assistant.chat_panel.close']"  # MLflow opens it in a new browser


def keep(chrome: webdriver.Chrome, name: str) -> None:
    """What the window shows, in 256 colours: a third of the bytes."""
    time.sleep(SETTLE_S)
    with Image.open(io.BytesIO(chrome.get_screenshot_as_png())) as shot:
        shot.convert("RGB").quantize(256).save(PICTURES / f"{name}.png", optimize=True)
    print(PICTURES / f"{name}.png")


def says(words: str) -> Callable[[webdriver.Chrome], bool]:
    """Whether the page says that."""
    return lambda chrome: words in chrome.find_element(By.TAG_NAME, "body").text


def main(storage: Path) -> int:
    """Take them. storage: what `make demo` filled. Returns the exit code."""
    base = storage / EXPERIMENT
    if not (base / "gallery.html").is_file():
        print(f"{base}: holds no gallery; run make demo first")
        return 2
    PICTURES.mkdir(exist_ok=True)
    with Image.open(base / "corpus.png") as sheets:
        sheets.convert("RGB").quantize(256).save(ROOT / "infra" / "demo.png", optimize=True)
    with ui_server(storage) as address, browser(SIZE) as chrome:
        chrome.get((base / "gallery.html").as_uri())
        keep(chrome, "gallery")
        client = MlflowClient(default_uri(storage))
        experiment = client.get_experiment_by_name(EXPERIMENT)
        assert experiment is not None
        chrome.get(f"{address}/{runs_page(experiment.experiment_id)}")
        WebDriverWait(chrome, PATIENCE_S).until(says("score/"))
        chrome.find_element(By.CSS_SELECTOR, ASSISTANT_CLOSE).click()
        keep(chrome, "clips")
        run = client.search_runs([experiment.experiment_id], "tags.role = 'clip'", order_by=["start_time ASC"])[0]
        chrome.get(f"{address}/{run_page(experiment.experiment_id, run.info.run_id)}")
        WebDriverWait(chrome, PATIENCE_S).until(says("score/"))
        keep(chrome, "run")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs").resolve()))

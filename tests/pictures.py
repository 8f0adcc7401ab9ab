"""The pictures of README.md, of what `make demo` left: `make pictures` runs this in Debian's Chromium."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from mlflow import MlflowClient
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from jobs import ui
from tests.browser import browser
from tests.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "infra" / "pictures"
EXPERIMENT = "demo"
PATIENCE_S, SETTLE_S = 60, 4  # for a page, and for what it draws after that
SIZE = (1700, 900)  # px


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
    base, port = storage / EXPERIMENT, free_port()
    if not (base / "gallery.html").is_file():
        print(f"{base}: holds no gallery; run make demo first")
        return 2
    PICTURES.mkdir(exist_ok=True)
    with Image.open(base / "corpus.png") as sheets:
        sheets.convert("RGB").quantize(256).save(ROOT / "infra" / "demo.png", optimize=True)
    command, environment = ui.server_command(str(storage), port), {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )
    try:
        with browser(SIZE) as chrome:
            chrome.get((base / "gallery.html").as_uri())
            keep(chrome, "gallery")
            address = f"http://127.0.0.1:{port}"
            WebDriverWait(chrome, PATIENCE_S).until(lambda _: answers(address))
            client = MlflowClient(command[command.index("--backend-store-uri") + 1])
            experiment = client.get_experiment_by_name(EXPERIMENT)
            assert experiment is not None
            (page,) = [line.split()[0] for line in ui.pages(str(storage), port) if line.endswith(f"  {EXPERIMENT}")]
            chrome.get(page)
            WebDriverWait(chrome, PATIENCE_S).until(says("score/"))
            keep(chrome, "clips")
            run = client.search_runs([experiment.experiment_id], "tags.role = 'clip'", order_by=["start_time ASC"])[0]
            chrome.get(
                f"{address}/#/experiments/{experiment.experiment_id}/runs/{run.info.run_id}?workflowType=machine_learning"
            )
            WebDriverWait(chrome, PATIENCE_S).until(says("score/"))
            keep(chrome, "run")
    finally:
        server.kill()
        server.wait()
    return 0


def answers(address: str) -> bool:
    """Whether the server does."""
    try:
        urllib.request.urlopen(f"{address}/health", timeout=5).read()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs").resolve()))

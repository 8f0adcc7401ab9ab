"""jobs/gallery.py, looked at with a real browser. The experiments are files, written without a training."""

from __future__ import annotations

import configparser
import html
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from infra.store import Store
from jobs import gallery, train_corpus
from jobs.experiment.experiment import Experiment
from jobs.experiment.gallery import write_gallery
from jobs.reports import media
from jobs.training.request import TrainRequest
from model.presets import PRESETS
from tests.browser import DESKTOP, PHONE, browser, keep_screenshot
from tests.jobs.made_experiment import (
    distinct,
    encoded,
    write_config,
    write_corpus,
    write_experiment,
    write_picture,
    write_result,
    write_videos,
)

from .conftest import ROOT

HOSTILE = "\"><img src=x onerror=hacked=1> '&amp; 🎈 "
HOSTILE_ID = (HOSTILE.replace("/", "") + "x" * 200)[:200]  # of a folder: 200 characters
SCRIPT = "</script><script>window.hacked=1</script><!--"

# What the page holds, as a person sees it.
NAMES = "return [...document.querySelectorAll('.card')].filter(c => !c.hidden).map(c => c.dataset.name)"
TIMES = "return [...arguments[0].querySelectorAll('video[src]')].map(v => v.currentTime)"
LOADED = "return [...document.querySelectorAll('.card')].filter(c => c.querySelector('[src]')).map(c => c.dataset.name)"


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two experiments of the same 8 clips, all done; and their galleries, of one and of both."""
    root = tmp_path_factory.mktemp("gallery")
    for seed, name in enumerate(("demo", "other")):
        write_corpus(root / name, 8, 3, root, seed=seed)
    for number in range(8):  # one score that can be told by eye; the last clip has none
        (clip,) = (root / "demo").glob(f"*-{number:03d}-000000")
        figures = {"svfid_lite0": float((number * 3) % 8)} if number < 7 else {}
        write_result(clip, minutes=1.0, diversity_n10=0.5, **figures)
    (root / "demo" / "bunny-001-000000" / "warnings.txt").write_text("")
    assert gallery.main([str(root / "demo")]) == 0
    assert gallery.main(["demo", "other", "--storage", str(root), "--out", str(root / "both.html")]) == 0
    return root


@pytest.fixture(scope="module")
def desktop() -> Iterator[webdriver.Chrome]:
    with browser(DESKTOP) as chrome:
        yield chrome


@pytest.fixture
def opened(desktop: webdriver.Chrome) -> Iterator[Callable[[Path], webdriver.Chrome]]:
    """A function that opens a page. Whatever a test did with it, the browser had nothing to complain of."""
    desktop.get_log("browser")

    def opened(page: Path) -> webdriver.Chrome:
        desktop.get(page.as_uri())
        return desktop

    yield opened
    assert not desktop.get_log("browser")


def wait(chrome: webdriver.Chrome, script: str, *arguments: object) -> Any:
    """What a script returns once that is true."""
    return WebDriverWait(chrome, 60, 0.05).until(lambda chrome: chrome.execute_script(script, *arguments))


def card_of(chrome: webdriver.Chrome, name: str) -> Any:
    return chrome.find_element(By.CSS_SELECTOR, f".card[data-name='{name}']")


def press(chrome: webdriver.Chrome, *keys: str) -> None:
    ActionChains(chrome).send_keys(*keys).perform()


def choose(chrome: webdriver.Chrome, label: str) -> None:
    chrome.execute_script(
        "const s = document.querySelector('#sort');"
        "s.value = [...s.options].find(o => o.text === arguments[0]).value; s.dispatchEvent(new Event('change'))",
        label,
    )


# -- what a person does


@pytest.mark.slow
def test_it_opens_with_everything_of_a_clip(storage: Path, opened: Callable[[Path], webdriver.Chrome]) -> None:
    chrome = opened(storage / "demo" / "gallery.html")
    assert chrome.title == "demo: gallery" and chrome.find_element(By.TAG_NAME, "h1").text == "demo"
    card = card_of(chrome, "bikes-000-000000")
    wait(chrome, "return arguments[0].querySelectorAll('video[src]').length === 9", card)
    labels = [shot.get_attribute("data-label") for shot in card.find_elements(By.CLASS_NAME, "shot")]
    assert labels == ["original", "reconstruction", "sample 00", "sample 01", "sample 02",
                      "plain 00", "plain 01", "plain 02", "plain 03",
                      "where samples differ", "where the patches of sample 00 come from"]  # fmt: skip
    names = [shot.accessible_name for shot in card.find_elements(By.CLASS_NAME, "shot")]
    assert names[:3] == [f"{label} of bikes-000-000000: enlarge" for label in labels[:3]]
    size = chrome.execute_script(
        "const v = arguments[0].querySelector('.sample video');"
        "return [v.videoWidth, v.videoHeight, v.clientWidth, v.clientHeight,"
        "getComputedStyle(v).imageRendering, v.muted]",
        card,
    )
    assert size == [96, 54, 192, 108, "pixelated", True]  # by a whole factor
    tops = "return [...arguments[0].querySelectorAll('.map img')].map(i => i.getBoundingClientRect().top)"
    maps = chrome.execute_script(tops, card)
    assert len(maps) == 2 and maps[0] == maps[1]  # though one is lower
    # the spread, by hand: 0 3 6 1 4 7 2, of the seven clips that have it
    strip = card.find_element(By.CSS_SELECTOR, ".strip")
    assert strip.accessible_name == "1 of 7 from the lowest; corpus 3.3 ± 2.4"
    command = chrome.execute_script("return arguments[0].querySelector('.command pre').textContent", card)
    assert command.splitlines()[0].startswith("python jobs/train_corpus.py --corpus demo --preset demo --storage ")
    settings = card.find_element(By.CSS_SELECTOR, ".settings summary")
    chrome.execute_script("arguments[0].scrollIntoView({block: 'center'})", settings)
    settings.click()
    wait(chrome, "return arguments[0].querySelector('.settings .whole')", card)
    text = card.find_element(By.CSS_SELECTOR, ".settings").text.split()
    assert text[text.index("kl_weight") + 1] == str(PRESETS["demo"]().kl_weight)
    chrome.execute_script("scrollTo(0, 0)")
    wait(chrome, "return document.querySelector('.sample video')?.currentTime > 0")
    keep_screenshot(chrome, "gallery-desktop")


def test_it_sorts_by_name_and_by_any_score(storage: Path, opened: Callable[[Path], webdriver.Chrome]) -> None:
    chrome = opened(storage / "demo" / "gallery.html")
    names = chrome.execute_script(NAMES)
    assert names == sorted(names) and len(names) == 8
    by_score = sorted(names, key=lambda name: ((int(name.split("-")[1]) * 3) % 8, int(name.split("-")[1])))
    without = next(name for name in names if "-007-" in name)
    by_score.remove(without)
    choose(chrome, "svfid_lite0")
    assert chrome.execute_script(NAMES) == [*by_score, without]
    chrome.find_element(By.ID, "direction").click()
    assert chrome.execute_script(NAMES) == [*by_score[::-1], without]  # one without the score stays last
    choose(chrome, "name")
    assert chrome.execute_script(NAMES) == names[::-1]


def test_it_filters_by_text(storage: Path, opened: Callable[[Path], webdriver.Chrome]) -> None:
    chrome = opened(storage / "demo" / "gallery.html")
    press(chrome, "/", "BUNNY 00")
    names = wait(chrome, NAMES)
    assert names == ["bunny-001-000000", "bunny-004-000000", "bunny-007-000000"]
    assert chrome.find_element(By.ID, "count").text == "3 of 8"
    press(chrome, Keys.CONTROL, "a", Keys.NULL, "no such clip")
    assert chrome.execute_script(NAMES) == []
    assert chrome.find_element(By.ID, "nothing").is_displayed()


def test_videos_play_in_step_across_experiments(storage: Path, opened: Callable[[Path], webdriver.Chrome]) -> None:
    chrome = opened(storage / "both.html")
    card = card_of(chrome, "bikes-000-000000")
    chrome.execute_script("arguments[0].scrollIntoView()", card)
    wait(chrome, "return arguments[0].querySelectorAll('.column:last-child .sample video[src]').length >= 3", card)
    moments = "return [...arguments[0].querySelectorAll('video[src]')].every(v => v.currentTime > 0)"
    wait(chrome, moments, card)  # all of them play
    seen: set[float] = set()

    def advances(chrome: webdriver.Chrome) -> bool:
        seen.add(chrome.execute_script(TIMES, card)[0])
        return len(seen) > 5

    WebDriverWait(chrome, 60, 0.02).until(advances)
    spreads = []
    for _ in range(40):  # one that begins a round a little late is not out of step for long
        times = chrome.execute_script(TIMES, card)
        assert len(times) >= 7
        spreads.append(max(times) - min(times))
    assert sorted(spreads)[len(spreads) // 2] < 0.15, spreads
    press(chrome, " ")
    wait(chrome, "return [...document.querySelectorAll('video[src]')].every(v => v.paused && !v.seeking)")
    times = chrome.execute_script(TIMES, card)
    assert max(times) == min(times)  # paused at the same moment, in both experiments
    assert chrome.find_element(By.ID, "play").text == "Play"
    press(chrome, " ")
    wait(chrome, "return [...arguments[0].querySelectorAll('video[src]')].some(v => !v.paused)", card)


def test_the_same_clip_stands_side_by_side(storage: Path, opened: Callable[[Path], webdriver.Chrome]) -> None:
    chrome = opened(storage / "both.html")
    card = card_of(chrome, "bikes-000-000000")
    heads = [column.text.split("\n")[0] for column in card.find_elements(By.CLASS_NAME, "column")]
    assert heads == ["demo", "other"]
    first, second = (column.rect for column in card.find_elements(By.CLASS_NAME, "column"))
    assert first["y"] == second["y"] and first["x"] + first["width"] <= second["x"]
    assert len(card.find_elements(By.CSS_SELECTOR, ".rail .shot")) == 1  # the original, which both have, once
    chrome.find_element(By.CSS_SELECTOR, ".chip[data-column='0']").click()
    shown = [column.is_displayed() for column in card.find_elements(By.CLASS_NAME, "column")]
    assert shown == [False, True]


def test_videos_load_when_they_come_into_view_and_go_when_they_leave(
    storage: Path, opened: Callable[[Path], webdriver.Chrome]
) -> None:
    chrome = opened(storage / "demo" / "gallery.html")
    names = chrome.execute_script(NAMES)
    wait(chrome, "return document.querySelector('.card video')?.readyState >= 2")
    assert set(chrome.execute_script(LOADED)) <= set(names[:3])
    last = card_of(chrome, names[-1])
    chrome.execute_script("arguments[0].scrollIntoView()", last)
    wait(chrome, "return arguments[0].querySelector('video')?.readyState >= 2", last)
    wait(chrome, "return !document.querySelector('.card').querySelector('[src]')")
    assert names[0] not in chrome.execute_script(LOADED)


def test_the_keyboard_does_everything(storage: Path, opened: Callable[[Path], webdriver.Chrome]) -> None:
    chrome = opened(storage / "demo" / "gallery.html")
    focused = "const shot = document.activeElement; return [shot.closest('.card')?.dataset.name, shot.dataset.label]"
    chrome.find_element(By.ID, "theme").send_keys(Keys.TAB)
    names = chrome.execute_script(NAMES)
    assert chrome.execute_script(focused) == [names[0], "original"]
    press(chrome, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert chrome.execute_script(focused) == [names[0], "sample 01"]
    press(chrome, Keys.ARROW_DOWN)
    assert chrome.execute_script(focused) == [names[1], "original"]
    press(chrome, Keys.END)
    assert chrome.execute_script(focused)[1] == "where the patches of sample 00 come from"
    press(chrome, Keys.ARROW_UP, Keys.ARROW_RIGHT, " ")  # pauses, and opens nothing
    assert chrome.find_element(By.ID, "play").text == "Play"
    dialog = chrome.find_element(By.TAG_NAME, "dialog")
    assert not dialog.is_displayed()
    press(chrome, " ", Keys.ENTER)
    assert dialog.is_displayed()
    # enlarged by a whole factor beside the original, and as much of the window as there is
    wait(
        chrome,
        "const v = [...document.querySelectorAll('dialog video')]; return v.length && v.every(v => v.currentTime > 0)",
    )
    large = "return [...document.querySelectorAll('dialog video')].map(v => [v.clientWidth, v.clientHeight])"
    assert chrome.execute_script(large) == [[96 * 5, 54 * 5]] * 2
    press(chrome, Keys.ARROW_RIGHT)
    captions = "return [...document.querySelectorAll('dialog figcaption')].map(c => c.textContent)"
    assert chrome.execute_script(captions) == ["original", "sample 00"]
    press(chrome, Keys.ESCAPE)
    wait(chrome, "return !document.querySelector('dialog').open")
    assert chrome.execute_script(focused) == [names[0], "sample 00"]


def test_dark_light_and_less_motion(storage: Path, opened: Callable[[Path], webdriver.Chrome]) -> None:
    def emulate(chrome: webdriver.Chrome, scheme: str, motion: str) -> None:
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": motion},
        ]
        chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    chrome = opened(storage / "demo" / "gallery.html")
    background = "return getComputedStyle(document.documentElement).backgroundColor"
    try:
        emulate(chrome, "dark", "reduce")
        chrome.refresh()
        dark = chrome.execute_script(background)
        wait(chrome, "return document.querySelector('.sample video')?.readyState >= 2")
        assert chrome.find_element(By.ID, "play").text == "Play"  # starts paused
        assert chrome.execute_script("return [...document.querySelectorAll('video')].every(v => v.paused)")
        emulate(chrome, "light", "reduce")
        light = chrome.execute_script(background)
        assert dark != light
        chrome.find_element(By.ID, "theme").click()
        assert chrome.execute_script(background) == dark
        chrome.refresh()
        assert chrome.execute_script(background) == dark  # it is kept
        chrome.find_element(By.ID, "theme").click()
        assert chrome.execute_script(background) == light
        chrome.execute_script("localStorage.clear()")
    finally:
        emulate(chrome, "", "")


@pytest.mark.slow
def test_a_phone_shows_it_without_scrolling_to_the_side(storage: Path) -> None:
    with browser(PHONE) as chrome:
        for page in (storage / "both.html", storage / "demo" / "gallery.html"):
            chrome.get(page.as_uri())
            wait(chrome, "return document.querySelector('.card video')?.readyState >= 2")
            for opened in ("", "document.querySelectorAll('details').forEach(d => { d.open = true })"):
                chrome.execute_script(opened)
                assert chrome.execute_script("return document.documentElement.scrollWidth") <= PHONE[0]
                beyond = "e => e.getBoundingClientRect().right > innerWidth + 1"
                wide = f"return [...document.querySelectorAll('.card *')].filter({beyond})"
                assert not chrome.execute_script(wide)
        chrome.refresh()
        wait(chrome, "return document.querySelector('.card video')?.currentTime > 0")
        keep_screenshot(chrome, "gallery-phone")


def test_it_works_in_a_frame_that_may_do_nothing_but_run_scripts(
    storage: Path, tmp_path: Path, desktop: webdriver.Chrome
) -> None:
    """As the artifact viewer of MLflow shows a page."""
    page = html.escape((storage / "demo" / "gallery.html").read_text())
    outer = tmp_path / "viewer.html"
    outer.write_text(f'<iframe sandbox="allow-scripts" width="1200" height="800" srcdoc="{page}"></iframe>')
    desktop.get(outer.as_uri())
    desktop.switch_to.frame(0)
    wait(desktop, "return document.querySelector('.sample video')?.currentTime > 0")
    desktop.find_element(By.ID, "filter").send_keys("carphone")
    assert len(desktop.execute_script(NAMES)) == 2
    desktop.switch_to.default_content()


def test_nothing_leaves_the_page(storage: Path, opened: Callable[[Path], webdriver.Chrome]) -> None:
    page = storage / "demo" / "gallery.html"
    text = page.read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)|url\(|@import|https?://""", text)
    chrome = opened(page)
    wait(chrome, "return document.querySelector('.sample video')?.currentTime > 0")
    asked = chrome.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert not [name for name in asked if not name.startswith(("blob:", "data:"))]
    # its own policy forbids what a text that got past the escaping might do
    for address in ("http://127.0.0.1:9/", "data:text/plain,x"):
        script = "const [address, done] = arguments; fetch(address).then(() => done('done'), e => done(e.name))"
        assert chrome.execute_async_script(script, address) == "TypeError"
    script = "const s = document.createElement('script'); s.textContent = 'window.hacked = 1'; document.body.append(s)"
    chrome.execute_script(script)
    assert chrome.execute_script("return window.hacked ?? null") is None
    told = chrome.get_log("browser")
    assert told and all("Content Security Policy" in entry["message"] for entry in told)


# -- bad input


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips that failed, are not finished, lack their samples or are damaged, under names of the worst kind."""
    root = tmp_path_factory.mktemp("troubled")
    real = encoded(0, 0, root)
    clip_ids = [HOSTILE_ID, "failed", "stopped", "waiting", "begun", "no-samples", "torn", "odd", "empty", "picture"]
    failures = [(f"/videos/{SCRIPT}.mp4", f"{SCRIPT}: no video")]
    folder = write_experiment(root / "runs", clip_ids, failures=failures, corpus=SCRIPT, command=f"python {SCRIPT}")
    hostile = folder / HOSTILE_ID
    write_config(hostile, source=f"/v/{HOSTILE}{SCRIPT}.mp4")
    write_videos(hostile, real, [distinct(real, place) for place in range(2)])
    write_result(hostile, svfid_lite0=10.0, nn_distance=float("nan"), warning=f"{SCRIPT}\n{HOSTILE}")
    write_result(folder / "failed", "failed", f"loss is not finite {SCRIPT}")
    write_result(folder / "stopped", "stopped", "by ASHA after 2 scales")
    write_config(folder / "begun")
    write_config(folder / "no-samples")
    write_result(folder / "no-samples", svfid_lite0=20.0)
    for name, file, content in (
        ("torn", "result.json", '{"clip_id": "to'),
        ("odd", "metrics.json", '{"nnfdiv": "<b>"}'),
    ):
        write_config(folder / name)
        write_videos(folder / name, real, [distinct(real, 9)])
        write_result(folder / name, svfid_lite0=30.0)
        (folder / name / file).write_text(content)
    write_videos(folder / "empty", b"", [b"no video at all"])
    write_result(folder / "empty", svfid_lite0=40.0)
    write_config(folder / "picture", size=(60, 80))
    for place, name in enumerate(("real", "reconstruction", "sample_00")):
        write_picture(folder / "picture" / "samples" / f"{name}.png", 60, 80, seed=place)
    write_picture(folder / "evaluation" / "picture" / "nnf_00.png", seed=9)
    write_result(folder / "picture", sifid_lite0_frames=5.0)
    return folder


@pytest.mark.slow
def test_what_is_wrong_with_a_clip_is_said(
    troubled: Path, desktop: webdriver.Chrome, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gallery.main([str(troubled)]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[1] for line in printed if line.startswith("damaged")] == ["torn", "odd", "empty"]
    assert printed[-1].startswith(f"gallery: {troubled}/gallery.html (10 clips, ")
    desktop.get_log("browser")
    desktop.get((troubled / "gallery.html").as_uri())
    states = desktop.execute_script(
        "return Object.fromEntries([...document.querySelectorAll('.card')].map("
        "c => [c.dataset.name, c.querySelector('.status')?.textContent ?? '']))"
    )
    assert states.pop(HOSTILE_ID) == states.pop("picture") == ""
    told = {
        "failed": f"failed loss is not finite {SCRIPT}",
        "stopped": "stopped by ASHA after 2 scales",
        "waiting": "unfinished its training has not begun",
        "begun": "unfinished its training has not ended; the same command goes on with it",
        "no-samples": "done there is no sample in its folder",
    }
    assert {name: states.pop(name) for name in told} == told
    assert states["torn"].startswith("damaged result.json cannot be read (")
    assert states["empty"] == "damaged real.mp4 is empty"
    assert states["odd"] == "damaged metrics.json cannot be read (nnfdiv is no number)"
    # no script ran, and every text is there as it was
    assert desktop.execute_script("return window.hacked ?? null") is None
    card = desktop.execute_script(
        "return [...document.querySelectorAll('.card')].find(c => c.dataset.name === arguments[0])", HOSTILE_ID
    )
    assert card.find_element(By.TAG_NAME, "h2").text.startswith(HOSTILE_ID[:60].strip())
    warnings = [line.get_attribute("textContent") for line in card.find_elements(By.CLASS_NAME, "warning")]
    assert warnings == [SCRIPT, HOSTILE]
    command = card.find_element(By.CSS_SELECTOR, ".command pre").get_attribute("textContent")
    assert command.splitlines()[0] == f"python {SCRIPT}"  # that of submission.json
    assert SCRIPT in desktop.find_element(By.CLASS_NAME, "failures").text
    files = desktop.find_element(By.CSS_SELECTOR, ".lead a")
    assert files.text == "1 file that cannot be used" and files.get_attribute("href").endswith("#files")
    # a file that is no video says so, beside those that are
    empty = card_of(desktop, "empty")
    desktop.execute_script("arguments[0].scrollIntoView()", empty)
    wait(desktop, "return arguments[0].querySelector('.sample.broken')", empty)
    picture = card_of(desktop, "picture")
    desktop.execute_script("arguments[0].scrollIntoView()", picture)
    wait(desktop, "return arguments[0].querySelector('.sample img')?.naturalWidth === 80", picture)
    assert [shot.get_attribute("data-label") for shot in picture.find_elements(By.CLASS_NAME, "shot")][-1] == (
        "where the patches of sample 00 come from"  # of evaluate.py
    )
    assert not desktop.get_log("browser")
    with browser(PHONE) as phone:
        phone.get((troubled / "gallery.html").as_uri())
        assert phone.execute_script("return document.documentElement.scrollWidth") <= PHONE[0]


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["nothing"], "runs/nothing: no experiment of train_corpus.py or tune.py; give the folder of one"),
        (["a/b"], "a/b: no experiment of train_corpus.py or tune.py; give the folder of one"),
        (["x", "runs/x"], "runs/x: is given twice; give each experiment once"),
        (["no such name"], "letters, digits, '_', '-' and '.' only"),
        (["x", "--out", "page.txt"], "--out page.txt: is no page on this machine; give a FILE.html"),
        (["x", "--out", "s3://bucket/page.html"], "is no page on this machine; give a FILE.html"),
    ],
)
def test_arguments_that_cannot_work_are_one_line(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert gallery.main(arguments) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("error: ") and told in line
    assert not list(tmp_path.iterdir())


def test_a_video_and_a_damaged_submission_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"no experiment")
    damaged = write_experiment(tmp_path / "demo", ["bikes"]) / "submission.json"
    damaged.write_text('{"corpus": "de')
    assert [gallery.main([str(tmp_path / name)]) for name in ("clip.mp4", "demo")] == [2, 2]
    video, experiment = capsys.readouterr().out.splitlines()
    assert f"{tmp_path}/clip.mp4: no experiment of train_corpus.py or tune.py" in video
    assert f"{damaged}: cannot be read (" in experiment and "run its train_corpus.py again" in experiment


# -- many


@pytest.mark.slow
def test_500_clips_open(tmp_path: Path, opened: Callable[[Path], webdriver.Chrome]) -> None:
    real = encoded(0, 0, tmp_path)
    clip_ids = [f"clip-{number:03d}" for number in range(500)]
    folder = write_experiment(tmp_path / "many", clip_ids)
    for number, clip_id in enumerate(clip_ids):
        write_config(folder / clip_id)
        write_videos(folder / clip_id, distinct(real, 1000 + number), [distinct(real, 2000 + number), real])
        write_result(folder / clip_id, svfid_lite0=float(number), diversity_n10=0.5)
    assert gallery.main([str(folder)]) == 0
    chrome = opened(folder / "gallery.html")
    wait(chrome, "return document.querySelector('.sample video')?.currentTime > 0")
    assert chrome.find_element(By.ID, "count").text == "500 of 500"
    assert len(chrome.execute_script(LOADED)) < 6
    choose(chrome, "svfid_lite0")
    chrome.find_element(By.ID, "direction").click()
    assert chrome.execute_script(NAMES)[0] == "clip-499"
    first = card_of(chrome, "clip-499")
    chrome.execute_script("arguments[0].scrollIntoView()", first)
    wait(chrome, "return arguments[0].querySelector('.sample video')?.currentTime > 0", first)


def test_many_videos_lie_beside_the_page(
    storage: Path, tmp_path: Path, opened: Callable[[Path], webdriver.Chrome], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "demo"
    shutil.copytree(storage / "demo", copy)
    inside = (copy / "gallery.html").stat().st_size
    monkeypatch.setattr(media, "EMBEDDED_BYTES", 10_000)
    made = write_gallery([Experiment.open(str(tmp_path), "demo")])
    files = {path.name: path.stat().st_size for path in (copy / "gallery.media").iterdir()}
    # 8 clips of 9 videos and 2 pictures; those that are alike are there once
    assert made.media_uri == str(copy / "gallery.media") and len(files) == 8 * 11
    assert made.bytes == sum(files.values()) + (copy / "gallery.html").stat().st_size
    assert (copy / "gallery.html").stat().st_size < inside / 4
    chrome = opened(copy / "gallery.html")
    wait(chrome, "return document.querySelector('.sample video')?.currentTime > 0")
    # what is no longer shown goes, and all of it once the page takes its videos into itself again
    shutil.rmtree(copy / "carphone-002-000000" / "samples")
    write_gallery([Experiment.open(str(tmp_path), "demo")])
    assert len(list((copy / "gallery.media").iterdir())) == 7 * 11
    monkeypatch.undo()
    assert write_gallery([Experiment.open(str(tmp_path), "demo")]).media_uri is None
    assert not (copy / "gallery.media").exists()


def test_an_object_store_gets_its_gallery(storage: Path) -> None:
    """fsspec's store in memory is one whose files are on no path."""
    store = Store("memory://gallery").below("demo")
    for path in (storage / "demo").rglob("*.*"):
        if path.is_file():
            store.write(path.relative_to(storage / "demo").as_posix(), path.read_bytes())
    store.remove("gallery.html")
    made = write_gallery([Experiment(store)])
    assert (made.uri, made.clips, made.damaged) == ("memory://gallery/demo/gallery.html", 8, [])
    (page,) = store.read(["gallery.html"]).values()
    assert page.count(b'id="media-') == 8 * 11


# -- what it says of experiments


def test_a_sweep_has_a_column_for_each_combination(tmp_path: Path, opened: Callable[[Path], webdriver.Chrome]) -> None:
    real = encoded(0, 0, tmp_path)
    folder = tmp_path / "sweep"
    for levels in (1, 2):
        for clip in ("bikes", "bikes-2"):
            trial = folder / f"{clip}--vae_levels-{levels}"
            write_config(trial)
            write_videos(trial, real, [distinct(real, levels)])
            write_result(trial, svfid_lite0=levels * 10.0)
    definition = {"config": PRESETS["demo"]().to_dict(), "sweep": ["vae_levels=1,2"], "n": 2, "corpus": "demo"}
    (folder / "sweep.json").write_text(json.dumps(definition | {"clips": ["bikes", "bikes-2"]}))
    assert gallery.main([str(folder)]) == 0
    chrome = opened(folder / "gallery.html")
    assert chrome.execute_script(NAMES) == ["bikes", "bikes-2"]
    columns = [
        column.get_attribute("aria-label") for column in card_of(chrome, "bikes").find_elements(By.CLASS_NAME, "column")
    ]
    assert columns == ["sweep vae_levels-1", "sweep vae_levels-2"]
    wait(chrome, "return [...document.querySelectorAll('.card video[src]')].some(v => v.currentTime > 0)")


def test_a_file_that_no_experiment_could_use_is_told_once(tmp_path: Path) -> None:
    failures = [("/videos/bad.mp4", "videos/bad.mp4: is a text file")]
    for name in ("demo", "other"):
        write_experiment(tmp_path / name, ["bikes"], failures=failures)
    assert gallery.main([str(tmp_path / "demo"), str(tmp_path / "other"), "--out", str(tmp_path / "both.html")]) == 0
    page = (tmp_path / "both.html").read_text()
    assert page.count("/videos/bad.mp4") == 1 and '<a href="#files">1 file that cannot be used</a>.' in page


def test_the_command_makes_the_same_models(tmp_path: Path) -> None:
    """Where submission.json does not have it: parsed again, it asks for what experiment.json holds."""
    given = ["--corpus", "my videos/", "--preset", "small", "--method", "singan", "--set", "iters_per_scale=7"]
    given += ["--set", "flip=false", "--storage", str(tmp_path), "--experiment", "mine", "--long", "--stride", "6"]
    asked = TrainRequest.from_args(train_corpus.parse(given))
    folder = write_experiment(tmp_path / "mine", [], corpus="my videos/", preset="small")
    (folder / "experiment.json").write_text(json.dumps(asked.settings.to_dict()))
    write_gallery([Experiment.open(str(tmp_path), "mine")])
    found = re.search(r"<pre[^>]*>(python [^<]*)</pre>", (folder / "gallery.html").read_text())
    assert found
    python, job, *words = shlex.split(html.unescape(found[1]))
    assert (python, job) == ("python", "jobs/train_corpus.py")
    again = TrainRequest.from_args(train_corpus.parse(words))
    assert again.settings.main == asked.settings.main
    assert (again.corpus, again.experiment) == (asked.corpus, asked.experiment)


def test_a_wheel_carries_the_parts_of_the_page() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    patterns = setup["options.package_data"]["jobs.reports"].split()
    parts = [path for path in (ROOT / "jobs" / "reports").iterdir() if path.is_file() and path.suffix != ".py"]
    assert len(parts) == 3 and all(any(path.match(pattern) for pattern in patterns) for path in parts)

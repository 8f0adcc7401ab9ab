"""jobs/study.py: blind and balanced pages, answers that survive, and scores against ones computed by hand."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import json
import os
import re
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import krippendorff
import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from infra import clip_folder
from infra.store import Store
from infra.tracking import runs
from infra.tracking.uri import default_uri
from jobs import study
from jobs.experiment.experiment import Experiment, Submission
from jobs.experiment.result import Result, write_result
from jobs.experiment.settings import ModelSettings
from jobs.tuning.study import lay_out
from jobs.user_study import answers as answers_module
from jobs.user_study import design
from jobs.user_study.answers import Answers, Participant, Rating
from jobs.user_study.design import CHECK, Question, slots, williams_row
from jobs.user_study.folder import Study, StudyClip, StudyMethod, open_study
from jobs.user_study.report import make_report, markdown, record
from jobs.user_study.scores import agreement, opinion
from jobs.user_study.server import make_app
from model.config import TrainConfig
from model.presets import demo, image_demo, of_method, paper
from pipeline import video
from tests.browser import DESKTOP, PHONE, browser, keep_screenshot
from tests.jobs.conftest import ROOT
from tests.ports import free_port
from tests.test_doors import listening

CLIPS = ("bikes-1b0f76-000000", "lake-5a0c11-000000", "sky-77aa01-000000")
WAIT_S = 20


# -- experiments, as the jobs leave them


def frames(hue: int, sample: int) -> np.ndarray:
    """A moving pattern, uint8 (8, 54, 96, 3): other colours for another hue, other waves for another sample."""
    t, y, x = np.mgrid[0:8, 0:54, 0:96]
    waves = np.sin((x + 3 * t + 17 * sample) / (6 + hue)) + np.sin((y + 11 * sample) / 9 + t / 2)
    colours = np.array([[70, 130, 190], [190, 120, 60], [90, 170, 80], [160, 90, 170]])[hue % 4]
    return np.clip(colours + 30 * waves[..., None], 0, 255).astype(np.uint8)


@functools.cache
def encoded(hue: int, sample: int, suffix: str) -> bytes:
    """The pattern as a file's content."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"pattern{suffix}"
        if suffix == ".png":
            Image.fromarray(frames(hue, sample)[0]).save(path)
        else:
            video.encode(frames(hue, sample), path, fps=8)
        return path.read_bytes()


def make_experiment(
    storage: Path, name: str, config: TrainConfig, clips: Sequence[str] = CLIPS, *, samples: int = 5
) -> Experiment:
    """An experiment whose clips are done, of images where the config is of images."""
    experiment = Experiment(Store(str(storage / name)))
    experiment.begin(ModelSettings(config), Submission("corpus", "demo", clips, ()))
    fill(storage / name, dict(zip(clips, clips)), samples, ".png" if config.dims == 2 else ".mp4")
    return experiment


def fill(base: Path, models: Mapping[str, str], samples: int = 5, suffix: str = ".mp4") -> None:
    """The folders of models that are done, by the clip of each."""
    for model, clip in models.items():
        folder, hue = base / model / clip_folder.SAMPLES, CLIPS.index(clip) if clip in CLIPS else 3
        folder.mkdir(parents=True)
        for name, sample in [("real", 0), ("reconstruction", 0), *((f"sample_{n:02d}", n + 1) for n in range(samples))]:
            content = encoded(hue, sample, suffix)
            if suffix == ".mp4":  # a box that players skip: no two files are the same
                note = f"{base.name} {model} {name}".encode()
                content += struct.pack(">I4s", 8 + len(note), b"free") + note
            (folder / f"{name}{suffix}").write_bytes(content)
        write_result(base / model, Result(model, "done"))


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods, three clips each."""
    storage = tmp_path_factory.mktemp("storage")
    make_experiment(storage, "demo-demo", demo())
    make_experiment(storage, "demo-demo-singan", of_method(demo(), "singan"))
    return storage


def run_study(*words: str | Path) -> int:
    return study.main([str(word) for word in words])


@pytest.fixture
def folder(storage: Path, tmp_path: Path) -> Path:
    """A study of both."""
    out = tmp_path / "study"
    assert run_study("make", storage / "demo-demo", storage / "demo-demo-singan", "--out", out) == 0
    return out


def a_study(clips: int, methods: Sequence[str], questions: int = 0, checks: int = 1, kind: str = "videos") -> Study:
    """Without files."""
    of_methods = {name: StudyMethod(name, "", {"videos": "", "images": ""}) for name in methods}
    files = {name: [f"{name}{number}.mp4" for number in range(5)] for name in methods}
    of_clips = {f"clip{number:02d}": StudyClip(kind, "original.mp4", files) for number in range(clips)}
    return Study("s", 3, questions or clips, checks, of_methods, of_clips)


@dataclass(frozen=True)
class App:
    """The pages of a study of three clips and two methods, in this process."""

    answers: Answers
    client: FlaskClient

    def begin(self) -> str:
        """The address of a new participant."""
        return self.client.post("/begin").headers["Location"].rpartition("/")[0]


@pytest.fixture
def app(tmp_path: Path) -> App:
    of = a_study(3, ["a", "b"])
    answers = Answers(tmp_path / "answers.sqlite", of)
    return App(answers, make_app(of, tmp_path, answers).test_client())


# -- a server, as people run it


@dataclass
class Server:
    process: subprocess.Popen[str]
    url: str
    port: int


@contextlib.contextmanager
def serving(folder: Path, port: int = 0) -> Iterator[Server]:
    """The server's process, from when it listens; killed at the end without a warning."""
    port = port or free_port()
    command = [sys.executable, str(ROOT / "jobs" / "study.py"), "serve", str(folder), "--port", str(port)]
    # SIGINT is ignored where the tests themselves run in the background of a shell.
    process = subprocess.Popen(
        command,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    try:
        printed = []
        for line in process.stdout:
            printed.append(line)
            if line.startswith("http://"):
                break
        else:
            pytest.fail("".join(printed))
        yield Server(process, line.strip(), port)
    finally:
        process.kill()
        process.communicate()


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


OPENER = urllib.request.build_opener(NoRedirect)


def fetch(url: str, **form: object) -> tuple[int, str, str]:
    """Status, headers and body as text; a POST where there is a form. Redirects are not followed."""
    data = urllib.parse.urlencode(form).encode() if form else None
    try:
        with OPENER.open(url, data, timeout=WAIT_S) as response:
            return response.status, str(response.headers), response.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, str(error.headers), error.read().decode(errors="replace")


def location(headers: str) -> str:
    found = re.search(r"(?im)^location: (\S+)", headers)
    assert found
    return found[1]


def begin(server: Server) -> str:
    """A new participant's first page, without its number: /p/TOKEN."""
    status, headers, _ = fetch(f"{server.url}/begin", agree=1)
    assert status == 303
    return server.url + location(headers).rpartition("/")[0]


def exported(folder: Path) -> list[dict[str, str]]:
    """Every answer, as the report exports it."""
    run_study("report", folder)
    return list(csv.DictReader(io.StringIO((folder / "answers.csv").read_text())))


# -- in a browser


def wait(chrome: webdriver.Chrome, script: str) -> None:
    WebDriverWait(chrome, WAIT_S).until(lambda one: one.execute_script(f"return {script}"))


def on_page(chrome: webdriver.Chrome, number: int, total: int) -> None:
    wait(chrome, f"document.title === 'Page {number} of {total}' && document.readyState === 'complete'")


def choose(chrome: webdriver.Chrome, name: str, value: int) -> None:
    chrome.find_element(By.CSS_SELECTOR, f"input[name={name}][value='{value}'] + span").click()


def checked(chrome: webdriver.Chrome) -> list[str]:
    return [one.get_attribute("value") for one in chrome.find_elements(By.CSS_SELECTOR, "input:checked")]


def press(chrome: webdriver.Chrome, *keys: str) -> None:
    webdriver.ActionChains(chrome).send_keys(*keys).perform()


@pytest.mark.slow
def test_a_participant_fills_in_the_study_while_the_server_is_killed(folder: Path) -> None:
    """Three questions and a check: by keys and clicks, with a reload, a change of mind, and kill -9 in the middle."""
    with browser(DESKTOP) as chrome, contextlib.ExitStack() as servers:
        server = servers.enter_context(serving(folder))
        chrome.get(server.url)
        assert "Your ratings, and the time of each" in chrome.find_element(By.TAG_NAME, "main").text
        keep_screenshot(chrome, "study-consent")
        chrome.find_element(By.TAG_NAME, "button").click()
        on_page(chrome, 1, 4)
        playing = "document.querySelectorAll('video').length === 6 && [...document.querySelectorAll('video')]"
        wait(chrome, f"{playing}.every(v => v.videoWidth === 96 && (v.currentTime > 0 || v.ended))")
        keep_screenshot(chrome, "study-desktop")
        press(chrome, "4", "2")
        assert checked(chrome) == ["4", "2"]
        press(chrome, Keys.ENTER)
        on_page(chrome, 2, 4)
        chrome.refresh()  # loses nothing and doubles nothing
        on_page(chrome, 2, 4)
        choose(chrome, "realism", 5)
        choose(chrome, "diversity", 1)
        chrome.find_element(By.XPATH, "//button[text()='Next']").click()
        on_page(chrome, 3, 4)

        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        servers.enter_context(serving(folder, server.port))
        choose(chrome, "realism", 3)
        choose(chrome, "diversity", 3)
        press(chrome, Keys.ENTER)
        on_page(chrome, 4, 4)
        chrome.back()
        on_page(chrome, 3, 4)
        chrome.find_element(By.LINK_TEXT, "Back").click()
        on_page(chrome, 2, 4)
        assert checked(chrome) == ["5", "1"]
        choose(chrome, "realism", 4)
        press(chrome, Keys.ENTER)
        on_page(chrome, 3, 4)
        assert checked(chrome) == ["3", "3"]
        chrome.get(server.url)  # who opens the first page again is known
        chrome.find_element(By.LINK_TEXT, "Go on where I stopped").click()
        on_page(chrome, 4, 4)
        press(chrome, "1", "1", Keys.ENTER)
        wait(chrome, "document.title === 'Thank you'")
        code = chrome.find_element(By.CLASS_NAME, "code").text
        assert not [line for line in chrome.get_log("browser") if line["level"] == "SEVERE"]
    rows = exported(folder)
    given = {row["page"]: (row["realism"], row["diversity"]) for row in rows if row["counts"] == "1"}
    assert given == {"1": ("4", "2"), "2": ("4", "1"), "3": ("3", "3"), "4": ("1", "1")}
    replaced = [(row["page"], row["realism"]) for row in rows if row["counts"] == "0"]
    assert replaced == [("2", "5")]
    assert code in (folder / "codes.csv").read_text()


@pytest.mark.slow
def test_a_phone_shows_everything_without_scrolling_sideways(folder: Path) -> None:
    with browser(PHONE) as chrome, serving(folder) as server:
        chrome.get(server.url)
        wide = "document.documentElement.scrollWidth"
        assert chrome.execute_script(f"return {wide}") == PHONE[0]
        chrome.find_element(By.TAG_NAME, "button").click()
        on_page(chrome, 1, 4)
        press(chrome, "3", "3", Keys.ENTER)
        on_page(chrome, 2, 4)  # which has a way back too
        wait(chrome, "[...document.querySelectorAll('video')].every(v => v.videoWidth && v.currentTime > 0)")
        assert chrome.execute_script(f"return {wide}") == PHONE[0]
        choose(chrome, "realism", 4)
        keep_screenshot(chrome, "study-phone")
        tall = chrome.execute_script("return document.querySelector('nav .button').getBoundingClientRect().bottom")
        assert tall <= PHONE[1]
        chrome.find_element(By.XPATH, "//button[text()='Next']").click()  # the browser asks for the other answer
        assert chrome.title == "Page 2 of 4"


# -- what the pages tell


def test_nothing_tells_the_method(folder: Path, storage: Path) -> None:
    """Neither names nor the files' dates; and yet the files are those of the method that was asked about."""
    told, seen = "", []
    with serving(folder) as server:
        told += str(fetch(server.url))
        for _ in range(2):  # the participants of both slots: every pair of clip and method, and two checks
            me = begin(server)
            for page in range(1, 5):
                status, headers, body = fetch(f"{me}/{page}")
                assert status == 200
                told += headers + body
                names = re.findall(r'src="(/media/[^"]+)"', body)
                assert len(names) == 6
                seen.append([fetch(server.url + name)[1] for name in names])
                told += "".join(seen[-1]) + " ".join(names)
                assert fetch(f"{me}/{page}", realism=5, diversity=1)[0] == 303
            told += str(fetch(f"{me}/thanks"))
        assert fetch(f"{server.url}/media/..%2Fstudy.json")[0] == 404
        assert fetch(f"{server.url}/study.json")[0] == 404
    words = {"singan", "hpvaegan", "demo", "sample_", "real.mp4", *CLIPS, *(clip.split("-")[0] for clip in CLIPS)}
    assert not [word for word in words if word in told.lower().replace("how real", "")]
    assert set(re.findall(r"Last-Modified: (.*)", told)) == {"Thu, 01 Jan 1970 00:00:00 GMT"}
    assert "ETag" not in told and "Server:" not in told

    kept = open_study(folder)
    experiments = {"hpvaegan": "demo-demo", "singan": "demo-demo-singan"}
    for clip, of in kept.clips.items():
        original = (storage / "demo-demo" / clip / "samples" / "real.mp4").read_bytes()
        assert (folder / "media" / of.original).read_bytes() == original
        for method, samples in of.samples.items():
            source = storage / experiments[method] / clip / "samples"
            for number, sample in enumerate(samples):
                expected = (source / f"sample_{number:02d}.mp4").read_bytes()
                assert (folder / "media" / sample).read_bytes() == expected


@pytest.mark.parametrize(
    "form",
    [
        {"realism": 0, "diversity": 3},
        {"realism": 3, "diversity": 6},
        {"realism": "x", "diversity": 3},
        {"realism": 2.5, "diversity": 3},
        {"realism": 3},
        {"realism": 3, "diversity": "9" * 50},
    ],
)
def test_an_answer_that_is_none_is_refused_and_not_kept(form: dict[str, object], app: App) -> None:
    me = app.begin()
    response = app.client.post(f"{me}/1", data=form)
    assert response.status_code == 400 and "a number from 1 to 5" in response.text
    (person,) = app.answers.participants()
    assert not person.answers


def test_addresses_that_lead_nowhere(app: App) -> None:
    me = app.begin()
    assert app.client.get("/p/nobody/1").status_code == 404
    assert "no participant of this study" in app.client.post("/p/nobody/1", data={"realism": 3, "diversity": 3}).text
    assert app.client.get("/p/nobody/thanks").status_code == 404
    for number in (0, 5, 10**9):
        assert app.client.get(f"{me}/{number}").status_code == 404
    ahead = app.client.post(f"{me}/2", data={"realism": 3, "diversity": 3})
    assert ahead.status_code == 400 and "no answer yet" in ahead.text
    for early in ("/3", "/thanks", ""):
        assert app.client.get(me + early).headers["Location"] == f"{me}/1"
    assert app.client.post(f"{me}/1", data={"realism": "1" * 5000}).status_code == 413
    assert not app.answers.participants()[0].answers


def test_the_same_answer_sent_twice_is_one(app: App) -> None:
    me = app.begin()
    for _ in range(2):
        assert app.client.post(f"{me}/1", data={"realism": 3, "diversity": 2}).headers["Location"] == f"{me}/2"
    assert len(app.answers.participants()[0].answers) == 1


def test_an_answer_that_cannot_be_kept_is_not_taken_for_kept(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    me = app.begin()

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Answers, "record", full)
    response = app.client.post(f"{me}/1", data={"realism": 3, "diversity": 2})
    assert response.status_code == 503 and "could not be kept" in response.text


def test_many_participants_at_once(folder: Path) -> None:
    """Twelve at the same time, on a real server: every answer is there once, and the slots are even."""
    with serving(folder) as server, ThreadPoolExecutor(12) as pool:

        def take_part(number: int) -> None:
            me = begin(server)
            for page in range(1, 5):
                assert fetch(f"{me}/{page}", realism=1 + number % 5, diversity=1 + page % 5)[0] == 303

        list(pool.map(take_part, range(12)))
    rows = exported(folder)
    assert len(rows) == 48 and all(row["counts"] == "1" for row in rows)
    asked = Counter((row["clip"], row["method"]) for row in rows if row["method"] != "attention check")
    assert len(asked) == 6 and set(asked.values()) == {6}


# -- who is asked what


@pytest.mark.parametrize(
    ("clips", "methods", "per_person"),
    [(25, 3, 25), (3, 2, 3), (4, 2, 4), (5, 3, 4), (6, 4, 9), (7, 3, 21), (2, 5, 1)],
)
def test_every_pair_of_clip_and_method_is_asked_equally_often(clips: int, methods: int, per_person: int) -> None:
    of = a_study(clips, [f"m{number}" for number in range(methods)], per_person)
    asked: Counter[Question] = Counter()
    for slot in range(slots(of)):
        own = design.questions(of, slot, 0)
        checks = [place for place, question in enumerate(own) if question.method == CHECK]
        assert len(own) == per_person + 1 and len(checks) == 1 and checks[0] > 0
        own = [question for question in own if question.method != CHECK]
        assert len(set(own)) == per_person
        if per_person <= clips:  # nobody sees a clip twice, and methods come in turn
            assert len({question.clip for question in own}) == per_person
            counts = Counter(question.method for question in own)
            assert max(counts.values()) - min(counts[method] for method in of.methods) <= 2
        asked.update(own)
    assert len(asked) == clips * methods and len(set(asked.values())) == 1
    if per_person == clips:
        assert slots(of) == methods


def test_in_one_slot_each_question_stands_at_each_place_once() -> None:
    of = a_study(6, ["a", "b"], checks=0)
    orders = [design.questions(of, 1, turn) for turn in range(6)]
    for place in range(6):
        assert len({order[place] for order in orders}) == 6
    assert design.questions(of, 1, 0) == orders[0] != sorted(orders[0], key=lambda question: question.clip)


@pytest.mark.parametrize("n", [1, 2, 5, 6, 7, 24, 25])
def test_a_williams_square_balances_places_and_neighbours(n: int) -> None:
    """Places over n rows; neighbours over n rows of an even n, and over 2n of an odd one."""
    turns = n if n % 2 == 0 else 2 * n
    rows = [williams_row(n, turn) for turn in range(turns)]
    for some in (rows[:n], rows[-n:]):
        assert all(sorted(column) == list(range(n)) for column in zip(*some))
    follows = Counter(pair for row in rows for pair in pairwise(row))
    assert len(follows) == n * (n - 1) and set(follows.values()) <= {turns // n}


def test_attention_checks_are_spread() -> None:
    own = design.questions(a_study(25, ["a", "b", "c"], checks=5), 0, 0)
    places = [place for place, question in enumerate(own) if question.method == CHECK]
    assert len(own) == 30 and len(places) == 5
    assert [(place - number - 1) // 5 for number, place in enumerate(places)] == [0, 1, 2, 3, 4]
    assert len({own[place].clip for place in places}) == 5


def test_who_stopped_long_ago_gives_the_questions_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of = a_study(4, ["a", "b", "c"], checks=0)
    answers = Answers(tmp_path / "answers.sqlite", of)

    def asked(person: Participant) -> set[Question]:
        return set(person.questions)

    def finish(person: Participant) -> None:
        for place in range(4):
            answers.record(person, place, Rating(3, 3))

    people = [answers.begin() for _ in range(3)]
    assert len(set().union(*map(asked, people))) == 12  # one after the other, none of the same slot
    finish(people[0])
    finish(people[2])
    assert asked(answers.begin()) == asked(people[0])  # the second is still at it
    monkeypatch.setattr(answers_module, "AWAY_S", -1.0)
    late = answers.begin()
    assert asked(late) == asked(people[1]) and late.questions != people[1].questions


# -- what comes of it


def rated(number: int, *given: tuple[Question, int, int]) -> Participant:
    """A participant who gave these answers, to all questions."""
    asked, realism, diversity = zip(*given)
    answers = [answers_module.Answer(place, Rating(*both), 0.0) for place, both in enumerate(zip(realism, diversity))]
    return Participant(number, f"token{number}", f"code{number}", asked, tuple(answers))


ATTENTIVE = (Question("clip00", CHECK), 5, 1)


def test_scores_are_those_computed_by_hand() -> None:
    """One participant is not attentive, one has not finished: their answers do not count."""
    of = a_study(2, ["hpvaegan", "singan"])
    one_ours, two_ours = Question("clip00", "hpvaegan"), Question("clip01", "hpvaegan")
    one_rival, two_rival = Question("clip00", "singan"), Question("clip01", "singan")
    people = [
        rated(1, (one_ours, 5, 4), ATTENTIVE, (two_rival, 2, 1)),
        rated(2, (one_rival, 3, 2), (two_ours, 4, 4), ATTENTIVE),
        rated(3, (one_ours, 4, 3), (two_rival, 3, 3), (Question("clip01", CHECK), 4, 2)),
        rated(4, (one_ours, 1, 1), (two_rival, 5, 5), (Question("clip01", CHECK), 5, 3)),
    ]
    stopped = rated(5, (one_ours, 1, 1))
    people.append(Participant(5, "t", "c", (*stopped.questions, two_rival), stopped.answers))
    found = record(make_report(of, people))
    assert found["participants"] == {"counted": 3, "inattentive": 1, "unfinished": 1} and found["answers"] == 6
    methods = found["kinds"]["videos"]["methods"]
    assert methods["hpvaegan"]["realism"]["mean"] == pytest.approx((5 + 4 + 4) / 3)
    assert methods["hpvaegan"]["diversity"]["mean"] == pytest.approx((4 + 4 + 3) / 3)
    assert methods["singan"]["realism"]["mean"] == pytest.approx((2 + 3 + 3) / 3)
    assert methods["singan"]["diversity"]["mean"] == pytest.approx((1 + 2 + 3) / 3)
    assert methods["singan"]["realism"]["ratings"] == methods["singan"]["realism"]["participants"] == 3
    low, high = methods["singan"]["diversity"]["interval"]
    assert (low, high) == (1.0, 3.0)  # 1/27 of all draws of three are 1, 1, 1: more than 2.5 %
    page = markdown(make_report(of, people))
    assert "3 participants, 6 answers" in page and "1 who failed an attention check" in page
    told = [
        "- No figure of the paper stands beside these:",
        "  - 3 participants (paper: 50)",
        "  - 2 videos (paper: 25)",
    ]
    assert "\n".join(told) in page


def test_agreement_is_krippendorff_s_own_example() -> None:
    """Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), example C: ordinal 0.815."""
    table = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
        [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
    ]
    ratings = {
        (person, (f"clip{unit}", "m")): rating
        for person, row in enumerate(table)
        for unit, rating in enumerate(row)
        if rating
    }
    assert agreement(ratings) == pytest.approx(0.815, abs=5e-4)


def test_agreement_is_that_of_another_implementation() -> None:
    draw = np.random.default_rng(0)
    for _ in range(20):
        table = draw.integers(1, 6, (6, 9)).astype(float)
        table[draw.random(table.shape) < 0.4] = np.nan
        people, units = np.nonzero(~np.isnan(table))
        ratings = {(int(p), (f"clip{u}", "m")): int(table[p, u]) for p, u in zip(people, units, strict=True)}
        pairable = table[:, np.sum(~np.isnan(table), axis=0) > 1]
        theirs = krippendorff.alpha(pairable, level_of_measurement="ordinal", value_domain=[1, 2, 3, 4, 5])
        assert agreement(ratings) == pytest.approx(theirs, abs=1e-9)


def test_agreement_is_not_defined_without_pairs_or_differences() -> None:
    unit, other = ("clip", "m"), ("clip", "n")
    assert agreement({(1, unit): 3, (2, other): 4}) is None
    assert agreement({(1, unit): 3, (2, unit): 3, (3, other): 5}) is None
    assert agreement({(1, unit): 3, (2, unit): 3, (1, other): 5, (2, other): 5}) == 1.0


def test_the_interval_is_of_participants_and_shrinks_with_their_number() -> None:
    """Against the normal interval of the participants' means, which it tends to; not against that of all ratings."""
    draw = np.random.default_rng(0)
    widths = []
    for people in (20, 80, 320):
        leanings = draw.integers(2, 5, people)  # a participant's ratings are all alike
        ratings = {(person, (f"c{n}", "m")): int(leanings[person]) for person in range(people) for n in range(10)}
        found = opinion(ratings)
        assert found.interval is not None and found.mean == pytest.approx(leanings.mean())
        low, high = found.interval
        assert low < found.mean < high
        assert high - low == pytest.approx(2 * 1.96 * leanings.std() / people**0.5, rel=0.1)
        widths.append(high - low)
    assert widths[0] > widths[1] > widths[2]
    assert opinion({(1, ("c", "m")): 4, (1, ("d", "m")): 5}).interval is None
    assert opinion({(1, ("c", "m")): 4, (2, ("c", "m")): 4}).interval == (4.0, 4.0)


def test_the_papers_table_stands_beside_only_where_nothing_differs() -> None:
    of = a_study(25, ["hpvaegan", "singan"])
    people = [
        rated(number, *[(Question(clip, method), 4, 3) for clip in of.clips for method in of.methods])
        for number in range(50)
    ]
    page = markdown(make_report(of, people))
    ours, rival = ([cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines()
                   if line.startswith(("| hpvaegan", "| singan")))  # fmt: skip
    assert ours == ["hpvaegan", "1250", "4.00", "4.00 to 4.00", "3.00", "3.00 to 3.00", "4.1", "3.8"]
    assert rival[-2:] == ["3.6", "2.9"] and "No figure of the paper" not in page
    of.methods["singan"].differs["videos"] = "M = 1 VAE level (paper: 3)"  # type: ignore[index]
    page = markdown(make_report(of, people))
    assert "- No figure of the paper stands beside these:\n  - singan with M = 1 VAE level (paper: 3)\n" in page
    assert "3.6" not in page
    both = [f"setting_{number} {number} (paper: 0)" for number in range(9)]
    for name, own in (("singan", "lr 1 (paper: 2)"), ("hpvaegan", "lr 3 (paper: 2)")):
        of.methods[name].differs["videos"] = "; ".join([own, *both])  # type: ignore[index]
    page = markdown(make_report(of, people))
    told = page.partition("beside these:\n")[2].partition("\n\n")[0].splitlines()
    assert max(map(len, told)) <= 80 and all(" ".join(told).count(setting) == 1 for setting in both)
    assert {"  - singan with lr 1 (paper: 2)", "  - hpvaegan with lr 3 (paper: 2)"} <= {*told}
    (shared,) = [line for line in told if f" with {both[0]};" in line]
    assert "hpvaegan" in shared and "singan" in shared
    images = a_study(25, ["hpvaegan", "consingan"], kind="images")
    page = markdown(make_report(images, [rated(n, *[(Question(c, "consingan"), 2, 2) for c in images.clips])
                                         for n in range(50)]))  # fmt: skip
    assert re.search(r"consingan \|.* 2\.5 \| +1\.8 \|\n", page) and "for images" in page


def answer_all(folder: Path, people: int) -> None:
    """Attentive participants, who rate singan 2 and 1, the other 5 and 4, without pages."""
    answers = Answers(folder / "answers.sqlite", open_study(folder))
    for _ in range(people):
        person = answers.begin()
        for place, question in enumerate(person.questions):
            both = {"singan": (2, 1), CHECK: (5, 1)}.get(question.method, (5, 4))
            answers.record(person, place, Rating(*both))


def test_the_report_goes_to_the_runs_of_the_experiments(
    folder: Path, storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the experiments have moved; the same report again adds no point."""
    answer_all(folder, 4)
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("demo-demo", "demo-demo-singan"):
        (moved / name).symlink_to(storage / name)
    parents = [runs.open_parent(default_uri(moved), name, moved, {}) for name in ("demo-demo", "demo-demo-singan")]
    for _ in range(2):
        assert run_study("report", folder, "--storage", moved, "--csv", tmp_path / "all.csv") == 0
    assert capsys.readouterr().out.count("in MLflow: http") == 4
    for parent, (realism, diversity) in zip(parents, ((5.0, 4.0), (2.0, 1.0))):
        client = parent.client()
        found = client.get_run(parent.run_id).data.metrics
        assert found["study_mos_realism"] == found["study_mos_realism_low"] == realism
        assert found["study_mos_diversity"] == found["study_mos_diversity_high"] == diversity
        assert found["study_participants"] == 4 and found["study_alpha_realism"] == 1.0
        assert len(client.get_metric_history(parent.run_id, "study_mos_realism")) == 1
        files = {file.path for file in client.list_artifacts(parent.run_id, "study")}
        assert files == {"study/report.md", "study/report.json"}
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 17
    assert "token" not in (tmp_path / "all.csv").read_text()
    assert len((folder / "codes.csv").read_text().splitlines()) == 5


# -- other material


def test_a_sweep_with_rivals_holds_several_methods(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its folder, or that of the material alone, elsewhere."""
    sweep = Experiment(Store(str(tmp_path / "demo-vae_levels")))
    clips = CLIPS[:2]
    fields = {"config": demo().to_dict(), "sweep": ["vae_levels=1"], "n": 5, "corpus": "demo", "clips": clips}
    sweep.begin_sweep(fields)
    trials = {}
    for number, values in enumerate([{"vae_levels": "1"}, {"method": "singan"}]):
        names = {f"{clip}--{number}": clip for clip in clips}
        fill(tmp_path / sweep.name, names)
        for name, clip in names.items():
            trials[name] = clip, values
            (tmp_path / sweep.name / name / "config.json").write_text(json.dumps({"tags": {"clip": clip, **values}}))
    assert "2 clips, 5 samples of each of 2 methods" in lay_out(sweep, trials, sweep.results(trials))
    assert run_study("make", sweep.uri, "--out", tmp_path / "one") == 0
    found = open_study(tmp_path / "one")
    assert sorted(found.methods) == ["hpvaegan--vae_levels-1", "singan"] and sorted(found.clips) == sorted(clips)
    assert "M = 1 VAE level (" in found.methods["hpvaegan--vae_levels-1"].differs["videos"]
    answer_all(tmp_path / "one", 2)
    parent = runs.open_parent(default_uri(tmp_path), sweep.name, tmp_path, {})
    assert run_study("report", tmp_path / "one") == 0
    metrics = parent.client().get_run(parent.run_id).data.metrics
    assert metrics["study_mos_realism/singan"] == 2.0
    assert metrics["study_mos_realism/hpvaegan--vae_levels-1"] == 5.0
    (tmp_path / "elsewhere").mkdir()
    material = (tmp_path / sweep.name / "evaluation" / "study").rename(tmp_path / "elsewhere" / "study")
    assert run_study("make", material, "--out", tmp_path / "two") == 0
    alone = open_study(tmp_path / "two")
    assert alone.clips == found.clips
    assert alone.methods["singan"] == StudyMethod(
        "singan", "", dict.fromkeys(("videos", "images"), "settings that are not known")
    )
    answer_all(tmp_path / "two", 2)
    assert run_study("report", tmp_path / "two") == 0
    assert "the experiment of" in capsys.readouterr().out


def test_images_and_two_experiments_of_one_method(tmp_path: Path) -> None:
    for name, method in (("photos-a", "hpvaegan"), ("photos-b", "hpvaegan"), ("photos-c", "singan")):
        config = image_demo() if method == "hpvaegan" else of_method(image_demo(), method)
        make_experiment(tmp_path, name, config, ["photo"])
    given = [tmp_path / f"photos-{letter}" for letter in "abc"]
    out = tmp_path / "study"
    assert run_study("make", *given, "--out", out, "--questions", "3", "--checks", "0") == 0
    found = open_study(out)
    assert list(found.methods) == ["hpvaegan (photos-a)", "hpvaegan (photos-b)", "singan"]
    answers = Answers(out / "answers.sqlite", found)
    client = make_app(found, out, answers).test_client()
    page = client.get(client.post("/begin").headers["Location"]).text
    assert page.count("<img ") == 6 and "<video" not in page
    assert "How real does the generated image look?" in page and "How different do the generated images look?" in page
    image = client.get(re.findall(r'src="(/media/[^"]+)"', page)[0])
    assert image.mimetype == "image/png" and image.status_code == 200


def test_experiments_in_an_object_store_make_a_study(storage: Path, tmp_path: Path) -> None:
    """fsspec's store in memory is one whose files are on no path."""
    for path in storage.rglob("*.*"):
        if path.is_file():
            Store("memory://study").write(path.relative_to(storage).as_posix(), path.read_bytes())
    given = [f"memory://study/{name}" for name in ("demo-demo", "demo-demo-singan")]
    assert run_study("make", *given, "--out", tmp_path / "study") == 0
    made = open_study(tmp_path / "study")
    assert list(made.clips) == sorted(CLIPS) and [of.experiment for of in made.methods.values()] == given
    original = (tmp_path / "study" / "media" / made.clips[CLIPS[0]].original).read_bytes()
    assert original == (storage / "demo-demo" / CLIPS[0] / "samples" / "real.mp4").read_bytes()


def test_a_part_of_a_video_can_be_asked_for(folder: Path) -> None:
    """As some browsers do before they play one."""
    of = open_study(folder)
    client = make_app(of, folder, Answers(folder / "answers.sqlite", of)).test_client()
    some = client.get("/media/0001.mp4", headers={"Range": "bytes=0-9"})
    assert some.status_code == 206 and some.data == (folder / "media" / "0001.mp4").read_bytes()[:10]


def test_a_clip_that_not_every_method_finished_is_left_out(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_experiment(tmp_path, "few", of_method(demo(), "consingan"), CLIPS[:2])
    write_result(tmp_path / "few" / CLIPS[0], Result(CLIPS[0], "failed", "loss is nan"))
    small = tmp_path / "few" / CLIPS[1] / "samples" / "sample_00.mp4"
    video.encode(frames(0, 0)[:, ::2, ::2], small)
    assert run_study("make", storage / "demo-demo", tmp_path / "few", "--out", tmp_path / "study") == 1
    printed = capsys.readouterr().out
    assert f"left out  {CLIPS[0]}: of consingan is not finished" in printed
    assert f"left out  {CLIPS[2]}: of consingan is not there" in printed
    assert f"{CLIPS[1]}: samples of consingan are of 28×48 px (H×W), and the original is of 54×96" in printed
    assert list(open_study(tmp_path / "study").clips) == [CLIPS[1]]


def test_what_is_not_the_papers_is_told_of_each_method(tmp_path: Path) -> None:
    """SinGAN by the paper's settings is the paper's SinGAN."""
    settings = {"ours": paper(), "rival": of_method(paper(), "singan"), "small": of_method(demo(), "consingan")}
    for name, config in settings.items():
        make_experiment(tmp_path, name, config, CLIPS[:1])
    assert run_study("make", *[tmp_path / name for name in settings], "--out", tmp_path / "study") == 0
    of = open_study(tmp_path / "study").methods
    assert (of["hpvaegan"].differs["videos"], of["singan"].differs["videos"]) == ("", "")
    assert "scales from 12 to 54 px" in of["consingan"].differs["videos"]


# -- bad input


@pytest.mark.parametrize(
    ("given", "options", "words"),
    [
        (["demo-demo"], [], "holds one method, and a study compares several; give one more experiment"),
        (["demo-demo", "demo-demo"], [], "is given twice; give each method once"),
        (["demo-demo", "nothing"], [], "nothing: no experiment of train_corpus.py or tune.py; give the folder of one"),
        (["demo-demo", "other"], [], "no clip that all of hpvaegan, singan finished"),
        (["demo-demo", "torn"], [], f"torn/{CLIPS[0]}/samples/sample_03.mp4: cannot be read ("),
        (["demo-demo", "short"], [], "has 4 samples, and 5 are shown; train it with --n 5 or more"),
        (["demo-demo", "demo-demo-singan"], ["--questions", "7"], "--questions 7: from 1 to 6"),
        (["demo-demo", "demo-demo-singan"], ["--checks", "4"], "--checks 4: from 0 to 3"),
        (["demo-demo", "demo-demo-singan"], ["--seed", "-1"], "--seed -1: 0 or more"),
        (["demo-demo", "demo-demo-singan"], ["--out", "demo-demo"], "holds other files already; give another --out"),
    ],
)
def test_a_study_that_cannot_be_made_is_one_line(
    given: list[str],
    options: list[str],
    words: str,
    storage: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("demo-demo", "demo-demo-singan"):
        (tmp_path / name).symlink_to(storage / name)
    make_experiment(tmp_path, "other", of_method(demo(), "singan"), [])
    if "short" in given:
        make_experiment(tmp_path, "short", of_method(demo(), "singan"), samples=4)
    if "torn" in given:
        make_experiment(tmp_path, "torn", of_method(demo(), "singan"))
        sample = tmp_path / "torn" / CLIPS[0] / "samples" / "sample_03.mp4"
        sample.write_bytes(sample.read_bytes()[:100])
    assert run_study("make", *given, "--out", "study", *options) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert words in line and ".study." not in line  # the folder that the study is made in is gone
    assert not (tmp_path / "study").exists() and not list(tmp_path.glob(".*"))


def test_a_folder_that_holds_a_study_is_not_overwritten(
    folder: Path, storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run_study("make", storage / "demo-demo", storage / "demo-demo-singan", "--out", folder) == 2
    assert "holds a study already; give another --out" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["serve", "report"])
@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        (
            "study.json",
            None,
            "holds no study (No such file or directory: study.json); give the --out of hp-vae-gan study make",
        ),
        ("study.json", b"{}", "study.json: cannot be read"),
        (
            "answers.sqlite",
            b"no database" * 1000,
            "answers.sqlite: cannot be used (file is not a database); move it away",
        ),
    ],
)
def test_a_damaged_folder_is_one_line(
    command: str,
    file: str,
    content: bytes | None,
    words: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["hp-vae-gan"])
    capsys.readouterr()
    (folder / file).unlink(missing_ok=True)
    if content is not None:
        (folder / file).write_bytes(content)
    assert run_study(command, folder) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert words in line


def test_answers_damaged_in_the_middle_are_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer_all(folder, 6)
    file = folder / "answers.sqlite"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(file.read_bytes())
    content[4096:] = bytes(len(content) - 4096)
    file.write_bytes(content)
    capsys.readouterr()
    assert run_study("report", folder) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert "answers.sqlite: " in line and "bring back a copy" in line


def test_a_report_before_anybody_has_finished(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_study("report", folder) == 2
    assert "nobody has answered; run python jobs/study.py serve" in capsys.readouterr().out.splitlines()[-1]
    answers = Answers(folder / "answers.sqlite", open_study(folder))
    answers.record(answers.begin(), 0, Rating(4, 4))
    assert run_study("report", folder) == 2
    assert "no participant's answers count yet" in capsys.readouterr().out.splitlines()[-1]
    assert len((folder / "answers.csv").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("host", "port", "words"),
    [
        ("127.0.0.1", "taken", "cannot be listened on (Address already in use); give another --port or --host"),
        ("127.0.0.1", "70000", "--port 70000: from 1 to 65535"),
        ("256.0.0.1", "8000", "256.0.0.1:8000: cannot be listened on ("),
    ],
)
def test_an_address_that_cannot_be_listened_on_is_one_line(
    host: str, port: str, words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        capsys.readouterr()
        number = str(taken.getsockname()[1]) if port == "taken" else port
        assert run_study("serve", folder, "--host", host, "--port", number) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert words in line


def test_it_listens_to_this_machine_only_and_ctrl_c_ends_it(folder: Path) -> None:
    with serving(folder) as server:
        addresses = {address for _, address in listening(server.process.pid)}
        server.process.send_signal(signal.SIGINT)
        rest, _ = server.process.communicate(timeout=WAIT_S)
    assert addresses == {"127.0.0.1"}
    assert server.process.returncode == 130 and rest.splitlines() == ["stopped; every answer that was sent is kept"]

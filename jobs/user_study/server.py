"""The pages of a study, for many participants at once. Which sample is of which method never leaves the server.

    /                   what the study is, and consent
    /p/TOKEN            where its participant stopped
    /p/TOKEN/3          a question; its POST keeps the answer and leads to the next one
    /p/TOKEN/thanks     the completion code
    /media/0017.mp4     a clip or a sample

The token is all that identifies a participant. A cookie remembers it, so that who opens the first page again can go on.
"""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path
from typing import Any

from flask import (
    Flask,
    Response,
    abort,
    make_response,
    redirect,
    render_template,
    request,
    send_from_directory,
    url_for,
)
from rich.console import Console
from waitress.server import create_server
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from infra.errors import UsageError
from jobs.tuning.study import SAMPLES
from jobs.user_study.answers import SCALE, Answers, Participant, Rating
from jobs.user_study.design import CHECK
from jobs.user_study.folder import ANSWERS, MEDIA, Study, open_study

COOKIE, COOKIE_S = "participant", 30 * 24 * 3600
SECONDS_A_QUESTION = 25  # told on the first page
MEDIA_S = 24 * 3600  # that a browser keeps a file
THREADS, LAST_PORT = 16, 65535
FORM_BYTES = 4096
POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; form-action 'self'; base-uri 'none'"
# The paper's (§4.2), of a video or an image. What stands at the ends of the scale is ours.
REALISM, DIVERSITY = "How real does the generated {thing} look?", "How different do the generated {things} look?"
ENDS = {"realism": ("not real at all", "fully real"), "diversity": ("all the same", "all very different")}
THINGS = {"videos": ("video", "videos"), "images": ("image", "images")}
UNKNOWN = "This address belongs to no participant of this study. Begin at the first page."


def serve(folder: Path, host: str, port: int, console: Console) -> None:
    """Serve until Ctrl-C, which it raises. Raises UsageError for a folder or an address that cannot be used."""
    study = open_study(folder)
    answers = Answers(folder / ANSWERS, study)
    server = _listen(make_app(study, folder, answers), host, port)
    people = answers.participants()
    finished = sum(person.finished for person in people)
    console.print(f"{study.name}: {len(people)} began so far, {finished} finished; Ctrl-C ends the server")
    if host not in ("127.0.0.1", "localhost", "::1"):
        console.print("warning: everyone who reaches this address can take part, and nothing is encrypted")
    print(f"http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    server.run()
    raise KeyboardInterrupt  # which waitress took for the end


def _listen(app: Flask, host: str, port: int) -> Any:
    """A server whose `run` answers until the process ends; it listens already."""
    if not 1 <= port <= LAST_PORT:
        raise UsageError(f"--port {port}: from 1 to {LAST_PORT}")
    try:
        return create_server(app, host=host, port=port, threads=THREADS, ident=None)
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
        raise UsageError(f"{host}:{port}: cannot be listened on ({cause}); give another --port or --host") from error


def make_app(study: Study, folder: Path, answers: Answers) -> Flask:
    """The WSGI application."""
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = FORM_BYTES
    shown: dict[str, Any] = {"scale": SCALE, "total": study.questions + study.checks}

    def page(name: str, status: int = 200, **values: Any) -> Response:
        response = make_response(render_template(name, **shown, **values), status)
        response.headers["Cache-Control"] = "no-store"  # going back asks for what is answered
        return response

    def known(token: str, number: int = 1) -> Participant:
        """Who has the token, and a question of that number."""
        participant = answers.participant(token) or abort(404, UNKNOWN)
        if not 1 <= number <= len(participant.questions):
            abort(404, f"There is no question {number}.")
        return participant

    @app.get("/")
    def welcome() -> Response:
        token = request.cookies.get(COOKIE, "")
        before = answers.participant(token) if token else None
        return page("welcome.html", before=before, words=_words(study.kinds), minutes=_minutes(shown["total"]))

    @app.post("/begin")
    def begin() -> AnyResponse:
        participant = answers.begin()
        response = redirect(url_for("question", token=participant.token, number=1), 303)
        response.set_cookie(COOKIE, participant.token, max_age=COOKIE_S, httponly=True, samesite="Lax")
        return response

    @app.get("/p/<token>")
    def resume(token: str) -> AnyResponse:
        return _onwards(known(token))

    @app.get("/p/<token>/<int:number>")
    def question(token: str, number: int) -> AnyResponse:
        participant = known(token, number)
        if number - 1 > participant.next_place:
            return _onwards(participant)
        return _question(participant, number - 1)

    def _question(participant: Participant, place: int, problem: str = "") -> Response:
        asked = participant.questions[place]
        clip = study.clips[asked.clip]
        samples = [clip.original] * SAMPLES if asked.method == CHECK else clip.samples[asked.method]
        thing, things = THINGS[clip.kind]
        return page(
            "question.html",
            400 if problem else 200,
            problem=problem,
            participant=participant,
            number=place + 1,
            given=participant.ratings.get(place),
            original=clip.original,
            samples=samples,
            kind=clip.kind,
            asked=[
                ("realism", REALISM.format(thing=thing), *ENDS["realism"]),
                ("diversity", DIVERSITY.format(things=things), *ENDS["diversity"]),
            ],
        )

    @app.post("/p/<token>/<int:number>")
    def answer(token: str, number: int) -> AnyResponse:
        participant = known(token, number)
        if number - 1 > participant.next_place:
            abort(400, "The questions before this one have no answer yet.")
        try:
            rating = Rating(*(int(request.form.get(name, "")) for name in ("realism", "diversity")))
        except ValueError:
            problem = f"Please answer both questions, each with a number from {SCALE[0]} to {SCALE[-1]}."
            return _question(participant, number - 1, problem)
        answers.record(participant, number - 1, rating)
        if number < len(participant.questions):
            return redirect(url_for("question", token=token, number=number + 1), 303)
        return redirect(url_for("resume", token=token), 303)

    @app.get("/p/<token>/thanks")
    def thanks(token: str) -> AnyResponse:
        participant = known(token)
        return page("thanks.html", participant=participant) if participant.finished else _onwards(participant)

    @app.get("/media/<name>")
    def media(name: str) -> Response:
        return send_from_directory(folder.resolve() / MEDIA, name, max_age=MEDIA_S, last_modified=0, etag=False)

    @app.errorhandler(HTTPException)
    def problem(error: HTTPException) -> Response:
        return page("problem.html", error.code or 500, text=error.description or error.name)

    @app.errorhandler(sqlite3.Error)
    def not_kept(error: sqlite3.Error) -> Response:
        app.logger.error("answers cannot be read or kept: %s", error)
        text = "Your last answer could not be kept. Please wait a minute, go back, and send it again."
        return page("problem.html", 503, text=text)

    @app.after_request
    def lock(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    return app


def _onwards(participant: Participant) -> AnyResponse:
    """To the first question without an answer, or to the end."""
    if participant.finished:
        return redirect(url_for("thanks", token=participant.token), 303)
    return redirect(url_for("question", token=participant.token, number=participant.next_place + 1), 303)


def _words(kinds: list[str]) -> str:
    return " or ".join(THINGS[kind][0] for kind in kinds)


def _minutes(questions: int) -> int:
    return math.ceil(questions * SECONDS_A_QUESTION / 60)

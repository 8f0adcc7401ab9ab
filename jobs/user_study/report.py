"""What the answers add up to: mean opinion scores beside the paper's Table 3, as Markdown, JSON, CSV and figures."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from infra.errors import counted
from jobs.reports.table import csv_table, markdown_table
from jobs.user_study.answers import Participant, Rating, utc
from jobs.user_study.design import CHECK
from jobs.user_study.folder import Study
from jobs.user_study.scores import CONFIDENCE, RESAMPLES, Opinion, Ratings, agreement, opinion

# Table 3: (C1) realism, (C2) diversity.
PAPER: dict[str, dict[str, tuple[float, float]]] = {
    "videos": {"singan": (3.6, 2.9), "consingan": (3.4, 2.4), "hpvaegan": (4.1, 3.8)},
    "images": {"singan": (2.3, 2.5), "consingan": (2.5, 1.8), "hpvaegan": (3.5, 3.6)},
}
PAPER_USERS, PAPER_CLIPS = 50, 25  # §4.2; 25 of each kind
LEAST_REALISM, MOST_DIVERSITY = 4, 2  # of an attention check that is passed
LINE_COLUMNS = 80  # of an item that is folded
QUESTIONS = ("realism", "diversity")


@dataclass(frozen=True)
class People:
    """Participants by what becomes of their answers.

    Attributes:
        counted: answered all, and passed every attention check.
        inattentive: answered all, and failed one or more.
        unfinished: stopped before the end.
    """

    counted: Sequence[Participant]
    inattentive: Sequence[Participant]
    unfinished: Sequence[Participant]


@dataclass(frozen=True)
class Score:
    """Of a method, on clips of one kind. method: its name in the study. of_method: that of its settings."""

    method: str
    of_method: str
    realism: Opinion
    diversity: Opinion


@dataclass(frozen=True)
class KindReport:
    """Of the clips of one kind.

    Attributes:
        alpha: by question, Krippendorff's; None where it is not defined.
        not_the_papers: why the scores do not compare with the paper's, in words, a reason each; none where they do.
    """

    kind: str
    scores: Sequence[Score]
    alpha: Mapping[str, float | None]
    not_the_papers: Sequence[str]


@dataclass(frozen=True)
class Report:
    """Of a study, all that its answers add up to."""

    study: Study
    people: People
    kinds: Sequence[KindReport]


def sort_people(participants: Sequence[Participant]) -> People:
    """Whose answers count."""
    finished = [person for person in participants if person.finished]
    return People(
        counted=[person for person in finished if not failed_checks(person)],
        inattentive=[person for person in finished if failed_checks(person)],
        unfinished=[person for person in participants if not person.finished],
    )


def failed_checks(person: Participant) -> int:
    """Attention checks that were answered as only somebody who does not look would: the samples are the original."""
    return sum(
        person.questions[place].method == CHECK and not _is_attentive(rating)
        for place, rating in person.ratings.items()
    )


def _is_attentive(rating: Rating) -> bool:
    return rating.realism >= LEAST_REALISM and rating.diversity <= MOST_DIVERSITY


def make_report(study: Study, participants: Sequence[Participant]) -> Report:
    """The scores are those of `people.counted`; without any there are none."""
    people = sort_people(participants)
    kinds = [_of_kind(study, people.counted, kind) for kind in study.kinds] if people.counted else []
    return Report(study, people, kinds)


def _of_kind(study: Study, counted: Sequence[Participant], kind: str) -> KindReport:
    given = {
        question: {
            (person.number, (asked.clip, asked.method)): getattr(person.ratings[place], question)
            for person in counted
            for place, asked in enumerate(person.questions)
            if asked.method != CHECK and study.clips[asked.clip].kind == kind
        }
        for question in QUESTIONS
    }
    rated = {method for _, (_, method) in given["realism"]}
    scores = [
        Score(method, of.method, *(opinion(_of_method(given[question], method)) for question in QUESTIONS))
        for method, of in study.methods.items()
        if method in rated
    ]
    alpha = {question: agreement(ratings) for question, ratings in given.items()}
    return KindReport(kind, scores, alpha, _not_the_papers(study, len(counted), kind))


def _of_method(ratings: Ratings, method: str) -> Ratings:
    return {key: rating for key, rating in ratings.items() if key[1][1] == method}


def _not_the_papers(study: Study, people: int, kind: str) -> list[str]:
    """What of the study is not the paper's; of settings, those that the same methods have are one reason."""
    clips = sum(clip.kind == kind for clip in study.clips.values())
    listed = []
    if people < PAPER_USERS:
        listed.append(f"{counted(people, 'participant')} (paper: {PAPER_USERS})")
    if clips < PAPER_CLIPS:
        listed.append(f"{clips} {kind[:-1] if clips == 1 else kind} (paper: {PAPER_CLIPS})")
    methods_of: dict[str, list[str]] = {}  # by setting
    for method, of in study.methods.items():
        if of.method not in PAPER[kind]:
            listed.append(f"{method} is none of its methods ({', '.join(PAPER[kind])})")
        elif of.differs[kind]:
            for setting in of.differs[kind].split("; "):
                methods_of.setdefault(setting, []).append(method)
    settings_of: dict[str, list[str]] = {}  # by the methods that have them
    for setting, methods in methods_of.items():
        settings_of.setdefault(", ".join(methods), []).append(setting)
    return [*listed, *(f"{methods} with {'; '.join(settings)}" for methods, settings in settings_of.items())]


# -- as text


def markdown(report: Report) -> str:
    """A page that is as readable in a terminal."""
    people, study = report.people, report.study
    lines = [f"# User study {study.name}", "", _who(people), ""]
    for of in report.kinds:
        lines += [f"Table 3. Mean opinion scores (1 to 5) for {of.kind}; higher is more real, more diverse", ""]
        lines += markdown_table(_cells(of), numbers=True)
        alphas = ", ".join(
            f"{question} {'not defined' if value is None else f'{value:.2f}'}" for question, value in of.alpha.items()
        )
        lines += ["", f"- Krippendorff's alpha, ordinal, over clips and methods: {alphas}."]
        if of.not_the_papers:
            lines.append("- No figure of the paper stands beside these:")
            lines += [_folded(f"  - {reason}") for reason in of.not_the_papers]
        else:
            lines.append(f"- In the paper (Table 3): of {PAPER_USERS} users and {PAPER_CLIPS} {of.kind} of its own.")
        lines.append("")
    if report.kinds:
        lines.append(
            f"- Intervals: {100 * CONFIDENCE:.0f} %, of {RESAMPLES} bootstrap samples of the participants, each with "
            "all ratings."
        )
    lines.append(
        f"- An attention check shows the original in place of the samples. It is passed by a realism of "
        f"{LEAST_REALISM} or more and a diversity of {MOST_DIVERSITY} or less."
    )
    return "\n".join(lines) + "\n"


def _folded(item: str) -> str:
    """An item of a list within a list, in lines of at most LINE_COLUMNS."""
    return textwrap.fill(item, LINE_COLUMNS, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def _who(people: People) -> str:
    count = len(people.counted)
    text = f"{counted(count, 'participant')}, {_answers(people.counted)} answers beside the attention checks."
    for some, why in ((people.inattentive, "failed an attention check"), (people.unfinished, "did not finish")):
        if some:
            text += f" Left out: {len(some)} who {why}."
    return text


def _answers(people: Sequence[Participant]) -> int:
    return sum(question.method != CHECK for person in people for question in person.questions)


def _cells(of: KindReport) -> list[list[str]]:
    beside = not of.not_the_papers
    heads = ["", "ratings", "realism (C1)", "95 %", "diversity (C2)", "95 %"]
    cells = [[*heads, *(["in the paper: C1", "C2"] if beside else [])]]
    for score in of.scores:
        row = [score.method, str(score.realism.ratings)]
        for opinion_ in (score.realism, score.diversity):
            row += [f"{opinion_.mean:.2f}", "{:.2f} to {:.2f}".format(*opinion_.interval) if opinion_.interval else ""]
        row += [f"{figure:.1f}" for figure in PAPER[of.kind][score.of_method]] if beside else []
        cells.append(row)
    return cells


def record(report: Report) -> dict[str, Any]:
    """For report.json."""
    people = report.people
    return {
        "name": report.study.name,
        "participants": {
            "counted": len(people.counted),
            "inattentive": len(people.inattentive),
            "unfinished": len(people.unfinished),
        },
        "answers": _answers(people.counted),
        "kinds": {
            of.kind: {
                "methods": {
                    score.method: {question: asdict(getattr(score, question)) for question in QUESTIONS}
                    for score in of.scores
                },
                "alpha_ordinal": dict(of.alpha),
                "paper": None if of.not_the_papers else PAPER[of.kind],
                "not_the_papers": "; ".join(of.not_the_papers),
            }
            for of in report.kinds
        },
    }


def answers_csv(participants: Sequence[Participant]) -> bytes:
    """A line an answer, also those that were changed later: `counts` is 1 for the last one of a question."""
    rows: list[Sequence[object]] = [
        ("participant", "finished", "failed_checks", "page", "clip", "method", *QUESTIONS, "answered_at", "counts")
    ]
    for person in participants:
        last = {answer.place: number for number, answer in enumerate(person.answers)}
        for number, answer in enumerate(person.answers):
            asked = person.questions[answer.place]
            rows.append(
                (
                    person.number,
                    int(person.finished),
                    failed_checks(person),
                    answer.place + 1,
                    asked.clip,
                    asked.method or "attention check",
                    answer.rating.realism,
                    answer.rating.diversity,
                    utc(answer.at),
                    int(last[answer.place] == number),
                )
            )
    return csv_table(rows)


def codes_csv(participants: Sequence[Participant]) -> bytes:
    """The completion codes of those who finished, sorted, so that a code leads to nobody's answers."""
    finished = sorted((person.code, failed_checks(person)) for person in participants if person.finished)
    return csv_table([("code", "failed_checks"), *finished])


def files(report: Report) -> dict[str, bytes]:
    """report.md and report.json."""
    return {
        "report.md": markdown(report).encode(errors="backslashreplace"),
        "report.json": json.dumps(record(report), indent=2).encode() + b"\n",
    }


def figures(report: Report, method: str, *, named: bool) -> dict[str, float]:
    """For the run of an experiment in MLflow: study_mos_realism, study_mos_realism_low and _high …

    Args: named: whether the method's name is added, as in the run of a sweep, which has several.
    """
    found = {"study_participants": float(len(report.people.counted))}
    for of in report.kinds:
        kind = f"_{of.kind}" if len(report.kinds) > 1 else ""
        for question in QUESTIONS:
            alpha = of.alpha[question]
            found |= {f"study_alpha_{question}{kind}": alpha} if alpha is not None else {}
            for score in (score for score in of.scores if score.method == method):
                one: Opinion = getattr(score, question)
                name = f"study_mos_{question}{kind}" + (f"/{_plain(method)}" if named else "")
                found[name] = one.mean
                found |= {f"{name}_low": one.interval[0], f"{name}_high": one.interval[1]} if one.interval else {}
    return found


def _plain(name: str) -> str:
    """As MLflow takes it in the name of a figure."""
    return "".join(c if c.isalnum() or c in "_-." else "_" for c in name)

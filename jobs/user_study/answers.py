"""What people answered, in one sqlite file: an answer is on the disk before its sender hears that it is.

answers = Answers(folder / "answers.sqlite", study)
participant = answers.begin()
answers.record(participant, 0, Rating(realism=4, diversity=3))

Nothing is ever changed or deleted: of a question's answers the last one counts. No name, address or browser is kept.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from infra.errors import UsageError, one_line, printable
from jobs.user_study.design import Question, questions, slots
from jobs.user_study.folder import Study

AWAY_S = 3600.0  # a participant who stopped in the middle that long ago gives the slot back
BUSY_S = 30.0  # seconds that a writer waits for another
VERSION = 1
SCALE = range(1, 6)
LETTERS = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"  # of a completion code: none is read as another
SCHEMA = f"""
CREATE TABLE participants (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    token TEXT NOT NULL UNIQUE,     -- in the participant's address
    code TEXT NOT NULL UNIQUE,      -- shown at the end
    slot INTEGER NOT NULL,          -- which questions
    began REAL NOT NULL,            -- seconds since 1970, UTC
    seen REAL NOT NULL              -- when the last answer came
);
CREATE TABLE questions (
    participant INTEGER NOT NULL REFERENCES participants (number),
    place INTEGER NOT NULL,         -- from 0, in the participant's order
    clip TEXT NOT NULL,
    method TEXT NOT NULL,           -- '' of an attention check
    PRIMARY KEY (participant, place)
);
CREATE TABLE answers (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    participant INTEGER NOT NULL,
    place INTEGER NOT NULL,
    realism INTEGER NOT NULL CHECK (realism BETWEEN {SCALE[0]} AND {SCALE[-1]}),
    diversity INTEGER NOT NULL CHECK (diversity BETWEEN {SCALE[0]} AND {SCALE[-1]}),
    at REAL NOT NULL,
    FOREIGN KEY (participant, place) REFERENCES questions (participant, place)
);
CREATE INDEX answers_of ON answers (participant, place);
PRAGMA user_version = {VERSION};
"""


@dataclass(frozen=True)
class Rating:
    """Both 1 to 5. Raises ValueError for another number."""

    realism: int
    diversity: int

    def __post_init__(self) -> None:
        if self.realism not in SCALE or self.diversity not in SCALE:
            raise ValueError(f"an answer is a whole number from {SCALE[0]} to {SCALE[-1]}")


@dataclass(frozen=True)
class Answer:
    """One that was given; `at`: seconds since 1970."""

    place: int
    rating: Rating
    at: float


@dataclass(frozen=True)
class Participant:
    """Somebody who began.

    Attributes:
        number: from 1.
        token: who has it answers as this participant.
        code: of completion.
        questions: in their order.
        answers: in the order in which they came.
    """

    number: int
    token: str
    code: str
    questions: tuple[Question, ...]
    answers: tuple[Answer, ...] = ()

    @property
    def ratings(self) -> dict[int, Rating]:
        """What counts, by place: of each question the last answer."""
        return {answer.place: answer.rating for answer in self.answers}

    @property
    def next_place(self) -> int:
        """Of the first question without an answer; the number of questions if there is none."""
        given = self.ratings
        return next((place for place in range(len(self.questions)) if place not in given), len(self.questions))

    @property
    def finished(self) -> bool:
        """Whether every question has an answer."""
        return self.next_place == len(self.questions)


class Answers:
    """The file. Safe for many threads and processes of one machine; each call has a connection of its own."""

    def __init__(self, path: Path, study: Study) -> None:
        """Opens the file, or makes it. Raises UsageError for one that cannot be used."""
        self._path, self._study = path, study
        mend = "move it away, with its -wal and -shm, or bring back a copy"
        try:
            with self._connection() as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
                if not version and not tables:
                    connection.executescript(f"BEGIN IMMEDIATE;{SCHEMA}COMMIT;")
                elif version != VERSION:
                    raise UsageError(f"{printable(path)}: is of another program; {mend}")
                (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if state != "ok":
                raise UsageError(f"{printable(path)}: is damaged ({one_line(state)}); {mend}")
        except sqlite3.Error as error:
            raise UsageError(f"{printable(path)}: cannot be used ({one_line(error)}); {mend}") from error

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Without implicit transactions. A commit is on the disk, whatever happens to the process or the power."""
        with contextlib.closing(sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            yield connection

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Of one writer at a time."""
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            with connection:  # commits, or rolls back
                yield connection

    def begin(self) -> Participant:
        """A new participant, with the questions of the slot that has the fewest. Raises sqlite3.Error."""
        token, code = secrets.token_urlsafe(16), "".join(secrets.choice(LETTERS) for _ in range(8))
        now = time.time()
        with self._transaction() as connection:
            held, began = [0] * slots(self._study), [0] * slots(self._study)
            for slot, seen, left in connection.execute(
                "SELECT slot, seen, (SELECT count(*) FROM questions WHERE participant = p.number) - "
                "(SELECT count(DISTINCT place) FROM answers WHERE participant = p.number) FROM participants p"
            ):
                began[slot] += 1
                held[slot] += not left or seen > now - AWAY_S
            slot = min(range(len(held)), key=lambda slot: (held[slot], began[slot], slot))
            asked = questions(self._study, slot, began[slot])
            row = connection.execute(
                "INSERT INTO participants (token, code, slot, began, seen) VALUES (?, ?, ?, ?, ?)",
                (token, code, slot, now, now),
            )
            number = row.lastrowid
            assert number is not None
            connection.executemany(
                "INSERT INTO questions VALUES (?, ?, ?, ?)",
                [(number, place, question.clip, question.method) for place, question in enumerate(asked)],
            )
        return Participant(number, token, code, tuple(asked))

    def record(self, participant: Participant, place: int, rating: Rating) -> None:
        """On the disk when this returns. The same answer again is no other one. Raises sqlite3.Error."""
        now = time.time()
        with self._transaction() as connection:
            last = connection.execute(
                "SELECT realism, diversity FROM answers WHERE participant = ? AND place = ? "
                "ORDER BY number DESC LIMIT 1",
                (participant.number, place),
            ).fetchone()
            if last != (rating.realism, rating.diversity):
                connection.execute(
                    "INSERT INTO answers (participant, place, realism, diversity, at) VALUES (?, ?, ?, ?, ?)",
                    (participant.number, place, rating.realism, rating.diversity, now),
                )
            connection.execute("UPDATE participants SET seen = ? WHERE number = ?", (now, participant.number))

    def participant(self, token: str) -> Participant | None:
        """With that token; None for one that nobody has. Raises sqlite3.Error."""
        return next(iter(self._participants("WHERE token = ?", (token,))), None)

    def participants(self) -> list[Participant]:
        """All, in the order in which they began. Raises UsageError for a file that cannot be read."""
        try:
            return self._participants("", ())
        except sqlite3.Error as error:
            mend = "bring back a copy"
            raise UsageError(f"{printable(self._path)}: cannot be read ({one_line(error)}); {mend}") from error

    def _participants(self, where: str, values: tuple[str, ...]) -> list[Participant]:
        """where: a fixed text of this file."""
        with self._connection() as connection:
            connection.execute("BEGIN")  # one state of the file for all that is read
            people = connection.execute(
                f"SELECT number, token, code FROM participants {where} ORDER BY number", values
            ).fetchall()
            return [Participant(number, token, code, *self._of(connection, number)) for number, token, code in people]

    def _of(self, connection: sqlite3.Connection, number: int) -> tuple[tuple[Question, ...], tuple[Answer, ...]]:
        asked = connection.execute("SELECT clip, method FROM questions WHERE participant = ? ORDER BY place", (number,))
        given = connection.execute(
            "SELECT place, realism, diversity, at FROM answers WHERE participant = ? ORDER BY number", (number,)
        )
        return (
            tuple(Question(clip, method) for clip, method in asked),
            tuple(Answer(place, Rating(realism, diversity), at) for place, realism, diversity, at in given),
        )


def utc(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601, to the second."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")

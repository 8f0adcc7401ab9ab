"""Who is asked what, in which order: balanced over the participants, and random where balance leaves a choice.

There are clips × methods pairs. They stand in rows, one a method, and each row has every clip once, with the methods in
turn: a Latin square. A participant's questions are a stretch of that list. The next participant's begin where these
end, around the end of the list too. So

- up to as many questions as there are clips, nobody sees a clip twice;
- after `slots` participants every pair was asked equally often.

The participants of one slot have the same questions, each in another row of a Williams square: of n questions, each
stands at each place once in n participants. For even n each question also follows each other one once; odd n takes
2n participants for that, and then each follows each other twice.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from jobs.user_study.folder import Study

CHECK = ""  # in place of a method: the samples are the original itself


@dataclass(frozen=True)
class Question:
    """A clip with five samples of a method; of an attention check with the clip itself five times."""

    clip: str
    method: str


def slots(study: Study) -> int:
    """How many participants it takes until every pair of clip and method was asked equally often."""
    pairs = len(study.clips) * len(study.methods)
    return pairs // math.gcd(pairs, study.questions)


def questions(study: Study, slot: int, turn: int) -> list[Question]:
    """Of the participant who is number `turn` (from 0) of a slot, in their order; attention checks are among them.

    Checks are spread: one in each of as many equal stretches, never the first question.
    """
    pairs = _pairs(study)
    start = slot * study.questions
    own = [pairs[(start + place) % len(pairs)] for place in range(study.questions)]
    random.Random(f"labels {study.seed} {slot}").shuffle(own)
    asked = [own[place] for place in williams_row(len(own), turn)]
    draw = random.Random(f"checks {study.seed} {slot} {turn}")
    for number, clip in enumerate(draw.sample(sorted(study.clips), study.checks)):
        stretch = len(own) / study.checks
        asked.insert(number + 1 + int(stretch * (number + draw.random())), Question(clip, CHECK))
    return asked


def williams_row(n: int, turn: int) -> list[int]:
    """Row number `turn` of the square of 0 … n - 1; those after the last row begin again. Williams 1949."""
    first = [(place + 1) // 2 if place % 2 else (n - place // 2) % n for place in range(n)]
    row = [(entry + turn) % n for entry in first]
    return row[::-1] if n % 2 and turn // n % 2 else row


def _pairs(study: Study) -> list[Question]:
    clips, methods = sorted(study.clips), sorted(study.methods)
    draw = random.Random(f"pairs {study.seed}")
    draw.shuffle(clips)
    draw.shuffle(methods)
    return [
        Question(clip, methods[(place + row) % len(methods)])
        for row in range(len(methods))
        for place, clip in enumerate(clips)
    ]

"""The folder of a study: everything that its pages show, and the answers to them.

study/
  study.json        methods, clips, and which file is what; never served
  media/            0001.mp4 …: the originals and samples, in an order that tells nothing
  answers.sqlite    what people answered (jobs/user_study/answers.py)
  report.md, report.json, answers.csv, codes.csv     written by the report
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from infra.errors import StorageError, UsageError, one_line, printable
from infra.files import replacing, sync_folder, write_json
from jobs.invocation import start_of
from jobs.tuning.study import SAMPLES
from jobs.user_study.material import KINDS, Method

DEFINITION, MEDIA, ANSWERS = "study.json", "media", "answers.sqlite"


@dataclass(frozen=True)
class StudyMethod:
    """What the report needs to know of a method: as in jobs/user_study/material.py."""

    method: str
    experiment: str
    differs: Mapping[str, str]


@dataclass(frozen=True)
class StudyClip:
    """kind: videos or images. original and samples, by method: names of files in media/."""

    kind: str
    original: str
    samples: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Study:
    """What study.json holds.

    Attributes:
        seed: of the order of the questions.
        questions: of each participant, without attention checks.
        checks: of attention, of each participant.
    """

    name: str
    seed: int
    questions: int
    checks: int
    methods: Mapping[str, StudyMethod]
    clips: Mapping[str, StudyClip]

    @property
    def kinds(self) -> list[str]:
        """Of its clips: videos, images, or both."""
        there = {clip.kind for clip in self.clips.values()}
        return [kind for kind in KINDS.values() if kind in there]


def open_study(folder: Path) -> Study:
    """Raises UsageError for a folder that holds none."""
    file = folder / DEFINITION
    try:
        fields: dict[str, Any] = json.loads(file.read_bytes())
        fields["methods"] = {name: StudyMethod(**of) for name, of in fields["methods"].items()}
        fields["clips"] = {clip: StudyClip(**of) for clip, of in fields["clips"].items()}
        return Study(**fields)
    except OSError as error:
        mend = f"give the --out of {' '.join(start_of('study'))} make"
        raise UsageError(f"{printable(folder)}: holds no study ({error.strerror}: {DEFINITION}); {mend}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{printable(file)}: cannot be read ({one_line(error)}); make the study again") from error


@contextlib.contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A folder to fill that becomes `folder`, which is not there or empty, when the body ends; else nothing is left.

    Raises StorageError.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".study.") as temporary:
            inside = Path(temporary) / "study"
            yield inside
            os.replace(inside, folder)
            sync_folder(folder.parent)
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(folder, error) from error


def check_free(folder: Path) -> None:
    """Raises UsageError if the folder holds anything."""
    try:
        names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    except OSError as error:
        raise UsageError(f"{printable(folder)}: is no folder ({error.strerror}); give another --out") from error
    if names:
        kind = "a study" if DEFINITION in names else "other files"
        raise UsageError(f"{printable(folder)}: holds {kind} already; give another --out")


def copy_media(folder: Path, methods: Sequence[Method], clips: Sequence[str], chosen: Mapping[str, Any]) -> Study:
    """Copy what the study shows into a folder that is not there yet. `define` makes it a study.

    Args: clips: those that every method finished. chosen: name, seed, questions and checks.

    Raises UsageError for a file that is gone, StorageError.
    """
    sources = [(methods[0], clip, methods[0].clips[clip].original) for clip in clips]
    sources += [(of, clip, name) for of in methods for clip in clips for name in of.clips[clip].samples[:SAMPLES]]
    order = list(range(len(sources)))
    random.Random(f"media {chosen['seed']}").shuffle(order)
    (folder / MEDIA).mkdir(parents=True)
    named: dict[tuple[str, str, str], str] = {}
    for number, place in enumerate(order, start=1):  # also the times of the files tell nothing
        of, clip, name = sources[place]
        content = of.store.read([name]).get(name)
        if content is None:
            raise UsageError(f"{of.store.uri}/{name}: is not there; make the samples of {of.name} again")
        named[of.name, clip, name] = file = f"{number:04d}{PurePosixPath(name).suffix}"
        with replacing(folder / MEDIA / file) as out:
            out.write(content)
    of_clips = {}
    for clip in clips:
        original = methods[0].clips[clip].original
        samples = {of.name: [named[of.name, clip, name] for name in of.clips[clip].samples[:SAMPLES]] for of in methods}
        kind = KINDS[PurePosixPath(original).suffix]
        of_clips[clip] = StudyClip(kind, named[methods[0].name, clip, original], samples)
    of_methods = {of.name: StudyMethod(of.method, of.experiment, of.differs) for of in methods}
    return Study(methods=of_methods, clips=of_clips, **chosen)


def define(folder: Path, study: Study) -> None:
    """Write study.json: from now on the folder is a study. Raises StorageError."""
    write_json(folder / DEFINITION, asdict(study))

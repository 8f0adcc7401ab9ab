"""Experiments of several methods → the folder of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from infra.errors import UsageError, counted, one_line, printable
from jobs.invocation import start_of
from jobs.user_study import folder
from jobs.user_study.material import Method, methods_of
from pipeline import video

ONE_CHECK_IN = 10  # questions


@dataclass(frozen=True, kw_only=True)
class MakeRequest:
    """What a study is made of.

    Attributes:
        given: experiments, sweeps, folders of a sweep's material: paths or URIs.
        out: the folder of the study, new or empty.
        questions: of each participant; None: one a clip.
        checks: attention checks of each participant; None: one in ten questions, at least one.
    """

    given: Sequence[str]
    out: Path
    questions: int | None = None
    checks: int | None = None
    seed: int = 0


def make(request: MakeRequest, console: Console) -> bool:
    """Write the folder of a study. Returns whether a clip was left out. Raises UsageError, StorageError."""
    folder.check_free(request.out)
    methods = methods_of(request.given)
    if len(methods) < 2:
        mend = "give one more experiment, or a sweep with --rivals"
        raise UsageError(f"{printable(request.given[0])}: holds one method, and a study compares several; {mend}")
    clips, left_out = _clips(methods)
    if not clips:
        why = f" ({'; '.join(left_out[:3])})" if left_out else ""
        raise UsageError(f"no clip that all of {', '.join(m.name for m in methods)} finished{why}; train one corpus")
    pairs = len(clips) * len(methods)
    questions = len(clips) if request.questions is None else request.questions
    if not 1 <= questions <= pairs:
        raise UsageError(f"--questions {questions}: from 1 to {pairs}, the pairs of clip and method")
    checks = min(len(clips), max(1, questions // ONE_CHECK_IN)) if request.checks is None else request.checks
    if not 0 <= checks <= len(clips):
        raise UsageError(f"--checks {checks}: from 0 to {len(clips)}, the number of clips")
    name = request.out.resolve().name
    chosen = {"name": name, "seed": request.seed, "questions": questions, "checks": checks}
    with folder.appearing(request.out.resolve()) as place:
        study = folder.copy_media(place, methods, clips, chosen)
        other_sizes = _other_sizes(place / folder.MEDIA, study)
        folder.define(place, study)
    for line in left_out:
        console.print(f"left out  {printable(line)}", style="yellow")
    for line in other_sizes:
        console.print(f"warning: {printable(line)}; people see that", style="yellow")
    named = ", ".join(method.name for method in methods)
    console.print(f"{counted(len(clips), 'clip')} of {len(methods)} methods: {printable(named)}")
    each = f"{counted(questions, 'question')} and {counted(checks, 'attention check')}"
    console.print(f"a participant has {each}")
    console.print(f"next: {' '.join(start_of('study'))} serve {printable(request.out)}")
    return bool(left_out)


def _clips(methods: Sequence[Method]) -> tuple[list[str], list[str]]:
    """The clips that every method finished, and a line on each of the others."""
    seen = sorted({clip for method in methods for clip in (*method.clips, *method.unusable)})
    usable = [clip for clip in seen if all(clip in method.clips for method in methods)]
    lines = [
        f"{clip}: of {method.name} {method.unusable.get(clip, 'is not there')}"
        for clip in seen
        for method in methods
        if clip not in method.clips
    ]
    return usable, lines


def _other_sizes(media: Path, study: folder.Study) -> list[str]:
    """A line on each clip and method whose samples are not of the original's size, by the first of them."""
    lines = []
    for clip, files in study.clips.items():
        size = _size(media / files.original, f"{clip}: the original")
        for method, samples in files.samples.items():
            if (other := _size(media / samples[0], f"{clip}: a sample of {method}")) != size:
                lines.append(f"{clip}: samples of {method} are of {other} px, and the original is of {size}")
    return lines


def _size(file: Path, what: str) -> str:
    try:
        info = video.probe(file)
    except video.VideoError as error:
        raise UsageError(f"{what} cannot be read ({one_line(error)}); train the clip again") from error
    return f"{info.width}×{info.height}"

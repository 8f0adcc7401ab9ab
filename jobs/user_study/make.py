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
        other_sizes = _other_sizes(place / folder.MEDIA, study, methods)
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


def _other_sizes(media: Path, study: folder.Study, methods: Sequence[Method]) -> list[str]:
    """A line on each clip and method with samples that are not of the original's size.

    Raises UsageError for an original or a sample that is no video or image.
    """
    lines = []
    for clip, files in study.clips.items():
        size = _size(media / files.original, methods[0], methods[0].clips[clip].original)
        for of in methods:
            shown = zip(files.samples[of.name], of.clips[clip].samples)
            others = sorted({_size(media / file, of, name) for file, name in shown} - {size})
            if others:
                sizes = " and ".join(others)
                lines.append(f"{clip}: samples of {of.name} are of {sizes} px (H×W), and the original is of {size}")
    return lines


def _size(file: Path, of: Method, name: str) -> str:
    """name: of what was copied to `file`, in the store of the method."""
    try:
        info = video.probe(file)
    except video.VideoError as error:
        why = one_line(error).removeprefix(f"{printable(file)}: ")
        raise UsageError(f"{of.store.uri}/{name}: cannot be read ({why}); train the clip again") from error
    return f"{info.height}×{info.width}"

"""What `sample.py` was asked for: its options, those of the applications too, checked against each other."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from infra.errors import UsageError, printable
from jobs import command_line
from jobs.command_line import Length
from model.config import COLOURS, Finish, Precision, Retarget
from pipeline.sources import split_start

Application = Literal[
    "inject", "fill", "extend", "loop", "retarget", "enlarge", "strength", "between", "fix_layout", "fix_detail"
]
FLAGS: dict[Application, str] = {
    "inject": "--inject",
    "fill": "--fill",
    "extend": "--extend",
    "loop": "--loop",
    "retarget": "--retarget",
    "enlarge": "--enlarge",
    "strength": "--strength",
    "between": "--seed-to",
    "fix_layout": "--fix-layout",
    "fix_detail": "--fix-detail",
}
TAKES_A_VIDEO = ("inject", "fill", "loop", "enlarge")  # applications of a given video too, not only of the clip
AUTO, STEPS, MOST_PX = "auto", 10, 10_000
ONE_NUMBER = "--n 1, or --only and one number"  # what asks for one result of a seed
# Options that only some applications have.
OPTIONS: dict[str, tuple[Application, ...]] = {
    "scale": ("inject",),
    "reference": ("inject",),
    "quantise": ("inject",),
    "feather": ("inject",),
    "hold": ("inject",),
    "mask": ("inject", "fill"),
    "grow": ("inject", "fill"),
    "finish": ("inject", "retarget", "enlarge", "strength", "between", "fix_layout", "fix_detail"),
    "steps": ("between",),
}


@dataclass(frozen=True, kw_only=True)
class ApplicationRequest:
    """An application and its options; files as they were named.

    Attributes:
        given: what enters, and how it was named: inject a video or image, paint drawings, over an object that is laid
            over the clip; None: the clip.
        scale: where it enters; None: every scale, one after the other.
        grown, feather: px of the mask; None: SinGAN's.
        quantised: colours that the given video is brought to; 0: all.
        hold: how much of what enters is brought back while patches are chosen.
        extend, extend_before: how much goes on, at the clip's rate.
        share: of `strength`, or of the way between two seeds, one a result.
    """

    application: Application
    given: tuple[Literal["inject", "paint", "over"], str] | None
    frame: int
    reference: str | None
    mask: str | None
    grown: float | None
    feather: float | None
    scale: int | None
    quantised: int
    hold: float
    finish: Finish | None
    extend: Length
    extend_before: Length
    retarget: Retarget
    factor: float
    share: Sequence[float]
    seed_to: int

    @property
    def files(self) -> list[str]:
        """Those that are read."""
        named = (self.given[1] if self.given else None, self.reference, self.mask)
        return [split_start(path)[0] for path in named if path]

    @property
    def name(self) -> str:
        """For labels."""
        return self.given[0] if self.given and self.application == "inject" else self.application

    @property
    def one_result(self) -> str:
        """What asks for one result; "" where nothing does."""
        match self.application:
            case "inject" if self.scale is None:
                return "--scale N"
            case "strength":
                return "one number to --strength"
            case "between":
                return ""
            case _:
                return ONE_NUMBER

    def stem(self, seed: int) -> str:
        """What the names of its files have in common: another application or seed overwrites none of them."""
        return f"seed{seed}_to_seed{self.seed_to}" if self.application == "between" else f"{self.name}_seed{seed}"


@dataclass(frozen=True, kw_only=True)
class SampleRequest:
    """What was asked of a model.

    Attributes:
        model: the clip's folder or checkpoint, or a folder of the authors' code: path or URI.
        real: the clip's video, image or folder; None: the frames of the experiment around the model.
        out: a folder, or the file of the one result.
        indices: of the results of the seed; None: as many as there are by default.
        keep: how many of four times as many samples are kept; None: all.
        size: as it was written, in parts; None: the clip's.
        latent_frames: of the z that samples are drawn from; None: as in the training.
        compare: whether a video shows the clip, its reconstruction and the results side by side.
        application: None: plain samples.
    """

    model: str
    real: str | None
    out: Path
    seed: int
    indices: Sequence[int] | None
    keep: int | None
    size: str | None
    precision: Precision | None
    latent_frames: int | None
    compare: bool
    application: ApplicationRequest | None

    @property
    def files(self) -> list[str]:
        """Those that are read, beside the model."""
        real = [] if self.real is None else [split_start(self.real)[0]]
        return [*real, *(self.application.files if self.application else [])]

    @property
    def one_result(self) -> str:
        """What asks for one result; "" where nothing does."""
        if self.application:
            return self.application.one_result
        return ONE_NUMBER if self.keep is None else "--keep 1"

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> SampleRequest:
        """Raises UsageError, one line, for what cannot work."""
        if args.seed < 0 or (args.n is not None and args.n < 1) or (args.keep is not None and args.keep < 1):
            raise UsageError("--n and --keep must be 1 or more, --seed 0 or more")
        if args.keep is not None and (args.n is not None or args.only is not None):
            raise UsageError("--keep and --n or --only: --keep N draws 4N; leave out the other")
        if args.n is not None and args.only is not None:
            raise UsageError("--n and --only: --n 3 is --only 0,1,2; leave out one of them")
        application = from_args(args)
        if args.keep is not None and application:
            raise UsageError("--keep: is of plain samples; leave it out")
        command_line.check_z_frames(args.z_frames)
        chosen = range(args.n) if args.n is not None else None
        return cls(
            model=args.model,
            real=args.real,
            out=args.out,
            seed=args.seed,
            indices=_indices(args.only) if args.only is not None else chosen,
            keep=args.keep,
            size=args.size,
            precision=args.precision,
            latent_frames=args.z_frames,
            compare=args.compare,
            application=application,
        )


def _indices(text: str) -> list[int]:
    """3,7 of --only. Raises UsageError."""
    if not re.fullmatch(r"[0-9]{1,6}(,[0-9]{1,6})*", text):
        raise UsageError(f"--only {printable(text)}: numbers of samples from 0 with commas between them, such as 3,7")
    return list(dict.fromkeys(map(int, text.split(","))))  # each once


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of the applications."""
    add = parser.add_argument_group("applications (model/sampling/README.md)").add_argument

    def add_file(flag: str, text: str) -> None:
        add(flag, type=command_line.path, metavar="FILE", help=text)

    add_file("--inject", "a video, or clip.mp4@SECONDS, or image that enters at --scale, and runs through the rest")
    add_file("--paint", "a drawing on a frame of the clip (--frame), or a folder of drawings named by frames")
    add("--frame", type=int, help="that the drawing of --paint is for, from 0 (default: 0)")
    add_file("--over", "an object with alpha: an image, a folder of frames or a video, laid over the clip")
    add("--scale", metavar="N|auto", help="where it enters, from 1; low: more is made new; auto: all, on a sheet")
    add_file("--mask", "white where it changes; elsewhere what was given stays, in .png and .mkv to the bit")
    add_file("--reference", "what stays where the mask is black (default: what enters)")
    grow = "by which the mask is dilated (default: 20 of 250 px, of --over 7, of --fill 1 px)"
    add("--grow", type=command_line.number, metavar="PX", help=grow)
    add("--feather", type=command_line.number, metavar="PX", help="softness of its edge (default: 5 of 250 px)")
    colours = f"bring what enters to so many main colours of the clip; of a painting ({COLOURS} if no number is given)"
    add("--quantise", nargs="?", type=int, const=COLOURS, metavar="COLOURS", help=colours)
    hold = "0 to 1: how much of what enters stays while patches are chosen (default: of --paint and --over 1, else 0)"
    add("--hold", type=command_line.number, metavar="SHARE", help=hold)
    add("--finish", choices=get_args(Finish), help="what the scales above are (default: as the model's samples)")
    add("--fill", action="store_true", help="make what --mask covers new from the rest of the clip")
    behind = "go on in time behind the clip's own frames: frames, or seconds such as 2s"
    add("--extend", type=command_line.length, metavar="FRAMES", help=behind)
    add("--extend-before", type=command_line.length, metavar="FRAMES", help="and before them")
    add("--loop", action="store_true", help="the clip, or --inject, as a loop whose end leads to its start")
    add("--retarget", choices=get_args(Retarget), help="the clip at --size; which of the two keeps its proportions")
    add(
        "--enlarge",
        type=command_line.number,
        metavar="FACTOR",
        help="the clip, or --inject, so many times as large: above 1 to 8",
    )
    row = "from the clip, 0, to a free sample, 1 (without numbers: %(const)s)"
    add("--strength", nargs="?", const="0,0.25,0.5,0.75,1", metavar="S,…", help=row)
    add("--seed-to", type=int, metavar="SEED", help="from the sample of --seed to that of this seed, in --steps")
    add("--steps", type=int, help="of --seed-to (default: 10)")
    add("--fix-layout", action="store_true", help="samples of one layout: only the fine noise is drawn anew")
    add("--fix-detail", action="store_true", help="samples of one fine noise: only the layout is drawn anew")


def from_args(args: argparse.Namespace) -> ApplicationRequest | None:
    """The application that was asked for; None for plain samples. Raises UsageError, one line."""
    asked: list[Application] = [name for name in FLAGS if _is_asked(args, name)]
    entering = [(kind, value) for kind in ("inject", "paint", "over") if (value := vars(args)[kind]) is not None]
    if len(entering) > 1:
        raise UsageError(f"--{entering[0][0]} and --{entering[1][0]}: one of them at a time")
    if entering and "inject" not in asked:
        asked.insert(0, "inject")
    others: list[Application] = [name for name in asked if name != "inject"]
    if len(others) > 1:
        raise UsageError(f"{FLAGS[others[0]]} and {FLAGS[others[1]]}: one of them at a time")
    application = (others or asked)[0] if asked else None
    for option, of in OPTIONS.items():
        if vars(args)[option] is not None and application not in of:
            flag = f"--{entering[0][0]}" if application == "inject" else FLAGS.get(application or "inject", "")
            cause = f"{flag} does not have it" if application else "is an option of applications"
            raise UsageError(f"--{option}: {cause}; leave it out")
    if args.frame is not None and args.paint is None:
        raise UsageError("--frame: is an option of --paint; leave it out")
    if application is None:
        return None
    if entering and application not in TAKES_A_VIDEO:
        raise UsageError(f"--{entering[0][0]}: {FLAGS[application]} is made of the clip itself; leave one of them out")
    if application == "fill" and args.mask is None:
        raise UsageError("--fill: needs --mask FILE, white where the clip is to be made new")
    masked = args.mask is not None or args.paint is not None or args.over is not None
    for option in ("reference", "grow", "feather"):
        if vars(args)[option] is not None and not masked:
            raise UsageError(f"--{option}: needs --mask FILE, white where the video changes")
    one_each = application in ("strength", "between") or (application == "inject" and _scale(args.scale) is None)
    if one_each and (args.n is not None or args.only is not None):
        option = "--only" if args.n is None else "--n"
        if application == "inject":
            raise UsageError(f"{option}: --scale auto has one result a scale; leave {option} out, or give --scale N")
        each = "step" if application == "between" else "strength"
        raise UsageError(f"{option}: {FLAGS[application]} has one result a {each}; leave {option} out")
    if args.z_frames is not None:
        raise UsageError("--z-frames: is of plain samples; leave it out")
    if (application == "retarget") != (args.size is not None):
        raise UsageError(
            "--retarget and --size go together here; give both"
            if args.size is None
            else f"--size: {FLAGS[application]} has the size of the clip; leave --size out, or give --retarget"
        )
    steps = STEPS if args.steps is None else args.steps
    if not 2 <= steps <= 1000:
        raise UsageError(f"--steps {steps}: from 2 to 1000")
    if args.seed_to is not None and args.seed_to < 0:
        raise UsageError(f"--seed-to {args.seed_to}: 0 or more")
    if args.enlarge is not None and not 1 < args.enlarge <= 8:
        raise UsageError(f"--enlarge {args.enlarge:g}: above 1, at most 8")
    if args.hold is not None and not 0 <= args.hold <= 1:
        raise UsageError(f"--hold {args.hold:g}: from 0 to 1")
    if args.quantise is not None and not 2 <= args.quantise <= 256:
        raise UsageError(f"--quantise {args.quantise}: 2 to 256 colours")
    if not all(value is None or 0 <= value <= MOST_PX for value in (args.grow, args.feather)):
        raise UsageError(f"--grow and --feather: from 0 to {MOST_PX} px")
    share = _strengths(args.strength) if args.strength is not None else [i / (steps - 1) for i in range(steps)]
    return ApplicationRequest(
        application=application,
        given=entering[0] if entering else None,  # type: ignore[arg-type]
        frame=args.frame or 0,
        reference=args.reference,
        mask=args.mask,
        grown=args.grow,
        feather=args.feather,
        scale=_scale(args.scale),
        quantised=args.quantise or 0,
        hold=args.hold if args.hold is not None else float(entering[:1] != [] and entering[0][0] != "inject"),
        finish=args.finish,
        extend=args.extend or Length(0),
        extend_before=args.extend_before or Length(0),
        retarget=args.retarget or "objects",
        factor=args.enlarge or 2.0,
        share=share,
        seed_to=args.seed_to or 0,
    )


def _is_asked(args: argparse.Namespace, name: Application) -> bool:
    value = vars(args)[FLAGS[name].removeprefix("--").replace("-", "_")]
    return (value is not None and value is not False) or (name == "extend" and args.extend_before is not None)


def _scale(text: str | None) -> int | None:
    if text is None or text == AUTO:
        return None
    if not text.isdecimal():
        raise UsageError(f"--scale {printable(text)}: a number from 1, or auto")
    return int(text)


def _strengths(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 <= strength <= 1 for strength in found):
        raise UsageError(
            f"--strength {printable(text)}: numbers from 0, the clip, to 1, a free sample, with commas between them"
        )
    return list(dict.fromkeys(found))  # each once

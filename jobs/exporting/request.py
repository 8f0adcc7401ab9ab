"""What `export.py` was asked for."""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from infra.errors import UsageError, printable
from jobs import command_line
from model.config import Precision

Form = Literal["torch", "onnx", "mlflow", "checkpoint"]
FORMS: tuple[str, ...] = get_args(Form)
SUFFIXES: dict[Form, str] = {"torch": ".pt2", "onnx": ".onnx", "checkpoint": ".pt"}  # of the others --out is a file
NAME = r"[^/:%.\"'\x00-\x1f]{1,200}"  # of a registered model


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """The options, checked.

    Attributes:
        model: the clip's folder or checkpoint, or a folder of the authors' code: path or URI.
        out: the file; None of a model that goes to MLflow.
        size: as it was written; None: the clip's.
        real: the clip's video, image or folder; None: the frames of the experiment around the model.
        latent_frames: of z; None: as in the training.
        name: of the registered model; None: the clip's.
        tracking_uri: of MLflow; None: by default.
    """

    model: str
    to: Form
    out: Path | None
    size: str | None
    real: str | None
    precision: Precision | None
    latent_frames: int | None
    name: str | None
    tracking_uri: str | None

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> ExportRequest:
        """Raises UsageError, one line, for what cannot work."""
        of_mlflow = {"--name": args.name, "--tracking-uri": args.tracking_uri}
        of_mlflow["--precision"] = args.precision
        given = [flag for flag, value in of_mlflow.items() if value is not None]
        if args.to != "mlflow" and given:
            raise UsageError(f"{given[0]}: is an option of --to mlflow; leave it out")
        if args.to == "mlflow" and (args.out is not None or args.size is not None):
            raise UsageError(
                "--out: a model for MLflow goes to its registry; leave it out"
                if args.out is not None
                else '--size: a model for MLflow makes any, predict({"size": "13x96x170"}); leave it out'
            )
        if args.to == "checkpoint" and (args.size is not None or args.z_frames is not None):
            raise UsageError("--size, --z-frames: are of programs, a checkpoint makes any; leave them out")
        if args.to == "checkpoint" and args.real is not None:
            raise UsageError("--real: a checkpoint holds no clip; leave it out")
        if args.name is not None and not re.fullmatch(NAME, args.name):
            raise UsageError(f"--name {printable(args.name)}: 1 to 200 characters, and none of / : . % \" '")
        command_line.check_z_frames(args.z_frames)
        return cls(
            model=args.model,
            to=args.to,
            out=_checked_out(args.out, args.to),
            size=args.size,
            real=args.real,
            precision=args.precision,
            latent_frames=args.z_frames,
            name=args.name,
            tracking_uri=args.tracking_uri,
        )


def _checked_out(given: Path | None, to: Form) -> Path | None:
    """Raises UsageError for a file that is missing in the arguments, has another suffix, or is there."""
    if to == "mlflow":
        return None
    suffix = SUFFIXES[to]
    if given is None:
        raise UsageError(f"--to {to}: needs --out FILE{suffix}")
    if given.suffix != suffix:
        raise UsageError(f"--out {printable(given)}: --to {to} writes {suffix}; give {printable(given.stem)}{suffix}")
    for path in (given, *([] if to == "checkpoint" else [beside(given)])):
        if os.path.lexists(path):
            raise UsageError(f"--out {printable(path)}: is there already; give another name, or delete it")
    return given


def beside(program: Path) -> Path:
    """The file that describes a program: its name and .json."""
    return program.with_name(f"{program.name}.json")

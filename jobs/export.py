"""A trained model as a file, or in MLflow's registry, that makes its videos without this repository.

    python jobs/export.py runs/demo/bikes-… --to mlflow
    python jobs/export.py runs/clips-paper/bikes-… --to torch --out bikes.pt2
    python jobs/export.py runs/clips-paper/bikes-… --to onnx --out bikes.onnx
    python jobs/export.py their_experiment/ --to checkpoint --out theirs.pt

CLIP is the folder of a trained clip or the checkpoint.pt in it, or a folder of the authors' published code.

torch, onnx: a function of z and of the noise of the scales, in float32, of any number of videos at once. Where the
clip's patches make the fine scales (patch_scale), also of what their search draws, and of one video. The .json beside
it names its inputs, their shapes, and how sample.py draws them from a seed.
mlflow: a pyfunc with everything in it, the clip's frames too where its patches are needed:
predict({"seed": 0, "n": 4, "size": "13x96x170"}) gives the frames of sample.py. It is logged and registered.
checkpoint: our checkpoint.pt of the authors' files, which sample.py, evaluate.py and this command take.

jobs/README.md, "Export", has the lines that load each.

Exit code: 0 done; 2 bad arguments, or what cannot be exported.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs import command_line
from jobs.command_line import DONE
from jobs.exporting.request import FORMS, ExportRequest


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ends the process with code 2 on a bad one."""
    parser = command_line.Parser("export.py", __doc__)
    add = parser.add_argument
    command_line.add_model(parser)
    add("--to", choices=FORMS, required=True, help="what it becomes")
    add("--out", type=command_line.local_path, metavar="FILE", help="a new .pt2, .onnx or .pt; of mlflow none")
    size = "frames x height x width of a program's videos, such as 13x256x1024; HxW of images (default: the clip's)"
    add("--size", help=size, metavar="[Tx]HxW")
    real = "the clip's video, image or folder, for a model outside its experiment whose samples need the clip's patches"
    add("--real", type=command_line.path, metavar="VIDEO", help=real)
    add("--name", help="of mlflow: of the registered model (default: the clip's id)")
    command_line.add_tracking_uri(parser)
    command_line.add_sampling(parser)
    return parser.parse(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    args = parse(argv)
    console = command_line.console()

    def run() -> int:
        request = ExportRequest.from_args(args)
        from jobs.exporting import run  # imports torch, which --help and a bad command line must not wait for

        run.run(request, console)
        return DONE

    # VideoError and ShardError are ValueErrors
    return command_line.exit_code(run, console, ValueError, OSError, stopped="stopped; nothing was written")


if __name__ == "__main__":
    sys.exit(main())

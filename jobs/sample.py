"""Videos, or images, from a trained clip: new ones, or what its model makes of a given one.

    python jobs/sample.py runs/demo/bikes-… --n 10 --seed 0 --out samples/
    python jobs/sample.py runs/demo/bikes-… --seed 0 --only 3,7 --out liked/
    python jobs/sample.py CLIP --n 1 --out new.mp4
    python jobs/sample.py CLIP --inject edited.png --scale auto --mask mask.png --out edited/
    python jobs/sample.py CLIP --fill --mask mask.png --out removed/
    python jobs/sample.py CLIP --extend 1.5s --out longer/
    python jobs/sample.py CLIP --loop --out loop/

CLIP is the folder of a trained clip, or the checkpoint.pt in it. Where the clip's patches make the fine scales
(patch_scale, --method vgpnn), the clip's frames are read from the experiment around it; --real names the video where
there is none. Else the checkpoint is enough for samples; most applications and --compare need the clip. A model that is
not trained to its end makes samples of its finest scale.

A folder with netG.pth is read as one of the authors' published code: netG.pth, Noise_Amps.pth and the args.txt saved
with them, which holds the clip's aspect and the number of VAE scales (without it: 16:9 and 3).

Sample i of a seed is the same video whatever --n is, and its file says both: sample_seed0_003.mp4 comes again with
--seed 0 --only 3. --size makes videos of another size or length than the clip's: wider, higher, or of more frames,
which play longer. In a folder theirs are .mp4 only, written as they are made. A model of an image gives images: .png,
and a sheet of all of them; their --size is HxW. --keep N draws four times as many and keeps N. --out x.mkv is lossless.

One application at a time. What several results have in common is seen on its sheet.

Exit code: 0 done; 1 a video could not be written; 2 bad arguments.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs import command_line
from jobs.command_line import DONE, SOME_FAILED
from jobs.sampling import request as requests
from jobs.sampling.request import SampleRequest


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ends the process with code 2 on a bad one."""
    parser = command_line.Parser("sample.py", __doc__)
    add = parser.add_argument
    command_line.add_model(parser)
    add("--n", type=int, help="number of videos or images (default: 10; of an application 1, of --fix-… 4)")
    add("--seed", type=int, default=0, help="0 or more")
    add("--only", metavar="I,…", help="these of the seed's results, by the numbers in their names, such as 3,7")
    size = (
        "frames x height x width of the videos, such as 13x256x1024 or 2sx256x1024; HxW of images (default: the clip's)"
    )
    add("--size", help=size, metavar="[Tx]HxW")
    real = "the clip's video, image or folder, for a model outside its experiment: of a video its first frames"
    add("--real", type=command_line.path, metavar="VIDEO", help=real)
    out = (
        "folder for sample_seedS_NNN.mp4 and, of the clip's size, .gif; of images .png; or the file of one result, "
        ".mp4, .mkv (lossless) or .gif, of an image .png"
    )
    add("--out", type=command_line.local_path, required=True, help=out)
    add("--keep", type=int, metavar="N", help="draw 4N samples, keep N: of the better half those that differ most")
    compare = "one more video: the clip, its reconstruction and the results side by side, enlarged, in a loop"
    add("--compare", action="store_true", help=compare)
    command_line.add_sampling(parser)
    requests.add_options(parser)
    return parser.parse(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    args = parse(argv)
    console = command_line.console(live=True)

    def run() -> int:
        request = SampleRequest.from_args(args)
        from jobs.sampling import run  # imports torch, which --help and a bad command line must not wait for

        return SOME_FAILED if run.run(request, console) else DONE

    # VideoError, ShardError and CannotApply are ValueErrors
    stopped = "stopped; what was written before is whole"
    return command_line.exit_code(run, console, ValueError, OSError, stopped=stopped)


if __name__ == "__main__":
    sys.exit(main())

"""How good the samples of trained clips are: figures and pictures of each, and the table of a corpus.

    python jobs/evaluate.py runs/demo                                       # an experiment: all its clips
    python jobs/evaluate.py runs/demo/bikes-… --n 10 --nn 1                 # one clip
    python jobs/evaluate.py --samples other_method/ --real clip.mp4         # videos or images that something else made
    ray job submit --address http://HEAD:8265 --working-dir . -- python jobs/evaluate.py /nfs/runs/demo

Writes evaluation/ in what was given, or --out: results.csv, .json and .md, and of each clip diversity.png (where its
samples differ) and nnf_00.png … (where in the clip their patches come from). An experiment's figures go to MLflow too,
to the runs of its clips, or of a sweep's trials, and of a corpus. Each argument has a table of its own, and each
combination of a sweep.

Searching nearest neighbours takes one core 10 s a sample of 13×54×96, and 16 times as long for twice the height and
width. So it is done of the first samples only (--nn); by default of two, and of none if one would take more than two
minutes. Exit code: 0 all scored; 1 something was not, and why; 2 bad arguments or nothing to score.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from infra.errors import UsageError
from infra.ray_cluster import check_cluster
from jobs import command_line
from jobs.command_line import DONE, SOME_FAILED, UNTRAINED


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ends the process with code 2 on a bad one."""
    parser = command_line.Parser("evaluate.py", __doc__)
    add = parser.add_argument
    given = "folder of train_corpus.py or tune.py, of one clip, its checkpoint.pt, or a URI"
    add("given", nargs="*", type=command_line.path, metavar="EXPERIMENT|CLIP", help=given)
    add("--n", type=int, default=50, help="samples of each clip")
    seed = "of the samples; 1 gives those that train_corpus.py scored, with as many cores a clip"
    add("--seed", type=int, default=1, help=seed)
    add(
        "--features",
        type=command_line.features,
        default="lite0",
        help="lite0, c3d:FILE or inception:FILE: model/README.md, Features by file",
    )
    add("--nn", type=int, help="how many samples are searched for nearest neighbours (default: 2 or none, see above)")
    add(
        "--samples",
        type=command_line.path,
        metavar="DIR",
        help="score the videos in this folder, all of them, against --real; its images, if that is one",
    )
    add("--method", choices=UNTRAINED, help="score this method on the same clips too, a row beside each model's")
    add(
        "--real",
        type=command_line.path,
        metavar="CLIP",
        help="real video, image or trained clip's folder, of --samples or of a checkpoint: of a video its first frames",
    )
    add("--out", type=command_line.path, help="folder or URI for the results (default: evaluation/ in what is given)")
    add("--keep", action="store_true", help="keep the samples too, as mp4")
    add(
        "--dry-run", action="store_true", help="make the checks, print what is scored and how long it takes; do nothing"
    )
    command_line.add_sampling(parser)
    command_line.add_tracking_uri(parser)
    command_line.add_share(parser)
    return parser.parse(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    args = parse(argv)
    from jobs.evaluation import run as evaluation  # imports torch, Ray and MLflow, which --help must not wait for
    from jobs.evaluation.targets import EvaluationRequest
    from model.metrics.option import from_option
    from model.metrics.weight_files import FeaturesError

    console = command_line.console()

    def run() -> int:
        if not args.samples:
            check_cluster()
        if args.n < 1 or args.seed < 0 or (args.nn is not None and args.nn < 0):
            raise UsageError("--n must be 1 or more, --seed and --nn 0 or more")
        if bool(args.given) == bool(args.samples) or (args.samples and not args.real):
            raise UsageError("give experiments or checkpoints, or --samples DIR --real CLIP")
        command_line.check_z_frames(args.z_frames)
        request = EvaluationRequest(
            given=args.given,
            features=from_option(args.features),
            real=args.real,
            out=args.out,
            num_samples=args.n,
            seed=args.seed,
            nn=args.nn,
            method=args.method,
            precision=args.precision,
            latent_frames=args.z_frames,
            keep=args.keep,
            tracking_uri=args.tracking_uri,
            share=command_line.share_of(args),
        )
        if args.samples and (args.method or args.precision or args.z_frames is not None):
            raise UsageError("--method, --precision and --z-frames are for experiments and checkpoints, not --samples")
        if args.samples and args.dry_run:
            raise UsageError("--dry-run: is of experiments and checkpoints, not of --samples; leave it out")
        if args.dry_run:
            from jobs.evaluation.plan import preview

            return SOME_FAILED if preview(request, console) else DONE
        if args.samples:
            failed = evaluation.run_on_folder(request, args.samples, console)
        else:
            failed = evaluation.run(request, console)
        return SOME_FAILED if failed else DONE

    return command_line.exit_code(
        run, console, FeaturesError, stopped="stopped; the same command goes on with the clips that are not scored"
    )


if __name__ == "__main__":
    sys.exit(main())

"""Tables 1 and 2 of the paper: samples of a GAN that was trained on many videos, and ours of one video each (§4.1).

    python jobs/compare_corpus.py --samples tgan_samples/ --name TGAN \\
        --train ucf101/ucfTrainTestlist/trainlist01.txt --test ucf101/ucfTrainTestlist/testlist01.txt

Each of --samples is a video file or a folder of numbered frames. Each of --train and --test is a folder of videos, or a
text file with the path of one a line, as UCF-101's trainlist01.txt and testlist01.txt; a number after the path is its
class and is not needed. The paths start in --videos, by default in the first of these folders that holds one of them:
that of the list, UCF-101/ in it, the one above, UCF-101/ in that. A line that names no file costs that line.

Files are named as UCF-101's, Class/v_Class_gNN_cNN.avi: those of one class and gNN are cut from one source video; a
file of another name counts as a source of its own. Folders may hold links to files.

For every sample s, its nearest clip nn1 in the training set is found and the nearest one of another source video, nn2.
jobs/train_corpus.py trains a model on every nn1, and a random sample of it is compared with s. Running the same command
again decodes and trains only what is missing. Exit code: 0 done; 1 some videos or models failed, a line says which, and
the tables are of the others; 2 bad arguments or nothing to do.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from infra.errors import UsageError
from infra.ray_cluster import check_cluster
from jobs import command_line
from jobs.command_line import DONE, SOME_FAILED
from jobs.experiment.experiment import Experiment
from jobs.experiment.names import check_name
from jobs.training.request import TrainRequest


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ends the process with code 2 on a bad one."""
    parser = command_line.Parser("compare_corpus.py", __doc__)
    add = parser.add_argument
    add("--samples", required=True, type=command_line.path, metavar="DIR", help="videos that the other method made")
    add(
        "--train",
        required=True,
        type=command_line.path,
        metavar="DIR|LIST",
        help="videos that it was trained on, of at least two sources",
    )
    add("--test", required=True, type=command_line.path, metavar="DIR|LIST", help="videos for the FID of Table 2")
    add("--videos", type=command_line.path, metavar="DIR", help="where the paths in a LIST start (default: see above)")
    add("--name", default="baseline", help="of the other method; MoCoGAN, TGAN and TGAN-v2 are in the paper")
    add("--limit", type=int, default=50, help="samples that are drawn at random from --samples")
    add("--features", type=command_line.features, default="lite0", help="lite0 or c3d:FILE")
    add("--stride", type=int, help="frames at 24 FPS between the clips of a video (default: a clip's 13)")
    add("--seed", type=int, default=0, help="of every random choice and of our samples")
    add("--out", default="comparison", type=command_line.path, metavar="DIR", help="for the tables and the vectors")
    add("--workers", type=int, default=os.cpu_count(), help="processes that decode, a core each (default: all cores)")
    command_line.add_preset(parser)
    command_line.add_set(parser)
    command_line.add_storage(parser, "name of the models in storage and MLflow (default: compare-NAME-PRESET)")
    command_line.add_share(parser)
    add(
        "--dry-run",
        action="store_true",
        help="make the checks, print how many videos and models, and how long; do nothing",
    )
    return parser.parse(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    args = parse(argv)
    from jobs.comparison import run as comparison  # imports torch, which --help must not wait for
    from jobs.experiment.settings import ModelSettings
    from model.metrics.option import from_option
    from model.metrics.weight_files import FeaturesError
    from pipeline.clips import FPS, ClipSpec
    from pipeline.video import VideoError

    console = command_line.console(live=True)

    def run() -> int:
        command_line.print_storage(args.storage, console)
        check_cluster()
        config = replace(command_line.config_of(args), fps=FPS)  # models are of the clips that are compared
        if min(args.limit - 1, args.workers, 1 if args.stride is None else args.stride) < 1 or args.seed < 0:
            raise UsageError("--limit must be 2 or more, --workers and --stride 1 or more, --seed 0 or more")
        check_name("--name", args.name)
        if args.videos and os.path.isdir(args.train) and os.path.isdir(args.test):
            raise UsageError(f"--videos {args.videos}: is for lists, --train and --test are folders; leave it out")
        features = from_option(args.features)
        if config.dims == 2:
            raise UsageError(f"--preset {args.preset}: is of images, and this compares videos; give one of videos")
        if features.of_images:
            raise UsageError(f"--features {args.features}: these are of images; give lite0 or c3d:FILE")
        training = TrainRequest(
            corpus=str(Path(args.out) / f"{args.name}_{features.name}_nn1.csv"),
            settings=ModelSettings(config),
            preset=args.preset,
            experiment=Experiment.open(args.storage, args.experiment or f"compare-{args.name}-{args.preset}"),
            tracking_uri=args.tracking_uri,
            num_samples=2,
            share=command_line.share_of(args),
        )
        request = comparison.ComparisonRequest(
            samples=args.samples,
            train=args.train,
            test=args.test,
            videos=args.videos,
            name=args.name,
            limit=args.limit,
            option=args.features,
            features=features,
            spec=ClipSpec(num_frames=config.num_frames, stride=args.stride or config.num_frames),
            seed=args.seed,
            out=Path(args.out),
            workers=args.workers,
            training=training,
        )
        if args.dry_run:
            from jobs.comparison.plan import preview

            return SOME_FAILED if preview(request, console) else DONE
        return SOME_FAILED if comparison.run(request, console) else DONE

    stopped = "stopped; the same command goes on from here"
    return command_line.exit_code(run, console, FeaturesError, VideoError, stopped=stopped)


if __name__ == "__main__":
    sys.exit(main())

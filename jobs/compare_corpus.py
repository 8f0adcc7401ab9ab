"""Tables 1 and 2 of the paper: samples of a GAN that was trained on many videos, and ours of one video each (§4.1).

    python jobs/compare_corpus.py --samples tgan_samples/ --train ucf101/train/ --test ucf101/test/ --name TGAN

Each of --samples is a video file or a folder of numbered frames. --train and --test are laid out as UCF-101 is:
Class/v_Class_gNN_cNN.avi, where the files of one class and gNN are cut from one source video; a file of another name
counts as a source of its own. Folders may hold links to files.

For every sample s, its nearest clip nn1 in the training set is found and the nearest one of another source video, nn2.
jobs/train_corpus.py trains a model on every nn1, and a random sample of it is compared with s. Running the same command
again decodes and trains only what is missing. Exit code: 0 done; 1 some videos or models failed, a line says which, and
the tables are of the others; 2 bad arguments or nothing to do.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from infra.errors import UsageError, printable
from infra.files import replacing
from jobs.command_line import exit_code
from jobs.experiment.corpus import FPS, samples_of
from model.presets import PRESETS
from pipeline.video.header import VideoError

# torch takes seconds to import: only when there is work, so that --help answers at once.
if TYPE_CHECKING:
    from rich.console import Console

    from infra.store import Store
    from jobs.comparison.tables import Row
    from jobs.comparison.vectors import Cuts, EmbeddedClip
    from model.metrics.features import VideoFeatures

DONE, SOME_FAILED = 0, 1
TRAINING = ("--storage", "--tracking-uri", "--gpus-per-clip", "--cpus-per-clip")  # goes to train_corpus.py as it is


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="compare_corpus.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--samples", required=True, metavar="DIR", help="videos that the other method made")
    add("--train", required=True, metavar="DIR", help="videos that it was trained on, of at least two sources")
    add("--test", required=True, metavar="DIR", help="videos for the FID of Table 2")
    add("--name", default="baseline", help="of the other method; MoCoGAN, TGAN and TGAN-v2 are in the paper")
    add("--limit", type=int, default=50, help="samples that are drawn at random from --samples (default: 50)")
    add("--features", default="lite0", help="lite0 or c3d:FILE (default: lite0)")
    add("--stride", type=int, help="frames at 24 FPS between the clips of a video (default: a clip's 13)")
    add("--seed", type=int, default=0, help="of every random choice and of our samples (default: 0)")
    add("--out", default="comparison", metavar="DIR", help="for the tables and the vectors (default: comparison)")
    add("--workers", type=int, default=os.cpu_count(), help="processes that decode, a core each (default: all cores)")
    add("--experiment", help="name of the models in storage and MLflow (default: compare-NAME-PRESET)")
    add("--preset", choices=sorted(PRESETS), default="small", help="as of train_corpus.py (default: small)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="as of train_corpus.py; may be repeated")
    for option in TRAINING:
        add(option, help="as of train_corpus.py")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    from rich.console import Console

    from model.metrics.weight_files import FeaturesError

    console = Console(soft_wrap=True)
    told = "stopped; the same command goes on from here"
    return exit_code(lambda: run(args, console), console, FeaturesError, VideoError, stopped=told)


def run(args: argparse.Namespace, console: Console) -> int:
    config = PRESETS[args.preset]().with_overrides(args.set)
    if min(args.limit - 1, args.workers, 1 if args.stride is None else args.stride) < 1 or args.seed < 0:
        raise UsageError("--limit must be 2 or more, --workers and --stride 1 or more, --seed 0 or more")
    if not re.fullmatch(r"\w[\w.-]*", args.name):
        raise UsageError(f"--name {args.name}: letters, digits, '_', '-' and '.' only; it names files")
    from infra.store import IN_RAY_JOB
    from jobs import train_corpus
    from jobs.comparison.tables import nearest_two, source_of, write_tables
    from jobs.comparison.vectors import Cuts, list_videos
    from jobs.experiment.result import read_results
    from model.metrics.option import from_option

    failures: list[str] = []

    def fail(line: str) -> None:
        failures.append(printable(line))
        console.print(failures[-1], markup=False, highlight=False)

    # -- 1. what there is
    features, out = from_option(args.features), Path(args.out)
    if features.of_images:
        raise UsageError(f"--features {args.features}: these are of images; give lite0 or c3d:FILE")
    manifest = out / f"{args.name}_{features.name}_nn1.csv"
    experiment = args.experiment or f"compare-{args.name}-{args.preset}"
    command = ["--corpus", str(manifest), "--experiment", experiment, "--preset", args.preset, "--n", "2"]
    command += [f"--set={value}" for value in args.set]
    for option in TRAINING:
        if (value := vars(args)[option.strip("-").replace("-", "_")]) is not None:
            command += [option, value]
    train_corpus.check(command)  # what is wrong ends it here, before hours of decoding
    for folder in (args.samples, args.train, args.test):
        list_videos(folder)
    if IN_RAY_JOB in os.environ and not out.is_absolute():
        raise UsageError(f"--out {out}: a Ray job's folder is thrown away; give an absolute path")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be made ({error.strerror}); give another folder") from error
    cuts = Cuts(config.num_frames, args.stride or config.num_frames)
    drawn = _draw(args, features, fail)
    train = _embed(args.train, cuts, features.name, args, fail, console)
    sources = [source_of(clip.path) for clip in train]
    if len(set(sources)) < 2:
        raise UsageError(f"{args.train}: all its clips are of one source video, nn2 must be of another; give more")
    test = _embed(args.test, cuts, features.name, args, fail, console)

    # -- 2. a model of every nn1, by the corpus job
    pairs = nearest_two(np.stack(list(drawn.values())), np.stack([clip.vector for clip in train]), sources)
    neighbours = [(train[first], train[second]) for first, second in pairs]
    found = {nn1.clip_id: nn1 for nn1, _ in neighbours}
    _write_manifest(manifest, found.values())
    console.print(f"{len(drawn)} samples have {len(found)} different nn1 among {len(train)} clips", highlight=False)
    if (code := train_corpus.main(command)) not in (DONE, SOME_FAILED):
        return code
    base = train_corpus.open_experiment(args.storage, experiment)
    done = {clip_id for clip_id, result in read_results(base, found).items() if result.status == "done"}
    failures += [f"{clip_id}: not trained" for clip_id in found if clip_id not in done]  # the corpus job has said why

    # -- 3. scores and tables of the samples whose nn1 has a model
    trained = [(path, nn1, nn2) for path, (nn1, nn2) in zip(drawn, neighbours) if nn1.clip_id in done]
    rows = _score(trained, base, features, cuts, args.seed, fail)
    if len(rows) < 2:
        fail(f"{len(rows)} samples have a model of their nn1, 2 are the least: no tables")
        return SOME_FAILED
    notes = [
        f"nn1: the nearest of {len(train)} training clips, which ours was trained on; nn2: the one of another source.",
        f"Nearest: by mean {features.name} vectors; the paper does not say by what.",
        f"A clip: {cuts.num_frames} frames at 24 FPS, one every {cuts.stride} frames; the paper does not say which.",
    ]
    if others := len({path for path in sources if os.path.isabs(path)}):
        notes.append(f"{others} training videos are not named v_Class_gNN_cNN: each counts as a source of its own.")
    stem, test_set = out / f"{args.name}_{features.name}", np.stack([clip.vector for clip in test])
    page = write_tables(stem, args.name, features.name, rows, test_set, args.seed, notes, failures)
    console.print("\n" + page, markup=False, highlight=False)
    return SOME_FAILED if failures else DONE


# -- what there is


def _draw(args: argparse.Namespace, features: VideoFeatures, fail: Callable[[str], None]) -> dict[str, np.ndarray]:
    """Vectors (D,) float32 of --limit samples drawn at random, by path; `fail` is told of those that cannot be used."""
    from jobs.comparison.vectors import list_videos, read_whole
    from model.metrics.fid import embeddings

    listed, failures = list_videos(args.samples)
    videos = samples_of(listed)
    for line in failures:
        fail(line)
    drawn: dict[str, np.ndarray] = {}
    for index in np.random.default_rng(args.seed).permutation(len(videos)):
        if len(drawn) == args.limit:
            break
        path = videos[index].path
        try:
            drawn[path] = embeddings([read_whole(path)], features)[0].astype(np.float32)
        except VideoError as error:
            fail(str(error))
        except ValueError as error:  # of the features: a single frame
            fail(f"{path}: cannot be compared ({error}); give a longer video")
    if len(drawn) < 2:
        raise UsageError(f"{args.samples}: {len(drawn)} samples can be used, 2 are the least; give more")
    return dict(sorted(drawn.items()))


def _embed(
    folder: str, cuts: Cuts, features: str, args: argparse.Namespace, fail: Callable[[str], None], console: Console
) -> list[EmbeddedClip]:
    """The clips of a folder of videos. Raises UsageError for fewer than two."""
    from rich.progress import Progress

    from jobs.comparison.vectors import embed_folder

    cache = Path(args.out) / f"vectors_{features}_{cuts.num_frames}_{cuts.stride}.npz"
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(f"videos of {Path(folder).name}")
        clips, failures = embed_folder(
            folder,
            cuts,
            args.features,
            cache,
            workers=args.workers,
            warn=lambda line: console.print(line, markup=False, highlight=False),
            advance=lambda number, total: progress.update(bar, completed=number, total=total),
        )
    for line in failures:
        fail(line)
    if len(clips) < 2:
        raise UsageError(f"{folder}: {len(clips)} clips can be used, 2 are the least; give more videos")
    return clips


def _write_manifest(path: Path, clips: Iterable[EmbeddedClip]) -> None:
    """The clips as train_corpus.py takes them."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("clip_id", "path", "start_s"))
    writer.writerows((clip.clip_id, clip.path, clip.start / FPS) for clip in clips)
    with replacing(path) as file:
        file.write(text.getvalue().encode("utf-8", "surrogateescape"))


# -- scores


def _score(
    trained: Sequence[tuple[str, EmbeddedClip, EmbeddedClip]],
    base: Store,
    features: VideoFeatures,
    cuts: Cuts,
    seed: int,
    fail: Callable[[str], None],
) -> list[Row]:
    """A random sample of the model of each nn1, and what it and the baseline's sample score."""
    from rich.console import Console

    from jobs import sample as sampling
    from jobs.comparison.tables import Row, svfids
    from jobs.comparison.vectors import read_clip, read_whole
    from model.checkpoint import CheckpointError
    from model.device import best_device
    from model.metrics.fid import embeddings
    from model.sampling.sample import sample

    rows: list[Row] = []
    for path, nn1, nn2 in trained:
        number = sum(row.nn1 is nn1 for row in rows)
        try:
            stack, _ = sampling.load(f"{base.uri}/{nn1.clip_id}/checkpoint.pt", Console(quiet=True))
            made = sample(stack.to(best_device()), 1, seed, first=number)[0]
            videos = {"baseline": read_whole(path), "ours": made.numpy()}
            reals = {name: read_clip(clip.path, clip.start, cuts) for name, clip in (("nn1", nn1), ("nn2", nn2))}
        except (CheckpointError, VideoError) as error:
            fail(str(error))
            continue
        scores = svfids(videos, reals, features)
        vectors = embeddings(videos.values(), features)
        rows.append(Row(path, nn1, nn2, number, scores, baseline=vectors[0], ours=vectors[1]))
    return rows


if __name__ == "__main__":
    sys.exit(main())

"""What was asked of a sweep, checked; and the sweep that comes of it, which travels to the trials."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infra.errors import UsageError
from infra.ray_cluster import ClipShare
from jobs.command_line import RIVALS, check_samples, config_of, decode_tasks_of, rival_of, share_of
from jobs.experiment.experiment import Experiment, Trials
from jobs.experiment.names import experiment_name
from jobs.experiment.result import SIFID, SVFID
from jobs.tuning.axes import ABLATION, METHOD, Axis, combinations, read_axes
from model.config import TrainConfig
from model.presets import ABLATIONS

if TYPE_CHECKING:
    from infra.tracking.parent import ParentRun

DRAWS = 20  # combinations that Optuna draws where --trials is not given
MODES = {
    SVFID: "min",
    SIFID: "min",
    "diversity": "max",
    "nn_distance": "max",
}  # figures of a scale too, by which is better
LADDER = {"ladder_side", "min_size", "max_size", "scale_factor", "num_scales", "frame_rates", "method", "patch_scale"}
# Of the finest scale alone.
PATCHES = {"patch_size", "patch_alpha", "patch_bandwidth", "patch_passes", "patch_coarse_passes"}
CUT = {"num_frames", "fps", "stride", "resizing"}  # settings that say how videos are cut into clips, which is done once


@dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """What was asked, checked.

    Attributes:
        given: the axes as they were written.
        draws: how many combinations Optuna draws; 0 for a sweep without a range.
        rivals: other methods that every clip is trained with, beside the combinations.
        metric: what ASHA, Optuna and best.json go by.
        features: that samples are scored with too, as --features names them.
        num_samples: a trial, that are scored and kept.
        asha: whether trials are stopped that are among the worse half of their clip.
        restore: whether the sweep that is there goes on.
        tracking_uri: None: the environment's, else the default.
        decode_tasks: how many Ray tasks decode at once; None: as many as the cluster has cores; 0: the driver does.
    """

    corpus: str
    config: TrainConfig
    preset: str
    given: Sequence[str]
    axes: tuple[Axis, ...]
    draws: int
    rivals: Sequence[str]
    metric: str
    features: str
    num_samples: int
    asha: bool
    restore: bool
    experiment: Experiment
    tracking_uri: str | None
    share: ClipShare
    decode_tasks: int | None

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> SweepRequest:
        """Raises UsageError and ConfigError for what cannot work."""
        config = config_of(args)
        given = [*args.sweep, *([f"{ABLATION}={','.join([METHOD, *ABLATIONS])}"] if args.ablations else [])]
        rivals = _rivals(args.rivals)
        axes = read_axes(given, config)
        draws = _draws(args.trials, axes)
        combinations(config, axes, rivals)
        metric = args.metric or (SIFID if config.dims == 2 else SVFID)
        if metric == (SVFID if config.dims == 2 else SIFID):
            raise UsageError(f"--metric {metric}: is not of {'images' if config.dims == 2 else 'videos'}")
        check_samples(args.n)
        if cut := [axis.key for axis in axes if axis.key in CUT]:
            mend = "all trials have the same clips; --set it, and make a sweep of each value"
            raise UsageError(f"--sweep {cut[0]}: {mend}")
        if args.asha and (ladder := [axis.key for axis in axes if axis.key in LADDER]):
            cause = f"{ladder[0]} changes what a scale is, so scales do not compare"
            raise UsageError(f"--asha: {cause}; leave out --asha")
        if args.asha and rivals:
            raise UsageError("--asha: the scales of rivals do not compare with the others'; leave out --asha")
        if args.asha and (config.method != "hpvaegan" or any(axis.key in PATCHES for axis in axes)):
            raise UsageError("--asha: goes by trained scales, and these trials do not differ in them; leave out --asha")
        name = args.experiment or "-".join(
            [*filter(None, [experiment_name(args.corpus, args.preset), rival_of(args)]), *(axis.key for axis in axes)]
        )
        return cls(
            corpus=args.corpus,
            config=config,
            preset=args.preset,
            given=given,
            axes=axes,
            draws=draws,
            metric=metric,
            rivals=rivals,
            features=args.features,
            num_samples=args.n,
            asha=args.asha,
            restore=args.restore,
            experiment=Experiment.open(args.storage, name),
            tracking_uri=args.tracking_uri,
            share=share_of(args),
            decode_tasks=decode_tasks_of(args),
        )


@dataclass(frozen=True)
class Sweep:
    """A sweep under way.

    Attributes:
        listed: the trials; none where Optuna draws them.
        parent: the sweep's run in MLflow.
    """

    request: SweepRequest
    listed: Trials
    parent: ParentRun


def _rivals(given: str | None) -> tuple[str, ...]:
    """The methods of --rivals. Raises UsageError."""
    names = tuple(dict.fromkeys(name.strip() for name in (given or "").split(",") if name.strip()))
    for name in names:
        if name not in RIVALS:
            raise UsageError(f"--rivals {name}: no such method; give some of {', '.join(RIVALS)}")
    return names


def _draws(given: int | None, axes: Sequence[Axis]) -> int:
    """How many combinations Optuna draws: 0 for a sweep without a range. given: --trials. Raises UsageError."""
    if all(axis.ends is None for axis in axes):
        if given is not None:
            raise UsageError(f"--trials {given}: counts draws from a range, and the sweep has none; leave it out")
        return 0
    if given is not None and given < 1:
        raise UsageError(f"--trials {given}: at least 1")
    if importlib.util.find_spec("optuna") is None:
        raise UsageError("--sweep: a range needs Optuna; pip install '.[tune]', or list the values")
    return given or DRAWS

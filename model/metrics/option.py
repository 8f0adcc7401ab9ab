"""Feature networks by the words of a command line."""

from __future__ import annotations

from pathlib import Path

from model.metrics.c3d import C3dFeatures
from model.metrics.features import VideoFeatures
from model.metrics.inception import InceptionFeatures
from model.metrics.lite0 import Lite0Features, Lite0FrameFeatures
from model.metrics.names import FEATURES, is_features
from model.metrics.weight_files import FeaturesError


def from_option(option: str) -> VideoFeatures:
    """The features that `--features` names.

    Args:
        option: `lite0`, `c3d:FILE`, `c3d:FILE,REFERENCE`, `inception:FILE` or `inception192:FILE`. Which project's file
            it is, is found out by its contents. REFERENCE: see `C3dFeatures`; 192: `InceptionFeatures`.

    Raises:
        FeaturesError: another word, no FILE, or a file without such weights.
    """
    if not is_features(option):
        raise FeaturesError(f"no features {option!r}; give {FEATURES}")
    kind, _, file = option.partition(":")
    if kind == "lite0":
        return Lite0Features()
    if kind == "c3d":
        first, comma, reference = file.rpartition(",")
        if comma and not Path(file).exists():
            return C3dFeatures(Path(first), Path(reference))
        return C3dFeatures(Path(file))
    return InceptionFeatures(Path(file), dims=192) if kind == "inception192" else InceptionFeatures(Path(file))


def features_for(dims: int, features: VideoFeatures | None = None) -> VideoFeatures:
    """The features that clips are scored with.

    Args:
        dims: 3 of videos, 2 of images, which have one frame.
        features: None: Lite0.

    Raises FeaturesError for features of videos only, where clips are images.
    """
    if features is None:
        return Lite0Features() if dims == 3 else Lite0FrameFeatures()
    if dims == 3 or features.of_images:
        return features
    if isinstance(features, Lite0Features):
        return Lite0FrameFeatures()
    raise FeaturesError(f"features {features.name}: are of videos; for images give lite0 or inception:FILE")

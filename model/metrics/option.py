"""Feature networks by the words of a command line."""

from __future__ import annotations

from pathlib import Path

from model.metrics.c3d import C3dFeatures
from model.metrics.features import VideoFeatures
from model.metrics.inception import InceptionFeatures
from model.metrics.lite0 import Lite0Features
from model.metrics.weight_files import FeaturesError


def from_option(option: str) -> VideoFeatures:
    """The features that `--features` names.

    Args:
        option: `lite0`, `c3d:FILE`, `c3d:FILE,REFERENCE` or `inception:FILE`. Which project's file it is, is found
            out by its contents. REFERENCE: see `C3dFeatures`.

    Raises:
        FeaturesError: another word, no FILE, or a file without such weights.
    """
    kind, _, file = option.partition(":")
    if option == "lite0":
        return Lite0Features()
    if kind == "c3d" and file:
        first, comma, reference = file.rpartition(",")
        if comma and not Path(file).expanduser().exists():
            return C3dFeatures(Path(first).expanduser(), Path(reference).expanduser())
        return C3dFeatures(Path(file).expanduser())
    if kind == "inception" and file:
        return InceptionFeatures(Path(file).expanduser())
    raise FeaturesError(f"no features {option!r}; give lite0, c3d:FILE or inception:FILE")

"""The vectors that a Fréchet distance compares: network features at every location of a video.

Legend: video_cthw is float RGB in [-1, 1], (3, T, H, W), an image is a video of one frame; a vector array is float64,
(locations, dims).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from infra.errors import Refusal

# A decoder or a pyramid hands over numpy, a generator torch; both are read, neither is changed.
Video = np.ndarray | torch.Tensor


class VideoFeatures(Protocol):
    """What `svfid.svfid` needs of a feature network: a name for the metric, and vectors for a video."""

    @property
    def name(self) -> str:
        """Suffix of every metric made with these features (`svfid_lite0`): other features, other name."""

    @property
    def rank_deficient(self) -> bool:
        """Whether a video has fewer locations than dims, and the metric is defined so all the same."""

    @property
    def of_images(self) -> bool:
        """Whether they are of single frames, each a distribution of its own: the metric is SIFID then."""

    def __call__(self, video_cthw: Video) -> np.ndarray:
        """Vectors of one video, float64 (locations, dims)."""


def checked_video(video: Video, ndim: int) -> torch.Tensor:
    """The video as float32 on its own device, small overshoots cut to [-1, 1] as 8-bit files would.

    Args:
        video: floating point RGB in [-1, 1]; (3, T, H, W) for ndim 4, (N, 3, T, H, W) for ndim 5.
        ndim: 4 for one video, 5 for a batch of samples.

    Returns:
        float32 tensor of the same shape, detached, in [-1, 1].

    Raises:
        TypeError: integer values (uint8 frames are a different layout and range).
        ValueError: wrong rank, not three channels, nothing in it, a NaN or infinity, or values beyond ±2,
            which are not [-1, 1] with overshoot but another range.
    """
    layout = {4: "(3, T, H, W)", 5: "(N, 3, T, H, W)"}[ndim]
    # The copy is for arrays that torch refuses or warns about: reversed views, read-only shared memory.
    tensor = torch.from_numpy(np.array(video)) if isinstance(video, np.ndarray) else video.detach()
    if not tensor.is_floating_point():
        raise TypeError(f"video must be floating point RGB in [-1, 1], got {tensor.dtype}")
    if tensor.ndim != ndim or tensor.shape[-4] != 3 or tensor.numel() == 0:
        raise Refusal(f"video must be {layout} and not empty, got {tuple(tensor.shape)}")
    tensor = tensor.to(torch.float32)
    if not bool(torch.isfinite(tensor).all()):
        raise Refusal(f"video {tuple(tensor.shape)} holds NaN or infinite values")
    if float(tensor.abs().amax()) > 2.0:
        low, high = float(tensor.amin()), float(tensor.amax())
        raise Refusal(f"video must be in [-1, 1], got [{low:g}, {high:g}]: another range?")
    return tensor.clamp(-1.0, 1.0)

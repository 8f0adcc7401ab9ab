"""What goes wrong with a file, in one line."""

import os
import re

from infra.errors import printable


class VideoError(ValueError):
    """A video cannot be used. `str(e)` is one line: "<file>: <cause>; <mend>"."""


def video_error(path: str | os.PathLike[str], cause: str, mend: str) -> VideoError:
    """The one line that says which file, what is wrong, and what to do."""
    return VideoError(f"{printable(path)}: {cause}; {mend}")


def read_failure(path: str | os.PathLike[str], stderr: bytes) -> VideoError:
    """The error for a file that FFmpeg could not read and said so in these lines."""
    line = telling_line(path, stderr)
    if b"not on whitelist" in stderr:
        return video_error(path, "is in no video format that is read here", "convert it to mp4")
    if b"Cannot allocate memory" in stderr:
        return video_error(path, "needs more memory to be read than is allowed", "re-encode the file")
    if b"moov atom not found" in stderr:
        return video_error(path, "is cut off or was never finished (moov atom not found)", "copy it again")
    if stderr.rstrip().endswith(b"End of file"):
        return video_error(path, "ends before its first picture", "copy or export it again")
    return video_error(path, f"is not a video that ffmpeg can read ({line})", "check it, or convert it to mp4")


def telling_line(path: str | os.PathLike[str], stderr: bytes) -> str:
    """Of ffmpeg's lines on `path`, the first that is not about the command itself; no names or addresses."""
    text = stderr.decode("utf-8", "replace").replace(f"file:{os.fspath(path)}", "")
    lines = [re.sub(r"^(\[[^]]*\]\s*)+", "", line).strip(": \r\t") for line in text.splitlines()]
    noise = ("Conversion failed", "Error opening input", "Error opening output", "Nothing was written")
    telling = [x for x in lines if x and not x.startswith(noise) and not x.endswith("misdetection possible!")]
    return printable((telling or lines or ["no reason given"])[0])[:200].rstrip(".")

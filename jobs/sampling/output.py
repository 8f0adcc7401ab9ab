"""Where the results of `sample.py` go: a folder, or one file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from infra.errors import UsageError, printable
from jobs.reports.pictures import write_png
from jobs.reports.side_by_side import LOOP_S, side_by_side_video
from pipeline import video
from pipeline.formats import VIDEO_SUFFIXES

# By the dims of the model: into a folder, and as the file of one result.
WRITTEN = {3: (".mp4", ".gif"), 2: (".png",)}
ALONE = {3: video.ENCODED_SUFFIXES, 2: (".png",)}
KINDS = {3: ("a video", "give .mp4, .mkv or .gif, or a folder"), 2: ("an image", "give .png, or a folder")}
COMPARED = 6  # results in a comparison at most


@dataclass(frozen=True)
class Output:
    """What --out names.

    Attributes:
        folder: that results go into.
        file: that the one result becomes; None: each gets a name of its own in the folder.
        dims: of the model: 3 of videos, 2 of images.
    """

    folder: Path
    file: Path | None
    dims: int

    @classmethod
    def named(cls, path: Path, dims: int, results: int, one_result: str) -> Output:
        """--out, for so many results. Raises UsageError for a file that cannot hold them.

        Args: one_result: what asks for one result; "" where nothing does.
        """
        suffix = path.suffix.lower()
        if path.is_dir() or suffix not in VIDEO_SUFFIXES | video.IMAGE_SUFFIXES:
            return cls(path, None, dims)
        if suffix not in ALONE[dims]:
            kind, mend = KINDS[dims]
            raise UsageError(f"--out {printable(path)}: {kind} is not written as {suffix}; {mend}")
        if results != 1:
            mend = "give a folder" + (f", or {one_result}" if one_result else "")
            raise UsageError(f"--out {printable(path)}: is one file, and there are {results} results; {mend}")
        return cls(path.parent, path, dims)

    def make_folder(self) -> None:
        """Raises UsageError, one line, where it cannot be."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            cause = f"--out {printable(self.folder)}: cannot be made ({error.strerror})"
            raise UsageError(f"{cause}; give a folder, or the name of one that is not there") from error

    def check_apart(self, read: Iterable[str]) -> None:
        """Raises UsageError if the file of the result is one of those that are read."""
        for path in read:
            if self.file is not None and os.path.exists(path) and self.file.exists() and self.file.samefile(path):
                raise UsageError(f"--out {self}: is the file that is read; give another name")

    def paths(self, name: str, *, gif: bool = True) -> list[Path]:
        """The files of a result. gif: whether a video in the folder gets a .gif too."""
        if self.file is not None:
            return [self.file]
        return [self.folder / f"{name}{suffix}" for suffix in WRITTEN[self.dims] if gif or suffix != ".gif"]

    def picture(self, name: str, page: np.ndarray) -> None:
        """A picture of all results, uint8 (H, W, 3), into the folder; of one file there is none."""
        if self.file is None:
            write_png(page, self.folder / f"{name}.png")

    def check_comparison(self) -> None:
        """Raises UsageError where there can be none."""
        if self.dims == 2:
            raise UsageError("--compare: is a video, and this model makes images, which the sheet shows; leave it out")
        if self.file is not None:
            raise UsageError("--compare: is a second file beside the result; give a folder as --out")

    def comparison(self, name: str, videos: dict[str, np.ndarray], fps: float) -> None:
        """Videos side by side, by label, as an .mp4 in the folder."""
        video.encode(side_by_side_video(videos), self.folder / f"{name}.mp4", fps=fps, least_s=LOOP_S)

    def __str__(self) -> str:
        return printable(self.file or self.folder)

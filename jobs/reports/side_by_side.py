"""One video of several: side by side, each under its label, enlarged so that what was computed is seen."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

LEAST_WIDTH, MOST_SIDE = 1200, 4096  # px of the page: players decode no more than 4096 in hardware
LOOP_S = 4.0  # seconds it plays at least
GAP = 8  # px around each video
HEADER, FONT_PX = 32, 20  # px of a row's labels
PAPER, INK = (24, 24, 24), (255, 255, 255)


def side_by_side_video(videos: Mapping[str, np.ndarray]) -> np.ndarray:
    """Videos in a row, each under its label; in several rows where one would be wider than 4,096 px.

    All are enlarged by the same whole factor, the least that makes the page 1,200 px wide. A shorter one begins again
    until the longest one ends. As a file it should play in a loop, of LOOP_S at least.

    Args: videos: by label, uint8 (T, H, W, 3) RGB, of one height and width; T may differ.

    Returns uint8 (T', H', W', 3) RGB; T' is the largest T; H' and W' are even, as H.264 needs them.
    Raises ValueError for no videos, or for videos of several heights or widths.
    """
    sizes = {video.shape[1:3] for video in videos.values()}
    if len(sizes) != 1:
        raise ValueError(f"videos of one height and width are needed, got {sorted(sizes)}")
    ((height, width),) = sizes
    across = max(1, min(len(videos), (MOST_SIDE - GAP) // (width + GAP)))
    rows = -(-len(videos) // across)
    zoom = _zoom(height, width, across, rows)
    cell_height, cell_width = height * zoom + HEADER + GAP, width * zoom + GAP
    page = _labels(list(videos), across, (rows * cell_height, across * cell_width + GAP), (cell_height, cell_width))
    longest = max(map(len, videos.values()))
    frames = np.broadcast_to(page, (longest, *page.shape)).copy()
    for place, video in enumerate(videos.values()):
        row, column = divmod(place, across)
        top, left = row * cell_height + HEADER, column * cell_width + GAP
        large = video.repeat(zoom, axis=1).repeat(zoom, axis=2)
        frames[:, top : top + height * zoom, left : left + width * zoom] = large[np.arange(longest) % len(video)]
    return frames


def _zoom(height: int, width: int, across: int, rows: int) -> int:
    """The least whole factor that makes the page wide enough, if it does not become too high by that."""
    wide_enough = -(-(LEAST_WIDTH - GAP * (across + 1)) // (across * width))
    not_too_high = (MOST_SIDE // rows - HEADER - GAP) // height
    return max(1, min(wide_enough, not_too_high))


def _labels(labels: list[str], across: int, size: tuple[int, int], cell: tuple[int, int]) -> np.ndarray:
    """The page without videos, uint8 (H, W, 3), of even sides. size, cell: (height, width), px."""
    page = Image.new("RGB", (size[1] + size[1] % 2, size[0] + size[0] % 2), PAPER)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(FONT_PX)
    for place, label in enumerate(labels):
        row, column = divmod(place, across)
        at = (column * cell[1] + GAP, row * cell[0] + HEADER // 2)
        draw.text(at, _cut(label, font, cell[1] - 2 * GAP), fill=INK, font=font, anchor="lm")
    return np.asarray(page)


def _cut(label: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """As much of the label as fits."""
    if font.getlength(label) <= width:
        return label
    fitting = next((n for n in range(len(label), 0, -1) if font.getlength(f"{label[:n]}…") <= width), 0)
    return f"{label[:fitting]}…"

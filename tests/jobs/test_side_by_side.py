"""jobs/reports/side_by_side.py: the pixels of the videos, enlarged by whole factors, in a loop that players play."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jobs.reports.side_by_side import LOOP_S, side_by_side_video
from pipeline import video


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, (*shape, 3), dtype=np.uint8)


def shown_as(page: np.ndarray, pixels: np.ndarray, zoom: int) -> tuple[int, int]:
    """(top, left) of the one place where a picture is on the page, every pixel of it `zoom` times as large."""
    large = np.kron(pixels, np.ones((zoom, zoom, 1), np.uint8))
    height, width, _ = large.shape
    found = [
        (top, left)
        for top, left in np.argwhere((page[:, :, :] == large[0, 0]).all(axis=-1))
        if np.array_equal(page[top : top + height, left : left + width], large)
    ]
    assert len(found) == 1
    return int(found[0][0]), int(found[0][1])


def test_a_row_of_videos_each_frame_enlarged(tmp_path: Path) -> None:
    """Six of demo's 13×54×96: 2 times, the least whole factor that gives 1,200 px."""
    names = ("original", "reconstruction", "sample 0", "sample 1", "sample 2", "sample 3")
    videos = {name: noise(13, 54, 96 + place)[:, :, :96] for place, name in enumerate(names)}
    page = side_by_side_video(videos)
    frames, height, width, _ = page.shape
    assert page.dtype == np.uint8 and height % 2 == width % 2 == 0 and 1200 <= width < 6 * 3 * 96
    assert frames == 13
    for at in (0, 12, 5):
        places = [shown_as(page[at], frames_of[at], 2) for frames_of in videos.values()]
        assert len({top for top, _ in places}) == 1 and [left for _, left in places] == sorted({p[1] for p in places})
    top, left = places[0]
    heading = page[0, :top, left : left + 2 * 96].astype(int)
    ink = np.argwhere(heading.sum(axis=-1) > 600)
    assert np.ptp(ink[:, 0]) >= 14 and np.ptp(ink[:, 1]) > 50  # letters as high as those of a text, and white
    video.encode(page, tmp_path / "page.mp4", fps=6, least_s=LOOP_S)
    info = video.probe(tmp_path / "page.mp4")
    assert (info.width, info.height) == (width, height)
    assert video.count_frames(info, 6) == 26  # 4 s are 24 frames, and 26 two rounds


def test_a_shorter_video_begins_again() -> None:
    page = side_by_side_video({"clip": (clip := noise(3, 10, 20)), "longer": (longer := noise(7, 10, 20))})
    assert len(page) == 7
    zoom = 30  # 2·20·30 px are 1,200
    assert shown_as(page[3], clip[0], zoom)[1] < shown_as(page[3], longer[3], zoom)[1]


def test_videos_that_are_too_wide_for_one_row_are_in_several() -> None:
    videos = {str(number): noise(1, 4, 1400 + number)[:, :, :1400] for number in range(3)}
    page = side_by_side_video(videos)
    assert page.shape[0] == 1 and page.shape[2] < 4096
    (top, left), second, third = (shown_as(page[0], each[0], 1) for each in videos.values())
    assert second[0] == top and second[1] > left and third[0] > top and third[1] == left


def test_odd_sizes_and_labels_of_any_length() -> None:
    for size in ((2, 15, 33), (2, 301, 3)):
        page = side_by_side_video({"a name that is longer than its video is wide " * 9: noise(*size)})
        assert page.shape[1] % 2 == page.shape[2] % 2 == 0 and max(page.shape[1:3]) <= 4096


@pytest.mark.parametrize("videos", [{}, {"one": noise(2, 8, 8), "other": noise(2, 8, 9)}])
def test_videos_of_several_sizes_are_refused(videos: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="of one height and width are needed"):
        side_by_side_video(videos)

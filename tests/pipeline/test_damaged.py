"""Long videos with a damaged middle: what is before and after is used as it is, what is lost is told in one line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import packets
import pytest

from pipeline import clips, shards, video
from pipeline.clips import ClipSpec
from pipeline.video import container

ROOT = Path(__file__).resolve().parent.parent.parent
KINDS = {
    "h264.mp4": ("-g", 24),
    "h264.mkv": ("-g", 24),
    "h264.ts": ("-g", 24),
    "mpeg4.avi": ("-c:v", "mpeg4", "-g", 12),
    "hevc.mp4": ("-c:v", "libx265", "-x265-params", "log-level=none:keyint=24:min-keyint=24:open-gop=0"),
}
STARTS = range(0, 168, 12)  # of clips of 13 frames: they overlap by one


def damaged(path: Path, part: tuple[float, float]) -> tuple[int, int]:
    """The bytes begin .. end - 1 that are this part of the file."""
    begin, end = (round(path.stat().st_size * edge) for edge in part)
    return begin, end


def damage(path: Path, target: Path, part: tuple[float, float]) -> Path:
    """The file with noise in place of a part of its bytes."""
    raw = bytearray(path.read_bytes())
    begin, end = damaged(path, part)
    raw[begin:end] = np.random.default_rng(0).integers(0, 256, end - begin, dtype=np.uint8).tobytes()
    target.write_bytes(raw)
    return target


@pytest.fixture(scope="module", params=sorted(KINDS))
def whole(request: pytest.FixtureRequest, lavfi: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("films") / request.param
    return lavfi(path, "mandelbrot=size=96x64:rate=24", 192, "-pix_fmt", "yuv420p", *KINDS[request.param])


@pytest.mark.parametrize("part", [(0.03, 0.06), (0.40, 0.50), (0.70, 0.76)], ids=["early", "middle", "late"])
def test_clips_beside_the_damage_are_those_of_the_whole_file_and_no_other_is_given(
    tools: str, whole: Path, tmp_path: Path, part: tuple[float, float]
) -> None:
    """What is hit is told by where the frames lie in the file: the same for any encoder and any decoder."""
    film = damage(whole, tmp_path / whole.name, part)
    sound = list(video.decode_each(whole, STARTS, num_frames=13))
    found = list(video.decode_each(film, STARTS, num_frames=13))
    lost = {place for place, clip in enumerate(found) if isinstance(clip, video.Damaged)}
    frames = packets.stored(whole, 24)
    spoilt = [packets.spoilt(frames, start, 13, *damaged(whole, part)) for start in STARTS]
    may_be_lost = {place for place, (may_be, _) in enumerate(spoilt) if may_be}
    must_be_lost = {place for place, (_, must_be) in enumerate(spoilt) if must_be}
    assert must_be_lost and len(may_be_lost) <= len(STARTS) - 8  # else the damage proves nothing
    assert must_be_lost <= lost <= may_be_lost
    for place, (clip, same) in enumerate(zip(found, sound, strict=True)):
        if place not in lost:
            np.testing.assert_array_equal(clip, same)


def test_a_clip_beside_damage_is_turned_and_resampled_as_the_whole_file_is(
    tools: str,
    lavfi: Callable[..., Path],
    ffmpeg: Callable[..., None],
    turn: Callable[[Path, int], None],
    tmp_path: Path,
) -> None:
    """Of 25 frames a second, by its own packets: a rotated mp4, and a picture that begins behind its sound."""
    options = ("-pix_fmt", "yuv420p", "-g", 25)
    turned = lavfi(tmp_path / "turned.mp4", "mandelbrot=size=96x64:rate=25", 200, *options)
    late = tmp_path / "late.mkv"
    tone = ["-f", "lavfi", "-t", 8, "-i", "sine"]
    ffmpeg(*tone, "-itsoffset", "0.52", "-i", turned, "-map", "1:v", "-map", "0:a", "-c:v", "copy", late)
    turn(turned, 90)
    for path in (turned, late):
        film = damage(path, tmp_path / f"bad{path.suffix}", (0.40, 0.50))
        whole = video.decode(path)
        found = list(video.decode_each(film, [0, 36, 120, 150], num_frames=13))
        for start, clip in zip([0, 36, 120, 150], found, strict=True):
            np.testing.assert_array_equal(clip, whole[start : start + 13])


def test_the_damage_of_a_file_is_one_line_with_its_time(whole: Path, tmp_path: Path) -> None:
    film = damage(whole, tmp_path / whole.name, (0.40, 0.50))
    planned = clips.plan([str(film)], ClipSpec(stride=13))
    written = shards.write(planned.clips, tmp_path / "shards")
    (failure,) = written.failures
    lost = len(planned.clips) - len(written.clip_ids)
    times = [float(word) for word in failure.reason.split() if word.replace(".", "").isdigit() and "." in word]
    assert f"{whole.name}: is damaged between {times[0]:.1f} s and {times[1]:.1f} s" in failure.reason
    assert ("the clip" if lost == 1 else f"{lost} clips") in failure.reason
    assert "copy or export it again; what is before and after is used" in failure.reason
    gone = {plan.clip_id: plan.start_frame for plan in planned.clips if plan.clip_id not in written.clip_ids}
    assert times == pytest.approx([min(gone.values()) / 24, (max(gone.values()) + 13) / 24], abs=0.06)
    assert sorted(entry.clip_id for entry in shards.index(tmp_path / "shards")) == sorted(written.clip_ids)


def test_damage_without_end_is_soon_done_with(
    lavfi: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten minutes, of which all but the first second is noise: it is looked at closely a few times, not a thousand."""
    film = lavfi(tmp_path / "film.mkv", "testsrc=size=32x32:rate=24", 14_400, "-g", 24, "-pix_fmt", "yuv420p")
    planned = clips.plan([str(film)], ClipSpec(stride=13))
    damage(film, film, (0.01, 1.0))
    tries, undecodable = [], container.undecodable

    def counted(*args: object) -> object:
        tries.append(args)
        return undecodable(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(container, "undecodable", counted)
    found = list(video.decode_each(film, range(0, 14_000, 13), num_frames=13))
    assert isinstance(found[0], np.ndarray) and isinstance(found[-1], video.VideoError)
    assert len(tries) < 40
    written = shards.write(planned.clips, tmp_path / "shards")
    assert len(written.failures) <= 4
    assert any("later clips of it be decoded" in failure.reason for failure in written.failures)


@pytest.mark.slow
def test_twenty_minutes_are_cut_within_600_mb(
    lavfi: Callable[..., Path], ffmpeg: Callable[..., None], tmp_path: Path
) -> None:
    """Peak memory of the job and of the ffmpeg it runs; the raw frames are 590 MB."""
    part = lavfi(tmp_path / "part.mp4", "testsrc=size=96x72:rate=24", 240, "-preset", "ultrafast", "-g", 240)
    film = tmp_path / "film.mp4"
    ffmpeg("-stream_loop", 119, "-i", part, "-c", "copy", film)
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    job = [sys.executable, str(ROOT / "jobs/make_shards.py"), str(film), "--out", str(tmp_path / "shards")]
    done = subprocess.run([sys.executable, "-c", code, *job], capture_output=True, text=True, check=True, timeout=300)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
    assert int(done.stdout.split()[-1]) * unit <= 600e6
    assert len(shards.index(tmp_path / "shards")) == 28_800 // 13

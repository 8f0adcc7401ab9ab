"""Videos as cameras, recorders and programs leave them. Each frame carries its number, so that a test can read it."""

import re
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from orientations import STORED
from PIL import Image

from pipeline import shards, video
from pipeline.clips import ClipSpec, plan
from pipeline.video import mpeg2, one_pass, picture

pillow_heif.register_heif_opener()
BARS = [[235, 235, 235], [235, 235, 16], [16, 235, 235], [16, 235, 16], [235, 16, 235], [235, 16, 16], [16, 16, 235]]
BARS = np.array([*BARS, [16, 16, 16]], np.uint8)
X264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", 10, "-g", 12)


def numbered(count, width=96, height=64, first=0):
    """Upper half: eight colour bars. Below: the frame's number in eight squares, black or white, then its inverse."""
    clip = np.zeros((count, height, width, 3), np.uint8)
    for t in range(count):
        for bar in range(8):
            at, bit = slice(bar * width // 8, (bar + 1) * width // 8), ((t + first) >> (7 - bar)) & 1
            clip[t, : height // 2, at] = BARS[bar]
            clip[t, height // 2 : 3 * height // 4, at] = 235 if bit else 16
            clip[t, 3 * height // 4 :, at] = 16 if bit else 235
    return clip


def read(frames_thwc):
    """The numbers of frames."""
    _, height, width, _ = frames_thwc.shape
    row = frames_thwc[:, height * 5 // 8, [(2 * bar + 1) * width // 16 for bar in range(8)]].mean(-1) > 127
    return [int("".join("01"[bit] for bit in bits), 2) for bits in row.astype(int).tolist()]


def bars(frames_thwc):
    """The colour of each bar, from the middle of it."""
    _, height, width, _ = frames_thwc.shape
    return np.stack([frames_thwc[:, height // 4, (2 * bar + 1) * width // 16].mean(0) for bar in range(8)])


@pytest.fixture
def make(tmp_path, wheel):
    """make("a.mp4", frames, fps, *output_args): a video of these frames."""

    def run(name, clip, fps, *args):
        path = tmp_path / name
        size = f"{clip.shape[2]}x{clip.shape[1]}"
        given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-framerate", str(fps), "-i", "pipe:0"]
        command = [wheel, "-v", "error", "-y", *given, *map(str, args), str(path)]
        subprocess.run(command, input=clip.tobytes(), check=True)
        return path

    return run


def clips_of(path, spec=None):
    """What is written of a source: for each clip its numbers; and what is said."""
    planned = plan([str(path)], spec or ClipSpec(stride=13))
    folder = Path(str(path) + ".shards")
    written = shards.write(planned.clips, folder)
    said = [failure.reason for failure in (*planned.failures, *written.failures)]
    found = {clip.clip_id: clip.frames_thwc for clip in shards.read(folder)} if written.clip_ids else {}
    return [found[clip.clip_id] for clip in planned.clips if clip.clip_id in found], said, planned


def every(count, start=0):
    return [list(range(at, at + 13)) for at in range(start, start + count - 12, 13)]


# ---- times


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("a.vob", ("-c:v", "mpeg2video", "-q:v", 4, "-bf", 2, "-g", 12, "-f", "vob")),
        ("a.mpg", ("-c:v", "mpeg1video", "-q:v", 4, "-bf", 2, "-g", 12)),
        ("a.avi", ("-c:v", "mpeg4", "-bf", 2, "-q:v", 4)),
        ("a.m1v", ("-c:v", "mpeg1video", "-q:v", 4)),
        ("b.m1v", ("-c:v", "mpeg1video", "-q:v", 4, "-bf", 2)),
        ("h.avi", (*X264, "-bf", 3)),
        ("a.m2v", ("-c:v", "mpeg2video", "-q:v", 4, "-bf", 2)),
    ],
)
def test_packets_without_times(tools, make, name, args):
    path = make(name, numbered(60), 25, *args)
    due = [int(np.floor((i + 0.5) * 25 / 24 - 1e-9)) for i in range(58)]  # frame n is shown from round(0.96 n) on
    assert video.count_frames(video.probe(path)) == 58  # 57.6
    found, said, _ = clips_of(path)
    assert len(found) == 4 and not said
    assert [n for clip in found for n in read(clip)] == due[:52]


def test_a_raw_stream_that_is_cut_from_an_open_gop_begins_at_its_key_frame(tools, make, tmp_path):
    raw = make("whole.m2v", numbered(100), 25, "-c:v", "mpeg2video", "-q:v", 4, "-bf", 2, "-g", 12).read_bytes()
    starts = [found.start() for found in re.finditer(b"\0\0\1\xb3", raw)]
    (tmp_path / "cut.m2v").write_bytes(raw[starts[2] :])
    found, said, _ = clips_of(tmp_path / "cut.m2v", ClipSpec(stride=13, fps=None))
    first = read(found[0])[0]
    assert [read(clip) for clip in found] == every(100 - first, first) and not said


@pytest.mark.parametrize(
    ("source", "rate", "codec"),
    [
        ("bare.avi", 1, (*X264, "-bf", 3)),
        ("bare.h264", 24, (*X264, "-bf", 3)),
        ("bare.h264", 60, (*X264, "-bf", 3)),
        ("bare.hevc", 24, ("-c:v", "libx265", "-x265-params", "log-level=none:bframes=3", "-pix_fmt", "yuv420p")),
        ("bare.avi", 24, ("-c:v", "mpeg4", "-q:v", 3, "-bf", 2)),
    ],
)
def test_an_mp4_that_has_the_times_of_storage(tools, make, ffmpeg, source, rate, codec):
    """As `ffmpeg -c copy` makes it of B-frames without times. The edit list of some hides their first pictures."""
    bare = make(source, numbered(60), rate, *codec)
    path = bare.with_suffix(".mp4")
    ffmpeg(*(() if source == "bare.avi" else ("-framerate", rate)), "-i", bare, "-c", "copy", path)
    found, said, planned = clips_of(path, ClipSpec(stride=13, fps=None))
    first = read(found[0])[0]
    assert [read(clip) for clip in found] == every(60 - first, first) and first <= 2
    assert not said and not planned.notes
    step = rate / 24
    due = [int(np.ceil((i + 0.5) * step - 1)) + first for i in range(13)]  # frame n is shown from round(n / step) on
    assert read(video.decode(path, num_frames=13)) == due


@pytest.mark.parametrize("suffix", ["h264", "hevc"])
def test_streams_without_a_container(tools, make, suffix):
    codec = X264 if suffix == "h264" else ("-c:v", "libx265", "-x265-params", "log-level=none", "-pix_fmt", "yuv420p")
    found, said, _ = clips_of(make(f"raw.{suffix}", numbered(40), 24, *codec))
    assert [read(clip) for clip in found] == every(40) and not said


def test_a_cut_from_an_open_gop_begins_at_its_key_frame(tools, make, ffmpeg, tmp_path):
    params = "log-level=none:crf=12:open-gop=1:keyint=24:min-keyint=24:bframes=4:scenecut=0"
    whole = make("og.mp4", numbered(120), 24, "-c:v", "libx265", "-x265-params", params, "-pix_fmt", "yuv420p")
    ffmpeg("-ss", "1.0", "-i", whole, "-c", "copy", tmp_path / "cut.mkv")
    found, said, _ = clips_of(tmp_path / "cut.mkv")
    assert [read(clip) for clip in found] == every(96, 24) and not said


def transported(make, ffmpeg, name, clip, *args):
    path = make(name + ".mp4", clip, 24, *X264)
    ts = path.with_suffix(".ts")
    ffmpeg("-i", path, "-c", "copy", *args, ts)
    return ts.read_bytes()


def test_a_recording_that_begins_amid_a_group_of_pictures(tools, make, ffmpeg, tmp_path):
    raw = transported(make, ffmpeg, "full", numbered(120), "-muxdelay", 0, "-pat_period", 0.05)
    packets = [raw[at : at + 188] for at in range(0, len(raw), 188)]
    starts = [n for n, one in enumerate(packets) if (one[1] & 31) << 8 | one[2] == 0x100 and one[1] & 0x40]
    path = tmp_path / "cut.ts"
    path.write_bytes(b"".join(packets[: starts[0]] + packets[starts[5] :]))
    found, said, _ = clips_of(path)
    first = read(found[0])[0]
    assert 5 <= first <= 12 and [read(clip) for clip in found] == every(120 - first, first) and not said


X265 = ("-c:v", "libx265", "-x265-params", "log-level=none:crf=12:keyint=24:min-keyint=24:scenecut=0:repeat-headers=1")


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("cut.ts", X265),
        ("cut.mkv", X265),
        ("cut.mp4", X265),
        ("cut.hevc", X265),
        ("cut.mkv", ("-c:v", "mpeg4", "-g", 24)),
        ("cut.avi", ("-c:v", "mpeg4", "-g", 24, "-bf", 2)),
        ("cut.avi", ("-c:v", "libtheora", "-q:v", 9, "-g", 24)),
        ("cut.asf", ("-c:v", "wmv2", "-g", 24)),
    ],
)
def test_of_what_is_before_the_first_key_frame_no_gray_picture_is_used(tools, make, ffmpeg, tmp_path, name, codec):
    whole = make("whole.mkv", numbered(60), 24, *codec, "-pix_fmt", "yuv420p", "-q:v", 3)
    ffmpeg("-i", whole, "-c", "copy", "-bsf:v", "noise=drop=lt(n\\,9)", "-copyinkf", tmp_path / name)
    found, said, _ = clips_of(tmp_path / name)
    assert [read(clip) for clip in found] == every(36, 24) and not said


TICKS_OF_30 = ("-vf", "settb=1/30", "-enc_time_base", "1:30", "-fps_mode", "passthrough")


@pytest.mark.parametrize(("frames", "sound"), [(0, "mp3"), (2, "mp3"), (0, "aac")])
@pytest.mark.parametrize("rate", [24, 30])
def test_an_avi_with_sound(tools, make, ffmpeg, tmp_path, frames, sound, rate):
    """Its muxer fills what is between two times with empty chunks: those of a late beginning behind the first one."""
    silent = make("silent.mp4", numbered(60), 24, *X264, "-bf", frames)
    codec = ("-c:v", "copy") if rate == 24 else (*TICKS_OF_30, *X264, "-bf", frames)
    path = tmp_path / "sound.avi"
    ffmpeg("-i", silent, "-f", "lavfi", "-i", "sine=d=2.5", *codec, "-c:a", sound, path)
    found, said, planned = clips_of(path, ClipSpec(stride=13, fps=None))
    assert [read(clip) for clip in found] == every(60) and not said and not planned.notes
    if frames == 0:
        assert read(video.decode(path, num_frames=52)) == list(range(52))


def test_a_still_in_a_recording_is_no_other_picture(tools, make):
    """Of 20 s, behind B-frames: a transport stream's clock may jump, that of Matroska may not."""
    args = (*X264, "-bf", 3, "-vf", "setpts=PTS+20*gte(N\\,30)/TB", "-fps_mode", "passthrough")
    for name, length in (("a.ts", 60), ("a.mkv", 540)):
        path = make(name, numbered(60), 24, *args)
        found, said, _ = clips_of(path, ClipSpec(stride=13, fps=None))
        assert [read(clip) for clip in found] == every(60) and not said
        shown = read(video.decode(path))
        assert shown[:30] + shown[-30:] == list(range(60)) and len(shown) == length


def test_one_time_for_all_pictures_is_none(tools, make, ffmpeg, tmp_path):
    path = tmp_path / "zero.mkv"
    ffmpeg("-i", make("whole.mp4", numbered(60), 24, *X264, "-bf", 0), "-c", "copy", "-bsf:v", "setts=ts=0", path)
    found, said, _ = clips_of(path)
    assert [read(clip) for clip in found] == every(60) and not said


@pytest.mark.parametrize("offset_s", [None, 3600, 2, 50000])
def test_clocks_that_jump(tools, make, ffmpeg, tmp_path, offset_s):
    """Two recordings joined end to end: by cat, or by a recorder whose clock was set forward between them."""
    offset = () if offset_s is None else ("-output_ts_offset", offset_s)
    one = transported(make, ffmpeg, "one", numbered(60))
    other = transported(make, ffmpeg, "other", numbered(60, first=60), *offset)
    for name, raw, start in (("joined", one + other, 0), ("back", other + one, 60)):
        (tmp_path / f"{name}.ts").write_bytes(raw)
        found, said, planned = clips_of(tmp_path / f"{name}.ts")
        order = [(start + n) % 120 for n in range(120)]
        if offset_s == 2 and name == "joined":
            continue  # it fits a gap of a second in one recording
        assert [n for clip in found for n in read(clip)] == order[:117] and not said
        assert list(planned.dropped.values()) == [3]


def test_recordings_whose_streams_have_other_numbers_are_used_up_to_there(tools, make, ffmpeg, tmp_path):
    """PyAV fails behind the last packet, by chance: so it is done some times."""
    one = transported(make, ffmpeg, "one", numbered(60))
    other = transported(make, ffmpeg, "other", numbered(60, first=60), "-streamid", "0:300")
    for number in range(6):
        path = tmp_path / f"joined{number}.ts"
        path.write_bytes(one + other)
        found, said, planned = clips_of(path)
        assert [read(clip) for clip in found] == every(60) and not said
        (note,) = planned.notes
        assert "holds no picture of the stream that is used in its last " in note.line


def test_sound_that_begins_late(tools, make, ffmpeg, tmp_path):
    """Behind what is read of the file to find its streams."""
    noise = np.random.default_rng(0).integers(0, 256, (1, 96, 160, 3), np.uint8).repeat(480, 0)
    rate = ("-c:v", "mpeg2video", "-b:v", "6M", "-minrate", "6M", "-maxrate", "6M", "-bufsize", "2M")
    silent = make("silent.vob", noise, 24, *rate, "-f", "vob")
    tone = ("-f", "lavfi", "-itsoffset", 14, "-t", 5, "-i", "sine", "-map", "0:v", "-map", "1:a", "-c:v", "copy")
    for number in range(4):
        path = tmp_path / f"late{number}.vob"
        ffmpeg("-i", silent, *tone, "-c:a", "mp2", "-f", "vob", path)
        info = video.probe(path)
        assert len(info.timeline) == 480 and not list(video.notes(info))


def test_the_filling_of_an_m2ts_is_no_other_recording(tools, make):
    info = video.probe(make("filled.m2ts", numbered(80), 25, *X264))
    assert len(info.timeline) == 80 and not list(video.notes(info))


def test_sound_that_is_longer_than_the_pictures_is_no_other_recording(tools, make, ffmpeg, tmp_path):
    silent = make("silent.mp4", numbered(26), 24, *X264)
    path = tmp_path / "long.ts"
    ffmpeg("-i", silent, "-f", "lavfi", "-t", 5, "-i", "sine", "-map", "0:v", "-map", "1:a", "-c:v", "copy", path)
    info = video.probe(path)
    assert len(info.timeline) == 26 and not list(video.notes(info))


@pytest.mark.parametrize("suffix", ["vob", "mpg"])
def test_program_streams_joined_end_to_end(tools, make, tmp_path, suffix):
    """The decoder keeps the last picture back until the other clock has begun."""
    args = ("-c:v", "mpeg2video", "-q:v", 4, "-bf", 2, "-g", 12, *(("-f", "vob") if suffix == "vob" else ()))
    one, other = (make(f"{first}.{suffix}", numbered(60, first=first), 25, *args) for first in (0, 60))
    (tmp_path / f"both.{suffix}").write_bytes(one.read_bytes() + other.read_bytes())
    found, said, _ = clips_of(tmp_path / f"both.{suffix}", ClipSpec(stride=13, fps=None))
    assert [read(clip) for clip in found][:8] == every(104) and not said


@pytest.mark.parametrize("flags", [(), ("-movflags", "+faststart")])
def test_of_mp4_files_joined_end_to_end_the_first_is_used(tools, make, tmp_path, flags):
    one, other = (make(f"{first}.mp4", numbered(60, first=first), 24, *X264, *flags) for first in (0, 60))
    (tmp_path / "both.mp4").write_bytes(one.read_bytes() + other.read_bytes())
    found, said, planned = clips_of(tmp_path / "both.mp4")
    assert [read(clip) for clip in found] == every(60) and not said
    (note,) = planned.notes
    assert "holds no picture of the stream that is used in its last 50 %" in note.line


@pytest.mark.parametrize("suffix", ["mkv", "ogv"])
def test_files_joined_end_to_end(tools, make, tmp_path, suffix):
    codec = X264 if suffix == "mkv" else ("-c:v", "libtheora", "-q:v", 9)
    one, other = (make(f"{first}.{suffix}", numbered(60, first=first), 24, *codec) for first in (0, 60))
    (tmp_path / f"both.{suffix}").write_bytes(one.read_bytes() + other.read_bytes())
    found, said, _ = clips_of(tmp_path / f"both.{suffix}")
    assert [read(clip) for clip in found] == every(120) and not said


def test_of_a_high_rate_each_frame_is_the_one_that_is_due(tools, make):
    for name, rate, step in (("a.mp4", 120, 5), ("b.mp4", 240, 10), ("c.mov", 60, 2.5)):
        due = [int(np.ceil((i + 0.5) * step - 1)) for i in range(13)]  # frame n is shown from round(n / step) on
        assert read(video.decode(make(name, numbered(int(15 * step)), rate, *X264), num_frames=13)) == due, name


def test_brief_pictures_of_a_gif_are_shown_as_browsers_show_them(tools, tmp_path):
    images = [Image.fromarray(frame) for frame in numbered(15)]
    lasts = [0] * 5 + [10] * 5 + [20] * 5
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=lasts)
    assert video.probe(tmp_path / "a.gif").duration_s == pytest.approx(10 * 0.1 + 5 * 0.02)
    shown = read(video.decode(tmp_path / "a.gif", fps=10.0))
    assert shown[:10] == list(range(10)) and len(shown) == 11
    path = tmp_path / "as_is.gif"
    images[0].save(path, save_all=True, append_images=images[1:], duration=10)
    assert read(video.decode(path, fps=None)) == list(range(15))


def with_steps(path, *runs):
    """An mp4, whose header is behind its pictures, with other steps between them: (count, ticks) of each run."""
    raw = bytearray(path.read_bytes())
    at, table = raw.index(b"stts") - 4, struct.pack(f">II{2 * len(runs)}I", 0, len(runs), *np.ravel(runs).tolist())
    (old,) = struct.unpack(">I", raw[at : at + 4])
    raw[at : at + old] = struct.pack(">I4s", 8 + len(table), b"stts") + table
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
        place = raw.index(kind) - 4
        (size,) = struct.unpack(">I", raw[place : place + 4])
        raw[place : place + 4] = struct.pack(">I", size + 8 + len(table) - old)
    path.write_bytes(raw)


def test_steps_that_are_shorter_than_what_ffmpeg_prints(tools, make):
    path = make("fine.mp4", numbered(60), 24, *X264, "-bf", 0, "-video_track_timescale", 12_000_000)
    with_steps(path, (20, 500_000), (1, 1), (1, 999_999), (38, 500_000))
    found, said, _ = clips_of(path)
    assert [n for clip in found for n in read(clip)] == [*range(20), 21, 21, *range(22, 52)] and not said
    assert read(video.decode(path, fps=None)) == list(range(60))


def test_of_pictures_of_one_time_the_first_is_shown(tools, make):
    path = make("equal.mp4", numbered(60), 24, *X264, "-bf", 0, "-video_track_timescale", 24_000)
    with_steps(path, (20, 1000), (1, 0), (1, 2000), (38, 1000))
    found, said, _ = clips_of(path)
    assert [n for clip in found for n in read(clip)] == [*range(20), 20, 20, *range(22, 52)] and not said
    assert video.probe(path).timeline.packet[20] == 20
    assert read(video.decode(path, fps=None)) == [*range(21), *range(22, 60)]


def test_an_mp4_trimmed_by_its_edit_list(tools, make, ffmpeg, tmp_path):
    whole = make("whole.mp4", numbered(60), 24, *X264)
    ffmpeg("-ss", "0.95", "-i", whole, "-c", "copy", tmp_path / "trimmed.mp4")
    found, said, planned = clips_of(tmp_path / "trimmed.mp4")
    assert [read(clip) for clip in found] == every(37, 23) and len(found) == 2
    assert not said and list(planned.dropped.values()) == [11]


def test_a_size_that_changes_in_mid_stream_is_scaled(tools, make, tmp_path):
    small = make("a.ts", numbered(20), 24, *X264, "-muxdelay", 0)
    offset = ("-muxdelay", 0, "-output_ts_offset", 20 / 24)
    large = make("b.ts", numbered(30, 128, 96, 20), 24, *X264, *offset)
    path = tmp_path / "both.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    found, said, _ = clips_of(path)
    assert [read(clip) for clip in found] == every(50) and not said
    assert {clip.shape[1:3] for clip in found} == {(64, 96)}


def test_no_interlaced_frame_is_lost_where_the_size_changes(tools, make, tmp_path):
    args = (*X264, "-flags", "+ilme+ildct", "-vf", "setfield=tff", "-muxdelay", 0)
    small = make("a.ts", numbered(20), 24, *args)
    large = make("b.ts", numbered(30, 128, 96, 20), 24, *args, "-output_ts_offset", 20 / 24)
    (tmp_path / "both.ts").write_bytes(small.read_bytes() + large.read_bytes())
    found, said, _ = clips_of(tmp_path / "both.ts", ClipSpec(stride=13, fps=None))
    assert [read(clip) for clip in found] == every(50) and not said


def test_files_that_are_cut_off_say_so(tools, make, ffmpeg, tmp_path):
    whole = make("whole.mp4", numbered(78), 24, *X264, "-movflags", "+faststart")
    ffmpeg("-i", whole, "-c", "copy", tmp_path / "whole.mkv")
    for name in ("whole.mp4", "whole.mkv"):
        raw = (tmp_path / name).read_bytes()
        (tmp_path / f"cut-{name}").write_bytes(raw[: len(raw) * 2 // 3])
    found, said, _ = clips_of(tmp_path / "cut-whole.mp4")
    assert found and [read(clip) for clip in found] == every(78)[: len(found)] and len(said) == 1
    assert "is damaged between" in said[0] and "3.2 s, where" in said[0]
    found, said, planned = clips_of(tmp_path / "cut-whole.mkv")
    assert found and [read(clip) for clip in found] == every(78)[: len(found)] and not said
    assert "says that it lasts 3.2 s, and" in planned.notes[0].line


def whole_clips(path, lost):
    """Clips of 13 frames at 24 FPS, each as it was: all that have none of the `lost` frames, and no other."""
    found, said, planned = clips_of(path)
    numbers = [read(clip) for clip in found]
    assert all(one == list(range(one[0], one[0] + 13)) for one in numbers), numbers
    assert not any(set(one) & set(lost) for one in numbers), numbers
    return {one[0] for one in numbers}, said, planned


@pytest.mark.parametrize("begin", [54, 60])
def test_no_clip_of_a_lost_segment_is_given(tools, make, ffmpeg, tmp_path, begin):
    """Of 3 s, in which several clips begin and end, from amid a group of pictures or from a key frame on."""
    raw = transported(make, ffmpeg, "whole", numbered(240), "-muxdelay", 0)
    packets = [raw[at : at + 188] for at in range(0, len(raw), 188)]
    starts = [n for n, one in enumerate(packets) if (one[1] & 31) << 8 | one[2] == 0x100 and one[1] & 0x40]
    (tmp_path / "lost.ts").write_bytes(b"".join(packets[: starts[begin]] + packets[starts[begin + 72] :]))
    firsts, said, _ = whole_clips(tmp_path / "lost.ts", range(64, 124))
    assert {0, 13, 26, 39, 156, 169, 182, 195, 208, 221} <= firsts and len(said) == 1


def test_no_clip_of_lost_pictures_of_h264_is_given_where_the_container_misses_none(tools, make, tmp_path):
    """Packets are gone from amid an open group of pictures, and the rest are counted anew."""
    groups = "keyint=24:min-keyint=24:open-gop=1:bframes=3:scenecut=0"
    path = make("whole.ts", numbered(144), 24, *X264, "-x264-params", groups, "-muxdelay", 0)
    raw = path.read_bytes()
    packets = [raw[at : at + 188] for at in range(0, len(raw), 188)]
    starts = [n for n, one in enumerate(packets) if (one[1] & 31) << 8 | one[2] == 0x100 and one[1] & 0x40]
    kept = [bytearray(one) for one in packets[: starts[30]] + packets[starts[54] :]]
    for number, one in enumerate(one for one in kept if (one[1] & 31) << 8 | one[2] == 0x100):
        one[3] = one[3] & 0xF0 | number & 15
    (tmp_path / "lost.ts").write_bytes(b"".join(kept))
    firsts, said, _ = whole_clips(tmp_path / "lost.ts", range(33, 51))
    assert {0, 104, 117, 130} <= firsts and len(said) == 1
    found, said, _ = clips_of(path)
    assert [read(clip) for clip in found] == every(144) and not said


def mpeg_pictures(raw):
    """The pictures of a raw MPEG-2 stream, each with the headers before it."""
    starts = [found.start() for found in re.finditer(b"\0\0\1[\0\xb3\xb8]", raw)]
    kinds = [raw[at + 3] for at in starts]
    begins = [at for at, kind, before in zip(starts, kinds, [0, *kinds]) if kind == 0xB3 or before == 0]
    return [raw[at:end] for at, end in zip(begins, [*begins[1:], len(raw)])]


@pytest.mark.parametrize(
    ("suffix", "frames", "cut", "closed"),
    [
        ("ts", 2, (40, 48), False),
        ("mpg", 2, (40, 41), False),
        ("mkv", 0, (52, 76), False),  # as many as are in two groups
        ("mp4", 1, (38, 60), True),  # up to a group that is whole
        ("m2v", 2, (64, 65), False),
    ],
)
def test_no_clip_of_lost_pictures_of_mpeg2_is_given_where_the_times_go_on(
    tools, make, ffmpeg, suffix, frames, cut, closed
):
    """Of several in storage, in groups of twelve."""
    args = ("-c:v", "mpeg2video", "-q:v", 3, "-g", 12, "-bf", frames, "-sc_threshold", 1_000_000_000)
    raw = make("raw.m2v", numbered(120), 25, *args, *(("-flags", "+cgop") if closed else ()))
    pictures = mpeg_pictures(raw.read_bytes())
    assert len(pictures) == 120
    for name, kept in (("whole", pictures), ("lost", pictures[: cut[0]] + pictures[cut[1] :])):
        path = raw.with_name(f"{name}.{suffix}")
        raw.write_bytes(b"".join(kept))
        ffmpeg("-fflags", "+genpts", "-framerate", 25, "-i", raw, "-c", "copy", path)
        found, said, _ = clips_of(path, ClipSpec(stride=6, fps=None))
        numbers = [read(clip) for clip in found]
        assert all(one == list(range(one[0], one[0] + 13)) for one in numbers), numbers
        is_whole = name == "whole"
        assert (len(found) == 18) == is_whole and len(said) == (not is_whole)
        assert numbers[:4] == [list(range(at, at + 13)) for at in (0, 6, 12, 18)] and len(numbers) > 7


def mpeg_headers(pictures, rate_code=4):
    """Packets of MPEG-2 without slices. Args: pictures: (time code of a group that begins or None, kind, place,
    structure, whether its first field is repeated)."""
    for frames, kind, place, structure, is_repeated in pictures:
        head = b"" if frames is None else struct.pack(">I", 0x1B3) + bytes([6, 0, 64, 0x10 | rate_code]) + bytes(4)
        if frames is not None:
            rate = (24, 24, 25, 30, 30)[rate_code - 1]
            code = frames // rate // 60 << 20 | 1 << 19 | frames // rate % 60 << 13 | frames % rate << 7
            head += struct.pack(">II", 0x1B8, code)
        head += struct.pack(">IHH", 0x100, place << 6 | kind << 3, 0)
        yield head + struct.pack(">I", 0x1B5) + bytes([0x8F, 0xFF, structure, is_repeated << 1, 0])


def mpeg_groups(first_codes, structures=(3,), telecined=False, step=1):
    """Groups of twelve: I, B, B, P, ..."""
    for group, code in enumerate(first_codes):
        for stored, place in enumerate((2, 0, 1, 5, 3, 4, 8, 6, 7, 11, 9, 10)):
            kind = 1 if stored == 0 else 2 if stored % 3 == 0 else 3
            for number, structure in enumerate(structures):
                place_of = (place + group * 12 * (step is None)) % 1024
                begins = code if stored == number == 0 and step else None
                yield begins, kind, place_of, structure, telecined and place % 2 == 0


@pytest.mark.parametrize(
    ("pictures", "lost"),
    [
        (mpeg_groups(range(0, 240, 12)), []),
        (mpeg_groups(range(0, 240, 12), structures=(1, 2)), []),  # the fields of a picture have a packet each
        (mpeg_groups(range(0, 300, 15), telecined=True), []),
        (mpeg_groups(range(1795, 2035, 12)), []),
        (mpeg_groups([0] * 20), []),  # no time codes
        (mpeg_groups([0] * 100, step=None), []),  # no headers of groups
        ([(None, *one) for _, *one in mpeg_groups([0] * 20)], []),  # nor these, and places begin anew in each
        (mpeg_groups([*range(0, 120, 12), *range(144, 264, 12)]), [108]),
        (mpeg_groups([*range(0, 120, 12), *range(54_000, 54_120, 12)]), [108]),
    ],
)
def test_numbers_of_mpeg2_tell_of_no_other_loss(pictures, lost):
    numbers = mpeg2.PictureNumbers()
    for number, packet in enumerate(mpeg_headers(pictures)):
        numbers.see(number, packet)
    assert list(numbers.lost()) == lost


@pytest.mark.parametrize(
    ("name", "size", "rate", "args"),
    [
        ("a.mpg", (64, 48), 60, ("-q:v", 2, "-bf", 0, "-g", 12)),
        ("a.mpg", (96, 64), 50, ("-q:v", 2, "-bf", 2, "-g", 12)),
        ("a.vob", (80, 48), "60000/1001", ("-q:v", 5, "-bf", 2, "-g", 1)),
    ],
)
def test_several_pictures_in_one_packet_of_a_program_stream(tools, make, name, size, rate, args):
    """The packet has one time, which ffmpeg gives to one beside it."""
    path = make(name, numbered(60, *size), rate, "-c:v", "mpeg2video", *args)
    found = list(video.decode_each(path, range(60), num_frames=1, fps=None))
    assert [read(one)[0] for one in found] == list(range(60))
    seconds = 60 / (60 if rate == 60 else 50 if rate == 50 else 59.94)
    assert video.probe(path).duration_s == pytest.approx(seconds, abs=0.002)


@pytest.mark.parametrize(
    ("name", "rate", "args", "sectors"),
    [
        ("a.mpg", 60, ("-q:v", 2, "-bf", 0, "-g", 12), 2),  # amid a packet of several pictures
        ("a.vob", "60000/1001", ("-q:v", 5, "-bf", 2, "-g", 6), 6),  # amid a picture, too
    ],
)
def test_a_program_stream_that_begins_amid_a_packet(tools, make, name, rate, args, sectors):
    """As the parts of a DVD do. The first pictures are early or late by what ffmpeg takes for their times."""
    path = make(name, numbered(200, 64, 48), rate, "-c:v", "mpeg2video", *args)
    path.write_bytes(path.read_bytes()[2048 * sectors :])
    found, said, _ = clips_of(path, ClipSpec(stride=1, fps=None))
    first = read(found[0])[0]
    assert [read(clip) for clip in found] == [list(range(at, at + 13)) for at in range(first, 200 - 12)]
    assert first % args[-1] == 0 < first <= 60 and not said


def test_a_picture_that_is_held_near_the_end_of_a_program_stream(tools, make):
    held = ("-vf", "setpts='(N+6*gt(N,90))/25/TB'", "-fps_mode", "vfr")
    path = make("a.mpg", numbered(120), 25, *held, "-c:v", "mpeg2video", "-q:v", 3, "-g", 12, "-bf", 2)
    assert len(video.probe(path).timeline) == 120 and video.probe(path).duration_s == pytest.approx(126 / 25, abs=0.002)


@pytest.mark.parametrize("codec", [(*X264, "-bf", 3), (*X265, "-pix_fmt", "yuv420p")])
def test_h264_and_hevc_in_a_program_stream(tools, make, codec):
    """Of several pictures in one packet only the first has a time."""
    found, said, _ = clips_of(make("a.mpg", numbered(60), 25, *codec), ClipSpec(stride=13, fps=None))
    assert [read(clip) for clip in found] == every(60) and not said


def test_no_clip_of_a_lost_fragment_is_given(tools, make, tmp_path):
    """An mp4 from which the third fragment is gone. In one of slides all of them are there."""
    path = make(
        "whole.mp4",
        numbered(120),
        24,
        *X264,
        "-sc_threshold",
        0,
        "-movflags",
        "frag_keyframe+empty_moov+default_base_moof",
    )
    raw = path.read_bytes()
    starts = [found.start() - 4 for found in re.finditer(b"moof", raw)]
    (tmp_path / "lost.mp4").write_bytes(raw[: starts[2]] + raw[starts[3] :])
    firsts, said, _ = whole_clips(tmp_path / "lost.mp4", range(24, 36))
    assert {0, 39, 52, 65, 78, 91, 104} <= firsts and len(said) == 1
    slides = ("-vf", "setpts=N*3/TB", "-fps_mode", "passthrough", "-g", 1, "-movflags", "frag_keyframe+empty_moov")
    found, said, _ = clips_of(make("slides.mp4", numbered(20), 24, *X264[:-2], *slides))
    assert len(found) > 100 and not said


@pytest.mark.parametrize("codec", ["mjpeg", "huffyuv", "rawvideo"])
@pytest.mark.parametrize("length", [0.1, 0.01])
def test_a_hole_in_an_avi_costs_what_is_in_it(tools, make, codec, length):
    """As a bad sector leaves it: zeros. Its index names what was there."""
    path = make("hole.avi", numbered(120), 24, "-c:v", codec, "-q:v", 3)
    raw = bytearray(path.read_bytes())
    begin, size = len(raw) * 4 // 10, round(len(raw) * length)
    raw[begin : begin + size] = bytes(size)
    path.write_bytes(raw)
    firsts, said, _ = whole_clips(path, [48])
    assert {0, 13, 26, 65, 78, 91, 104} <= firsts and len(said) == 1


@pytest.mark.parametrize(
    ("name", "codec", "hole", "lost"),
    [
        ("a.nut", ("-c:v", "mpeg4", "-q:v", 2), (0.4, 0.5, True), {48, 58}),
        ("a.mxf", ("-c:v", "mpeg2video", "-q:v", 2), (0.4, 0.45, False), {45}),
        ("a.mxf", X264, (0.4, 0.45, False), {46}),
    ],
)
def test_no_clip_of_a_hole_is_given(tools, make, name, codec, hole, lost):
    """Zeros, which NUT skips without a word, or bytes that are gone, after which an MXF's index fits no more."""
    path = make(name, numbered(120), 25, *codec)
    raw = path.read_bytes()
    begin, end = (round(len(raw) * part) for part in hole[:2])
    path.write_bytes(raw[:begin] + bytes(end - begin) * hole[2] + raw[end:])
    found, said, _ = clips_of(path, ClipSpec(stride=13, fps=None))
    numbers = [read(clip) for clip in found]
    assert all(one == list(range(one[0], one[0] + 13)) and not lost & set(one) for one in numbers), numbers
    assert numbers[:3] == every(39) and len(numbers) >= 6 and len(said) == 1


def test_a_size_that_changes_in_a_raw_stream_costs_the_clip_of_the_picture_that_the_decoder_drops(tools, make):
    args = ("-c:v", "mpeg2video", "-q:v", 3)
    sizes = ((0, 33, 96, 64), (33, 45, 128, 96), (78, 40, 96, 64))
    parts = [make(f"{first}.m2v", numbered(count, *size, first), 24, *args) for first, count, *size in sizes]
    parts[0].write_bytes(b"".join(part.read_bytes() for part in parts))
    found, said, _ = clips_of(parts[0])
    numbers = [read(clip) for clip in found]
    assert all(one == list(range(one[0], one[0] + 13)) for one in numbers), numbers
    assert len(numbers) == 6 and len(said) == 3  # the last one lacks two pictures


@pytest.mark.parametrize("frames", [0, 2])
def test_the_picture_that_a_decoder_drops_at_another_size_is_not_made_up(tools, make, tmp_path, frames):
    args = ("-c:v", "mpeg2video", "-q:v", 3, "-bf", frames, "-muxdelay", 0)
    small = make("a.ts", numbered(20), 24, *args)
    large = make("b.ts", numbered(30, 128, 96, 20), 24, *args, "-output_ts_offset", 21 / 24)
    (tmp_path / "both.ts").write_bytes(small.read_bytes() + large.read_bytes())
    firsts, said, _ = whole_clips(tmp_path / "both.ts", [19])
    assert firsts == {0, 26} and len(said) == 1


@pytest.mark.parametrize("is_amid", [True, False])
def test_much_that_is_no_transport_stream_is_skipped(tools, make, ffmpeg, tmp_path, is_amid):
    """More than ffmpeg skips at once: between two packets, or at the end, as space that was kept for more."""
    raw = transported(make, ffmpeg, "whole", numbered(60), "-muxdelay", 0)
    starts = [at for at in range(0, len(raw), 188) if raw[at + 1 : at + 3] == b"\x41\x00"]
    at = starts[30] if is_amid else len(raw)
    (tmp_path / "zeros.ts").write_bytes(raw[:at] + bytes(200_000) + raw[at:])
    firsts, said, planned = whole_clips(tmp_path / "zeros.ts", [])
    assert firsts >= ({0, 39} if is_amid else {0, 13, 26}) and len(said) == (len(firsts) < 4)
    assert len(planned.notes) == (not is_amid)


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        ("ogv", ("-c:v", "libtheora", "-q:v", 9)),
        ("nut", X264),
        ("rm", ("-c:v", "rv20", "-q:v", 3)),
        ("gif", ()),
        ("flv", X264),
    ],
)
def test_what_is_behind_an_error_of_the_container_is_told(tools, make, suffix, codec):
    """The second half is zeros, as of a download that has not ended."""
    path = make(f"half.{suffix}", numbered(120), 24 if suffix != "gif" else 25, *codec)
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2] + bytes(len(raw) // 2))
    found, _, planned = clips_of(path, ClipSpec(stride=13, fps=None))
    assert len(found) >= 2 and [read(clip) for clip in found] == every(120)[: len(found)]
    assert any("in its last " in note.line and " %; copy it again" in note.line for note in planned.notes)


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        ("flv", X264),
        ("ivf", ("-c:v", "libvpx", "-b:v", "1M")),
        ("wmv", ("-c:v", "wmv2", "-q:v", 3)),
        ("y4m", ("-pix_fmt", "yuv420p")),
    ],
)
def test_joined_files_of_which_the_first_is_read_are_told(tools, make, tmp_path, suffix, codec):
    one, other = (make(f"{first}.{suffix}", numbered(60, first=first), 24, *codec) for first in (0, 60))
    path = tmp_path / f"both.{suffix}"
    path.write_bytes(one.read_bytes() + other.read_bytes())
    found, said, planned = clips_of(path)
    assert [read(clip) for clip in found] == every(60) and not said
    assert any("holds no picture of the stream that is used in its last " in note.line for note in planned.notes)


NOISE = ("-vf", "noise=alls=16:allf=t")


@pytest.mark.parametrize(
    ("name", "size", "codec"),
    [
        ("a.avi", (96, 64), ("-c:v", "huffyuv")),
        ("a.avi", (96, 64), ("-c:v", "cinepak", *NOISE)),
        ("a.dv", (720, 576), ("-c:v", "dvvideo", "-pix_fmt", "yuv420p")),
        ("a.gif", (96, 64), NOISE),
    ],
)
def test_a_last_picture_that_is_torn_is_not_given(tools, make, name, size, codec):
    path = make(name, numbered(30, *size), 25, *codec)
    sound = video.decode(path, fps=None)
    raw = path.read_bytes()
    frame = len(raw) // 30
    for length in range(len(raw) // 2, len(raw) // 2 + frame, 1 + frame // 3):  # most are amid a picture
        cut = path.with_stem(f"cut{length}")
        cut.write_bytes(raw[:length])
        found = list(video.decode_each(cut, range(len(video.probe(cut).timeline)), num_frames=1, fps=None))
        assert len(found) >= 3
        for number, one in enumerate(found):
            is_torn = isinstance(one, video.Damaged) and number == len(found) - 1
            assert is_torn or np.array_equal(one[0], sound[number]), (length, number)


def test_sound_that_is_longer_than_the_pictures_is_no_loss(tools, make, ffmpeg, tmp_path):
    silent = make("silent.mp4", numbered(26), 24, *X264)
    tone = ("-f", "lavfi", "-t", 10, "-i", "sine")
    ffmpeg(*tone, "-itsoffset", 300, "-i", silent, "-map", 0, "-map", 1, "-c:v", "copy", tmp_path / "late.mkv")
    ffmpeg(*tone, "-i", silent, "-map", 0, "-map", 1, "-c:v", "copy", tmp_path / "a.flv")
    ffmpeg(*tone, "-i", silent, "-map", 0, "-map", 1, "-c:v", "wmv2", "-q:v", 3, tmp_path / "a.wmv")
    for name in ("late.mkv", "a.flv", "a.wmv"):
        found, said, planned = clips_of(tmp_path / name)
        assert [read(clip) for clip in found] == every(26) and not said and not planned.notes, name


def test_an_encrypted_file_is_one_line(tools, make, ffmpeg, tmp_path):
    key = ("-encryption_scheme", "cenc-aes-ctr", "-encryption_key", "76a6c65c5ea762046bd749a2e632ccbb")
    whole = make("whole.mp4", numbered(60), 24, *X264)
    path = tmp_path / "drm.mp4"
    ffmpeg("-i", whole, "-c", "copy", *key, "-encryption_kid", "a7e61c373e219033c21091fa607bf3b8", path)
    found, said, _ = clips_of(path)
    assert not found and said == [f"{path}: is encrypted (DRM); give a file without copy protection"]


def test_a_file_that_begins_late_is_not_cut_off(tools, make, ffmpeg, tmp_path):
    """A clock that counts from 1970, and pictures behind the sound."""
    whole = make("whole.mp4", numbered(60), 24, *X264)
    ffmpeg("-i", whole, "-c", "copy", "-output_ts_offset", "1700000000.3", tmp_path / "epoch.mkv")
    sound = ("-f", "lavfi", "-t", 5, "-i", "sine", "-itsoffset", 1.5, "-i", whole, "-map", "1:v", "-map", "0:a")
    for name in ("late.avi", "late.mp4", "late.mkv", "late.mov", "late.flv"):
        ffmpeg(*sound, "-c:v", "copy", tmp_path / name)
    for name in ("epoch.mkv", "late.avi", "late.mp4", "late.mkv", "late.mov", "late.flv"):
        found, said, planned = clips_of(tmp_path / name)
        assert [read(clip) for clip in found] == every(60) and not said and not planned.notes, name


# ---- complaints that are about no picture


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_messages_for_decoders_that_are_cut_short(tools, make, ffmpeg, tmp_path, codec):
    """Every frame has an SEI that says 45 bytes and has 40, as a camera writes them."""
    args = {"h264": (*X264, "-bf", 0), "hevc": ("-c:v", "libx265", "-x265-params", "log-level=none:bframes=0")}[codec]
    raw = make(f"s.{codec}", numbered(40), 24, *args, "-pix_fmt", "yuv420p").read_bytes()
    cut = b"\x06\xf0\x2d" if codec == "h264" else b"\x4e\x01\xf0\x2d"
    is_picture = (lambda n: n & 31 in (1, 5)) if codec == "h264" else (lambda n: n >> 1 < 32)
    starts = [found.end() for found in re.finditer(b"\0\0\1", raw)]
    out = b""
    for begin, end in zip(starts, [at - 3 for at in starts[1:]] + [len(raw)], strict=True):
        unit = raw[begin:end].rstrip(b"\0")
        out += b"\0\0\0\1" + cut + b"\x55" * 40 + b"\x80" if is_picture(unit[0]) else b""
        out += b"\0\0\0\1" + unit
    (tmp_path / f"sei.{codec}").write_bytes(out)
    ffmpeg("-r", 24, "-i", tmp_path / f"sei.{codec}", "-c", "copy", tmp_path / "camera.mp4")
    found, said, _ = clips_of(tmp_path / "camera.mp4")
    assert [read(clip) for clip in found] == every(40) and not said


def test_a_chapter_track_that_is_gone(tools, make, ffmpeg, tmp_path):
    whole = make("whole.mp4", numbered(60), 24, *X264)
    chapters = "".join(f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={n}000\nEND={n + 1}000\ntitle=a\n" for n in range(2))
    (tmp_path / "c.txt").write_text(";FFMETADATA1\n" + chapters)
    path = tmp_path / "chapters.mov"
    ffmpeg("-i", whole, "-i", tmp_path / "c.txt", "-map", "0:v", "-map_metadata", 1, "-c", "copy", path)
    raw = bytearray(path.read_bytes())
    at = raw.index(b"chap") + 4
    raw[at : at + 4] = struct.pack(">I", 9)
    path.write_bytes(raw)
    found, said, _ = clips_of(path)
    assert [read(clip) for clip in found] == every(60) and not said


# ---- geometry and colours


def test_frames_turned_by_exif(tools, tmp_path):
    """All eight orientations: the stored picture is what each turns upright."""
    upright = numbered(13)
    for orientation, turn in STORED.items():
        folder = tmp_path / f"turned{orientation}"
        folder.mkdir()
        exif = Image.Exif()
        exif[0x0112] = orientation
        for number, frame in enumerate(upright[:2]):
            image = Image.fromarray(np.ascontiguousarray(turn(frame)))
            image.save(folder / f"IMG_{number + 1:03d}.JPG", format="JPEG", quality=95, exif=exif)
        frames = video.decode(folder)
        assert frames.shape == (2, 64, 96, 3) and np.abs(bars(frames) - BARS).max() < 12, orientation
        assert read(frames) == [0, 1], orientation


def test_the_containers_aspect_goes_before_the_codecs(tools, make, ffmpeg, tmp_path):
    square = make("sq.mp4", numbered(20), 24, *X264, "-vf", "setsar=1")
    for name in ("wide.mkv", "wide.mov"):
        ffmpeg("-i", square, "-c", "copy", "-aspect", "2:1", tmp_path / name)
        assert video.decode(tmp_path / name, num_frames=13).shape == (13, 64, 128, 3)


def with_clean_aperture(path, *numbers):
    raw = bytearray(path.read_bytes())
    begin, end = 0, len(raw)
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        while bytes(raw[begin + 4 : begin + 8]) != kind:
            begin += struct.unpack(">I", raw[begin : begin + 4])[0]
        (size,) = struct.unpack(">I", raw[begin : begin + 4])
        raw[begin : begin + 4] = struct.pack(">I", size + 40)
        end = begin + size
        begin += 16 if kind == b"stsd" else 8
    raw[end:end] = struct.pack(">I4s8i", 40, b"clap", *numbers)
    path.write_bytes(raw)


def test_a_clean_aperture_is_cropped_to(tools, make):
    wide = np.full((20, 64, 128, 3), 99, np.uint8)
    wide[:, :, 16:112] = numbered(20)
    for name, left, offset in (("centred.mov", 16, (0, 1)), ("left.mp4", 0, (-16, 1))):
        path = make(name, np.roll(wide, left - 16, axis=2), 24, *X264)
        with_clean_aperture(path, 96, 1, 64, 1, *offset, 0, 1)
        frames = video.decode(path, num_frames=13)
        assert frames.shape == (13, 64, 96, 3) and read(frames) == list(range(13))
        assert np.abs(bars(frames) - BARS).max() < 12


def with_elements(path, **values):
    """Matroska's DisplayWidth and DisplayHeight become other elements of the track's Video: id in hex → value."""
    raw = bytearray(path.read_bytes())
    for old, (name, value) in zip((b"\x54\xb0", b"\x54\xba"), values.items(), strict=True):
        begin = raw.index(old)
        length = raw[begin + 2] & 0x7F
        raw[begin : begin + 2] = bytes.fromhex(name.removeprefix("x"))
        raw[begin + 3 : begin + 3 + length] = value.to_bytes(length, "big")
    path.write_bytes(raw)


def test_matroskas_pixel_crop_is_cropped_to(tools, make):
    wide = np.full((20, 64, 128, 3), 99, np.uint8)
    wide[:, :, 24:120] = numbered(20)
    tall = np.full((20, 96, 96, 3), 99, np.uint8)
    tall[:, 12:76] = numbered(20)
    ffv1 = ("-c:v", "ffv1", "-vf", "setsar=2")  # whose frames say no aspect, unlike the container
    both = {"wide.mkv": (wide, {"x54cc": 24, "x54dd": 8}), "tall.mkv": (tall, {"x54bb": 12, "x54aa": 20})}
    for name, (stored, cut) in both.items():
        path = make(name, stored, 24, *ffv1)
        with_elements(path, **cut)
        frames = video.decode(path, num_frames=13)
        assert frames.shape == (13, 64, 96, 3) and read(frames) == list(range(13))
        assert np.abs(bars(frames) - BARS).max() < 12
    with_elements(make("none.mkv", wide, 24, *ffv1), x54cc=100, x54dd=90)  # more than there is
    with pytest.raises(video.VideoError, match=r"none\.mkv: is not a video that ffmpeg can read"):
        video.probe(path.with_name("none.mkv"))


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
def test_hdr_becomes_sdr(tools, make, transfer):
    if not picture.can_tone_map():
        pytest.skip("this ffmpeg has no zscale")
    to_hdr = f"zscale=tin=bt709:min=gbr:pin=bt709:rin=pc:t={transfer}:m=bt2020nc:p=bt2020:r=tv:npl=203"
    tags = ("-colorspace", "bt2020nc", "-color_primaries", "bt2020", "-color_trc", transfer)
    x265 = ("-c:v", "libx265", "-x265-params", "log-level=none:crf=8", "-pix_fmt", "yuv420p10le")
    found, said, planned = clips_of(make("hdr.mkv", numbered(20), 24, *x265, "-vf", to_hdr, *tags))
    assert np.abs(bars(found[0]) - BARS).max() <= 24 and read(found[0]) == list(range(13))
    assert not said and not planned.notes


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_hdr_that_the_container_alone_names_becomes_sdr(tools, make, ffmpeg, suffix):
    if not picture.can_tone_map():
        pytest.skip("this ffmpeg has no zscale")
    to_hdr = "zscale=tin=bt709:min=gbr:pin=bt709:rin=pc:t=smpte2084:m=bt2020nc:p=bt2020:r=tv:npl=203"
    unsaid = "setparams=colorspace=unknown:color_primaries=unknown:color_trc=unknown"
    x265 = ("-c:v", "libx265", "-x265-params", "log-level=none:crf=8", "-pix_fmt", "yuv420p10le")
    silent = make("silent.mkv", numbered(20), 24, *x265, "-vf", f"{to_hdr},{unsaid}")
    tags = ("-colorspace", "bt2020nc", "-color_primaries", "bt2020", "-color_trc", "smpte2084")
    path = silent.with_name(f"named.{suffix}")
    ffmpeg("-i", silent, "-c", "copy", *tags, "-movflags", "write_colr", path)
    found, said, _ = clips_of(path)
    assert not said and np.abs(bars(found[0]) - BARS).max() <= 24 and read(found[0]) == list(range(13))


WIDE = [("bt2020", "bt2020nc", "bt709"), ("smpte432", "bt709", "iec61966-2-1")]


@pytest.mark.parametrize(("primaries", "matrix", "transfer"), WIDE)
@pytest.mark.parametrize("pixels", ["yuv444p10le", "gbrp", "yuva444p10le"])
def test_wide_colours_become_those_of_sdr(tools, make, primaries, matrix, transfer, pixels):
    if not picture.can_tone_map():
        pytest.skip("this ffmpeg has no zscale")
    to_wide = f"zscale=tin={transfer}:min=gbr:pin=bt709:rin=pc:t={transfer}:m=gbr:p={primaries}:r=pc"
    stored = f"scale=out_color_matrix={matrix.removesuffix('nc')}:out_range=tv:flags=accurate_rnd,format={pixels}"
    filters = f"format=gbrp16le,{to_wide},{'' if pixels == 'gbrp' else stored}".rstrip(",")
    tags = ("-colorspace", matrix, "-color_primaries", primaries, "-color_trc", transfer, "-pix_fmt", pixels)
    tags = tags[2:] if pixels == "gbrp" else tags
    found, said, planned = clips_of(make("wide.mkv", numbered(20), 24, "-vf", filters, "-c:v", "ffv1", *tags))
    assert np.abs(bars(found[0]) - BARS).max() <= 24 and read(found[0]) == list(range(13))
    assert not said and not planned.notes


@pytest.mark.parametrize(("transfer", "kind"), [("smpte2084", "HDR"), ("bt709", "of a wide gamut")])
def test_colours_that_need_the_filters_are_told(tools, make, monkeypatch, transfer, kind):
    tags = f"setparams=colorspace=bt2020nc:color_primaries=bt2020:color_trc={transfer}"
    x265 = ("-c:v", "libx265", "-x265-params", "log-level=none", "-pix_fmt", "yuv420p10le")
    path = make("hdr.mkv", numbered(20), 24, "-vf", tags, *x265)
    monkeypatch.setattr(picture, "can_tone_map", lambda: False)
    found, said, planned = clips_of(path)
    assert len(found) == 1 and not said
    (note,) = planned.notes
    assert note.line.startswith(f"{path}: is {kind}, and") and "use an ffmpeg with zscale" in note.line


@pytest.mark.parametrize(("size", "matrix"), [((1280, 720), "bt709"), ((96, 64), "bt601"), ((720, 1280), "bt709")])
def test_colours_that_are_not_named_are_those_of_the_size(tools, make, size, matrix):
    scale = f"scale=out_color_matrix={matrix}:out_range=tv:flags=accurate_rnd"
    path = make("plain.mkv", numbered(2, *size), 24, "-vf", scale, "-c:v", "ffv1", "-pix_fmt", "yuv444p")
    assert np.abs(bars(video.decode(path)) - BARS).max() <= 4


def test_interlaced_frames_are_made_whole(tools, make):
    """A white square that moves 8 px a field: in a woven frame its edge is a comb."""
    fields = np.zeros((60, 64, 96, 3), np.uint8)
    for number, field in enumerate(fields):
        left = 8 * (number % 10)
        field[16:48, left : left + 16] = 255
    woven = ("-vf", "tinterlace=interleave_top,setfield=tff", "-flags", "+ilme+ildct")
    path = make("i.mkv", fields, 48, "-c:v", "mpeg2video", "-q:v", 2, "-pix_fmt", "yuv420p", *woven)
    frames = video.decode(path, num_frames=13).astype(int)
    combs = np.abs(frames[:, 20:44:2] - frames[:, 21:45:2]).max((1, 2, 3))
    assert np.median(combs) < 130
    plain = make("p.mkv", fields, 48, "-c:v", "mpeg2video", "-q:v", 2, "-pix_fmt", "yuv420p", *woven[:2], "-vf", "null")
    assert not video.probe(plain).interlaced and video.probe(path).interlaced


@pytest.mark.parametrize("codec", ["mpeg2video", "libx264"])
def test_interlaced_frames_behind_progressive_ones_are_made_whole(tools, make, tmp_path, codec):
    fields = np.zeros((52, 64, 96, 3), np.uint8)
    for number, field in enumerate(fields):
        left = 8 * (number % 10)
        field[16:48, left : left + 16] = 255
    args = ("-c:v", codec, "-q:v", 2, "-pix_fmt", "yuv420p", "-muxdelay", 0)
    one = make("one.ts", fields[:1].repeat(26, 0), 24, *args, "-vf", "setfield=prog")
    woven = ("-vf", "tinterlace=interleave_top,setfield=tff", "-flags", "+ilme+ildct", "-output_ts_offset", 26 / 24)
    other = make("other.ts", fields, 48, *args, *woven)
    (tmp_path / "both.ts").write_bytes(one.read_bytes() + other.read_bytes())
    frames = video.decode(tmp_path / "both.ts").astype(int)
    combs = np.abs(frames[:, 20:44:2] - frames[:, 21:45:2]).max((1, 2, 3))
    assert len(frames) >= 51 and np.median(combs[26:]) < 130
    assert not video.probe(tmp_path / "both.ts").interlaced


def test_progressive_frames_are_not_touched(tools, make):
    """Pixel by pixel as ffmpeg alone gives them."""
    for name, args in (
        ("a.mp4", X264),
        ("b.mkv", ("-c:v", "ffv1", "-pix_fmt", "yuv422p")),
        ("c.avi", ("-c:v", "mpeg4")),
    ):
        path = make(name, numbered(26), 24, *args)
        scale = "scale=96:64:flags=bicubic+accurate_rnd+full_chroma_int:in_color_matrix=bt601"
        alone = [
            video.ffmpeg_exe(),
            "-v",
            "error",
            "-i",
            path,
            "-vf",
            scale,
            "-f",
            "rawvideo",
            "-pix_fmt",
            "rgb24",
            "-",
        ]
        raw = subprocess.run(list(map(str, alone)), capture_output=True, check=True).stdout
        np.testing.assert_array_equal(video.decode(path), np.frombuffer(raw, np.uint8).reshape(26, 64, 96, 3))


def test_what_is_transparent_is_laid_on_white(tools, tmp_path, wheel):
    """The left half is transparent, and green below that."""
    stored = np.dstack([numbered(1)[0], np.full((64, 96), 255, np.uint8)])[None].repeat(13, 0)
    stored[:, :, :48] = (7, 99, 7, 0)
    images = [Image.fromarray(frame) for frame in stored]
    for number, image in enumerate(images):
        image.putpixel((95, number), (0, 0, 0, 255))  # else equal ones become one
    given = ["-f", "rawvideo", "-pix_fmt", "rgba", "-s", "96x64", "-framerate", "24", "-i", "pipe:0"]
    raw = b"".join(image.tobytes() for image in images)
    prores = ("-c:v", "prores_ks", "-profile:v", "4444", "-pix_fmt", "yuva444p10le")
    vp9 = ("-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p", "-b:v", "2M")
    qtrle = ("-c:v", "qtrle", "-pix_fmt", "argb")
    for name, args in (("p.mov", prores), ("q.mov", qtrle), ("v.webm", vp9), ("a.apng", ("-f", "apng"))):
        command = [wheel, "-v", "error", *given, *args, str(tmp_path / name)]
        subprocess.run(command, input=raw, check=True)
    more = {"save_all": True, "append_images": images[1:], "duration": 40}
    images[0].save(tmp_path / "w.webp", lossless=True, exact=True, **more)
    images[0].save(tmp_path / "g.gif", disposal=2, **more)
    (tmp_path / "frames").mkdir()
    for number, image in enumerate(images):
        image.save(tmp_path / "frames" / f"{number:03d}.png")
    for name in ("p.mov", "q.mov", "v.webm", "a.apng", "w.webp", "g.gif", "frames"):
        for max_height in (None, 32):
            frames = video.decode(tmp_path / name, num_frames=12, max_height=max_height)
            assert frames.shape[3] == 3 and np.abs(bars(frames)[:4] - 255.0).max() <= 2, name
            assert np.abs(bars(frames)[4:] - BARS[4:]).max() <= 12, name


# ---- which stream, which files


def test_the_default_stream_is_taken_else_the_largest(tools, make, ffmpeg, tmp_path):
    small, main = make("small.mp4", numbered(20, 64, 48, 100), 24, *X264), make("main.mp4", numbered(20), 24, *X264)
    streams = ("-i", small, "-i", main, "-map", "0:v", "-map", "1:v", "-c", "copy")
    for name, first, second, start in (
        ("d.mkv", "0", "default", 0),
        ("n.mkv", "0", "0", 0),
        ("s.mkv", "default", "0", 100),
    ):
        path = tmp_path / name
        ffmpeg(*streams, "-disposition:v:0", first, "-disposition:v:1", second, path)
        assert read(video.decode(path, num_frames=13)) == list(range(start, start + 13)), name
    ffmpeg(*streams, tmp_path / "t.ts")  # which has no default
    assert read(video.decode(tmp_path / "t.ts", num_frames=13)) == list(range(13))


def images(folder, names, clip=None):
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((numbered(16) if clip is None else clip)[number]).save(path)


def test_frames_are_found_beside_what_else_lies_there(tools, tmp_path):
    names, top = [f"{number:05d}.png" for number in range(14)], tmp_path / "in"
    images(top / "кадры 映像 imágenes", names)
    for name in ("cover.jpg", "@eaDir/SYNOPHOTO_THUMB_S1.png", "thumbnails/1.png", "preview.png", "__MACOSX/1.png"):
        images(top / "кадры 映像 imágenes", [name])
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini", "._00000.png", "notes.txt"):
        (top / "кадры 映像 imágenes" / name).touch()
    images(top / "masked", names)
    images(top / "masked" / "masks", names, 255 - numbered(16))
    found, said, planned = clips_of(top)
    assert not said and [Path(clip.source).name for clip in planned.clips] == ["masked", "masks", "кадры 映像 imágenes"]
    assert read(found[0]) == read(found[2]) == list(range(13)) and read(found[1]) == [255 - n for n in range(13)]
    lines = sorted(note.line for note in planned.notes)
    assert "cover.jpg, preview.png left out, the 14 frames 00000.png to 00013.png are one clip's" in lines[3]
    assert "thumbnails: left out as small copies" in lines[2]
    for line, name in zip(lines[:2], ("masked/masks", "masked"), strict=True):
        said = "its 14 numbered images 00000.png to 00013.png are the frames of one clip; name them in a manifest"
        assert line == f"{top / name}: {said} to train each as an image"


@pytest.mark.parametrize(("suffix", "form"), [("jpg", "PNG"), ("jpg", "WEBP"), ("png", "JPEG"), ("webp", "BMP")])
def test_frames_whose_suffix_is_another_formats(tools, tmp_path, suffix, form):
    for number, frame in enumerate(numbered(14)):
        Image.fromarray(frame).save(tmp_path / f"{number:05d}.{suffix}", format=form, quality=95)
    found, said, _ = clips_of(tmp_path)
    assert [read(clip) for clip in found] == [list(range(13))] and not said


def test_folders_that_systems_make_are_skipped_and_no_others(tmp_path):
    own = ("#1 trip", "$5", "@nasa", "snapshot", "~old")
    made = ("#recycle", "#snapshot", "$RECYCLE.BIN", "@eaDir", "@Recycle", "@Recently-Snapshot", "@tmp", "__MACOSX")
    for name in (*own, *made, ".@__thumb", "System Volume Information", "lost+found", "~snapshot"):
        images(tmp_path / name, ["a.png"])
    planned = plan([str(tmp_path)], ClipSpec())
    assert tuple(Path(clip.source).parent.name for clip in planned.clips) == own
    assert not planned.failures and not planned.notes


@pytest.mark.parametrize("suffix", ["ppm", "pgm", "jfif", "jpe", "gif", "avif", "heic"])
def test_frames_of_every_format_of_images(tools, tmp_path, suffix):
    for number, frame in enumerate(numbered(14)):
        one = Image.fromarray(frame[..., 0] if suffix == "pgm" else frame)
        one.save(tmp_path / f"{number:04d}.{suffix}", **({} if suffix in ("ppm", "pgm", "gif") else {"quality": 95}))
    found, said, planned = clips_of(tmp_path)
    assert [read(clip) for clip in found] == [list(range(13))] and not said
    assert np.abs(bars(found[0]) - (BARS[:, :1] if suffix == "pgm" else BARS)).max() <= 12
    assert "are the frames of one clip" in planned.notes[0].line


@pytest.mark.parametrize("packing", ["jpeg", "zstd", "lzma", "tiff_lzw"])
def test_frames_of_tiff_are_read_however_they_are_packed(tools, tmp_path, packing):
    exif = Image.Exif()
    exif[0x0112] = 6
    for number, frame in enumerate(numbered(14)):
        turned = Image.fromarray(np.ascontiguousarray(STORED[6](frame)))
        turned.save(
            tmp_path / f"{number}.tif", compression=packing, exif=exif, **({"quality": 95} if packing == "jpeg" else {})
        )
    found, said, _ = clips_of(tmp_path)
    assert [read(clip) for clip in found] == [list(range(13))] and not said
    assert np.abs(bars(found[0]) - BARS).max() <= 12


def test_a_frame_of_another_size_costs_its_clips_alone(tools, tmp_path):
    images(tmp_path, [f"{n:04d}.png" for n in range(60)], numbered(60))
    images(tmp_path, ["0017.png"], numbered(1, 48, 32))
    found, said, _ = clips_of(tmp_path, ClipSpec(num_frames=5, stride=1))
    assert [read(clip)[0] for clip in found] == [*range(13), *range(18, 56)]
    assert said == [
        f"{tmp_path / '0017.png'}: is 32×48 px (H×W) but the first frame is 64×96; "
        "give all frames of a folder the same size"
    ]


def test_frames_of_ppm_in_text(tools, tmp_path):
    for number, frame in enumerate(numbered(14)):
        (tmp_path / f"{number}.ppm").write_text("P3\n96 64\n255\n" + " ".join(map(str, frame.ravel())))
    found, said, _ = clips_of(tmp_path)
    assert [read(clip) for clip in found] == [list(range(13))] and not said


def test_a_frame_that_is_cut_off_says_so(tools, tmp_path):
    for number, frame in enumerate(numbered(14)):
        Image.fromarray(frame).save(tmp_path / f"{number:04d}.ppm")
    (tmp_path / "0007.ppm").write_bytes((tmp_path / "0006.ppm").read_bytes()[:9000])
    found, said, _ = clips_of(tmp_path)
    assert not found and f"{tmp_path / '0007.ppm'}: is an image that cannot be read to its end" in said[0]


def test_gifs_that_move_are_no_frames(tools, tmp_path):
    clip = [Image.fromarray(frame) for frame in numbered(14)]
    for number in range(14):
        clip[0].save(tmp_path / f"{number}.gif", save_all=True, append_images=clip[1:], duration=40)
    planned = plan([str(tmp_path)], ClipSpec())
    assert len(planned.clips) == 14 and {cut.num_frames for cut in planned.clips} == {13}


@pytest.mark.parametrize("name", ["{n}", "frame_{n:03d}", "f-{n:03d}_left"])
def test_numbers_below_0_come_before_it(tmp_path, name):
    names = [name.format(n=n) + ".png" for n in range(-20, 14)]
    images(tmp_path, names, numbered(34))
    assert video.frame_files(tmp_path) == [tmp_path / file for file in names]
    (line,) = [note.line for note in plan([str(tmp_path)], ClipSpec()).notes]
    assert "its 34 numbered images" in line


@pytest.mark.parametrize(
    "names",
    [
        ("{n:04d}", "{n:04d}_mask", "{n:04d}_edge", "{n:04d}_flow"),
        ("S01E01_{n:03d}", "S01E02_{n:03d}", "S01E03_{n:03d}"),
    ],
)
def test_several_sequences_beside_frames(tmp_path, names):
    for name in names:
        images(tmp_path, [name.format(n=n) + ".png" for n in range(14)])
    planned = plan([str(tmp_path)], ClipSpec())
    (clip,) = planned.clips
    assert video.frame_files(clip.source) == [tmp_path / (names[0].format(n=n) + ".png") for n in range(14)]
    (note,) = planned.notes
    assert f"and {14 * (len(names) - 1) - 3} more left out, the 14 frames" in note.line


@pytest.mark.parametrize(
    "names",
    [
        [f"shot_00_00_{n // 5:02d}_{n % 5 * 200:03d}.png" for n in range(14)],  # mpv
        [f"01-2023010110{15 + n // 8}{n % 8 // 2 + 56}-{n % 2:02d}.png" for n in range(14)],  # Motion
        [f"{1305031100 + n // 10}.{n % 10 * 100000:06d}.png" for n in range(14)],
    ],
)
def test_frames_named_by_times_are_one_clip(tmp_path, names):
    images(tmp_path, names)
    (clip,) = plan([str(tmp_path)], ClipSpec()).clips
    assert video.frame_files(clip.source) == [tmp_path / name for name in names]


@pytest.mark.parametrize(
    "name", ["2023010110{one}500_{n:03d}", "8176120715{one}4_{n:03d}", "cam{one}_{n}0", "s01e0{one}_{n}"]
)
def test_clips_of_their_own_are_not_joined(tmp_path, name):
    images(tmp_path, [name.format(one=one, n=n) + ".png" for one in (1, 3) for n in range(13)], numbered(26))
    (clip,) = plan([str(tmp_path)], ClipSpec()).clips
    assert video.frame_files(clip.source) == [tmp_path / (name.format(one=1, n=n) + ".png") for n in range(13)]


def test_recordings_that_lack_a_frame_are_not_joined(tmp_path):
    for name in ("8176120715{one}4_{n:03d}.png", "2023010110{one}500_{n:03d}.png"):
        folder = tmp_path / name[:4]
        images(folder, [name.format(one=one, n=n) for one in (10, 13) for n in range(14) if n != 5], numbered(26))
        assert [file.name for file in video.frame_files(folder)] == [
            name.format(one=10, n=n) for n in range(14) if n != 5
        ]


@pytest.mark.parametrize("every", [1, 7])
def test_masks_of_the_same_names_beside_frames(tmp_path, every):
    images(tmp_path, [f"{n:05d}.jpg" for n in range(14)])
    images(tmp_path, [f"{n:05d}.png" for n in range(0, 14, every)], 255 - numbered(14))
    found, said, planned = clips_of(tmp_path)
    assert [read(clip) for clip in found] == [list(range(13))] and not said
    (note,) = planned.notes
    assert ".png" in note.line and "left out, the 14 frames 00000.jpg to 00013.jpg are one clip's" in note.line


def test_sequences_and_gaps_are_told(tmp_path):
    images(tmp_path / "stereo", [f"left_{n:03d}.png" for n in range(14)])
    images(tmp_path / "stereo", [f"right_{n:03d}.png" for n in range(13)])
    images(tmp_path / "cams", [f"cam1_{n:03d}.png" for n in range(13)])
    images(tmp_path / "cams", [f"cam2_{n:03d}.png" for n in range(13)])
    images(tmp_path / "gap", [f"{n}.png" for n in range(16) if n not in (5, 6)])
    images(tmp_path / "tens", [f"{10 * n}.png" for n in range(14)])
    notes = {}
    for name in ("stereo", "cams", "gap", "tens"):
        planned = plan([str(tmp_path / name)], ClipSpec())
        assert len(planned.clips) == 1 and not planned.failures
        notes[name] = [note.line for note in planned.notes]
    assert "right_000.png, right_001.png, right_002.png and 10 more left out" in notes["stereo"][0]
    assert "cam2_000.png" in notes["cams"][0] and "13 frames cam1_000.png to cam1_012.png" in notes["cams"][0]
    assert "lacks numbers between 4.png and 7.png" in notes["gap"][0] + notes["gap"][1]
    assert [len(notes[name]) for name in ("stereo", "cams", "gap", "tens")] == [1, 1, 2, 1]
    assert "its 14 numbered images 0.png to 130.png are the frames of one clip" in notes["tens"][0]


def test_rarer_endings(tools, make, ffmpeg, tmp_path):
    base = make("base.mp4", numbered(26), 24, *X264)
    folder = tmp_path / "in"
    folder.mkdir()
    endings = {
        "3g2": ("-c", "copy"),
        "asf": ("-c:v", "mpeg4", "-f", "asf"),
        "M2V": ("-c:v", "mpeg2video"),
        "h264": ("-c", "copy", "-bsf:v", "h264_mp4toannexb"),
        "F4V": ("-c", "copy", "-f", "mov"),
        "divx": ("-c:v", "mpeg4", "-f", "avi"),
        "QT": ("-c", "copy", "-f", "mov"),
        "nut": ("-c:v", "mpeg4"),
        "ivf": ("-c:v", "libvpx"),
        "mjpeg": ("-c:v", "mjpeg", "-f", "mjpeg"),
        "TRP": ("-c", "copy", "-f", "mpegts"),
        "tod": ("-c:v", "mpeg2video", "-f", "mpeg"),
        "apng": ("-f", "apng"),
        "png": ("-f", "apng"),
        "3gpp": ("-c", "copy", "-f", "3gp"),
        "mp4v": ("-c", "copy", "-f", "mp4"),
        "m4s": ("-c", "copy", "-f", "mp4"),
        "MOVIE": ("-c", "copy", "-f", "mov"),
        "mpeg2": ("-c:v", "mpeg2video", "-f", "vob"),
        "mpv2": ("-c:v", "mpeg2video", "-f", "mpeg2video"),
        "vro": ("-c:v", "mpeg2video", "-f", "vob"),
        "ps": ("-c:v", "mpeg2video", "-f", "vob"),
        "DAT": ("-c:v", "mpeg1video", "-f", "vcd"),
        "mpegts": ("-c", "copy", "-f", "mpegts"),
        "rec": ("-c", "copy", "-f", "mpegts"),
        "mjp": ("-c:v", "mjpeg", "-f", "mjpeg"),
        "ogg": ("-f", "lavfi", "-i", "sine=d=1", "-map", "1", "-map", "0", "-c:a", "libvorbis", "-c:v", "libtheora"),
        "mp2": ("-c:v", "mpeg2video", "-f", "vob"),
    }
    for ending, args in endings.items():
        ffmpeg("-i", base, *args, folder / f"v.{ending}")
    others = {"camera.dav", "old.swf"}
    unfinished = {"film.mkv.part", "Unconfirmed 1.crdownload"}
    for name in others | unfinished | {"frame.dpx"}:
        (folder / name).write_bytes(b"FWS" + bytes(100))
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", "-c:a", "libvorbis", folder / "sound.ogg")
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", folder / "sound.mp2")
    (folder / "table.dat").write_bytes(bytes(1000))
    (folder / "page.ps").write_bytes(b"%!PS-Adobe-3.0")
    found, said, planned = clips_of(folder, ClipSpec())
    assert said == [f"{folder / 'frame.dpx'}: is in no image format that is read here; export it as png"]
    assert {Path(clip.source).suffix[1:] for clip in planned.clips} == set(endings)
    shown = {Path(plan.source).suffix[1:]: read(clip) for plan, clip in zip(planned.clips, found, strict=True)}
    for ending in ("mjpeg", "mjp"):
        assert shown.pop(ending)[:12] == list(range(12))  # which says no rate: 25 is taken
    assert shown == {ending: list(range(13)) for ending in shown}
    assert {note.line for note in planned.notes} == {
        *(f"{folder / name}: is in no video format that is read here; convert it to mp4" for name in others),
        *(
            f"{folder / name}: left out as a download that has not ended; let it end, or rename it if it has"
            for name in unfinished
        ),
    }


def test_a_video_or_image_of_another_suffix_is_used_or_named(make, ffmpeg, tmp_path):
    base = make("base.mp4", numbered(13), 24, *X264)
    folder = tmp_path / "folder"
    used = ["v", "v.mpeg4"]
    raw = ["v.yuv", "v.nv12"]
    other = ["v.266", "v.h266", "v.vvc", "v.pva"]
    unfinished = ["v.download"]
    video_names = [f"v.{x}" for x in ("360", "bak", "lrf", "mp4.1", "mp4_old", "tmp", "trec", "xyz")]
    folder.mkdir()
    for name in used + raw + other + unfinished + video_names:
        shutil.copy(base, folder / name)
    forms = {"mkv": (), "ts": (), "avi": ("-c:v", "mpeg4"), "flv": (), "asf": ("-c:v", "mpeg4"), "m2ts": ()}
    forms |= {"mpeg": ("-c:v", "mpeg2video"), "m2v": ("-c:v", "mpeg2video"), "mxf": ("-c:v", "mpeg2video"), "h264": ()}
    forms |= {"nut": ("-c:v", "mpeg4"), "ivf": ("-c:v", "libvpx"), "ogv": ("-c:v", "libtheora"), "y4m": ()}
    forms |= {"rm": ("-c:v", "rv10"), "mov": (), "hevc": ("-c:v", "libx265", "-x265-params", "log-level=none")}
    for ending, args in forms.items():
        ffmpeg("-i", base, *args, tmp_path / f"v.{ending}")
        name = f"w.{ending}x" if ending != "m2ts" else "w.tsx2"
        (tmp_path / f"v.{ending}").rename(folder / name)
        video_names.append(name)
    image_names = []
    for form in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "HEIF", "AVIF"):
        image_names.append(f"i.{form.lower()}x")
        Image.fromarray(numbered(1)[0]).save(folder / image_names[-1], format=form)
    for sound, args in {"a.m4r": ("-f", "ipod"), "a.mka": (), "a.wma": (), "a.xwav": ("-f", "wav")}.items():
        ffmpeg("-f", "lavfi", "-i", "sine=d=1", *args, folder / sound)
    for name in ("LICENSE", "x.bin", "icon.ico"):
        (folder / name).write_bytes(b"\0\0\1\0" + bytes(600))
    planned = plan([str(folder)], ClipSpec())
    assert {Path(clip.source).name for clip in planned.clips} == set(used) and not planned.failures
    lines = {note.line for note in planned.notes}
    assert {f"{folder / name}: is in no video format that is read here; convert it to mp4" for name in other} <= lines
    bare = "holds bare frames, without their size, rate and format; convert it to y4m by ffmpeg -f rawvideo"
    assert {f"{folder / name}: {bare}" for name in raw} <= lines
    ends = "end the names in the suffix of the format, such as"
    for kind, names, suffix in (("video", video_names, ".mp4"), ("image", image_names, ".png")):
        first, names = sorted(names)[:3], sorted(names)
        told = (
            f"{', '.join(first)} and {len(names) - 3} more left out: {kind}s by how they begin, but not by their names"
        )
        assert f"{folder}: {told}; {ends} {suffix}, to use them" in lines
    assert len(lines) == len(other + raw + unfinished) + 2


def test_annotations_beside_frames_are_no_shards(tools, tmp_path):
    images(tmp_path / "labelme", [f"{n:06d}.png" for n in range(14)])
    for number in range(14):
        text = f'{{"version": "5.2.1", "shapes": [], "imagePath": "{number:06d}.png"}}'
        (tmp_path / "labelme" / f"{number:06d}.json").write_text(text)
    assert not shards.is_corpus(tmp_path / "labelme")
    found, said, _ = clips_of(tmp_path / "labelme")
    assert [read(clip) for clip in found] == [list(range(13))] and not said


def test_a_time_lapse_is_told_of_and_taken_as_it_is(tools, make):
    path = make("lapse.mp4", numbered(30), 1, *X264)
    found, said, planned = clips_of(path, ClipSpec())
    assert read(found[0]) == [0] * 13 and not said
    (note,) = planned.notes
    assert "has 1 frames a second" in note.line and "give --as-is" in note.line
    other = path.rename(path.with_name("other.mp4"))
    found, said, planned = clips_of(other, ClipSpec(stride=13, fps=None))
    assert [read(clip) for clip in found] == every(30) and not said and not planned.notes
    with pytest.raises(shards.ShardError, match="as_is True is now None"):
        shards.write(plan([str(other)], ClipSpec(stride=13)).clips, Path(f"{other}.shards"))


def test_an_ffmpeg_that_prints_no_times_is_one_line(tools, make, monkeypatch):
    path = make("a.mp4", numbered(13), 24, *X264)
    monkeypatch.setattr(one_pass, "LAG_S", 0.5)
    monkeypatch.setattr(one_pass._Decoding, "_STAMP", re.compile(b"(?!)"))
    with pytest.raises(video.VideoError, match="does not print the times of its pictures; use the ffmpeg of imageio"):
        video.decode(path)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_last_picture_of_a_high_rate_comes(tools, make, count):
    path = make("short.mp4", numbered(count), 60, *X264)
    assert len(video.decode(path)) == 1 and read(video.decode(path, fps=60.0))[-1] == count - 1


def test_empty_rows_of_a_manifest_are_skipped(make, tmp_path):
    make("a.mp4", numbered(13), 24, *X264)
    (tmp_path / "list.csv").write_text("clip_id,path,start_s\n\na,a.mp4,0\n,,\n  \n , ,\n\n")
    planned = plan([str(tmp_path / "list.csv")], ClipSpec())
    assert [clip.clip_id for clip in planned.clips] == ["a"] and not planned.failures


def test_a_long_name_behind_a_uri(make, tmp_path):
    from infra.remote import fetch

    base = make("base.mp4", numbered(13), 24, *X264)
    folder = tmp_path / "bucket"
    folder.mkdir()
    for name in ("漢" * 80 + ".mp4", "ok.mp4"):
        (folder / name).write_bytes(base.read_bytes())
    local = fetch(folder.as_uri(), tmp_path / "cache")
    found, said, planned = clips_of(local, ClipSpec())
    assert [read(clip) for clip in found] == [list(range(13))] * 2 and not said
    assert {Path(clip.source).name for clip in planned.clips} == {"漢" * 80 + ".mp4", "ok.mp4"}


def test_a_name_that_fits_an_object_store_and_no_disk(make, tmp_path):
    import fsspec

    from infra.remote import fetch

    base = make("base.mp4", numbered(13), 24, *X264)
    memory = fsspec.filesystem("memory")
    memory.pipe({f"/store/{'漢' * 200}{n}.mp4": base.read_bytes() for n in range(2)})
    planned = plan([fetch("memory://store", tmp_path / "cache")], ClipSpec())
    assert len(planned.clips) == 2 and not planned.failures

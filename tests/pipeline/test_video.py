"""Decode and encode against independent knowledge: numbered frames, painted quadrants, round trips."""

import os
import re
import subprocess

import numpy as np
import pytest

from infra.errors import printable
from pipeline import video
from pipeline.video import VideoError, decode, decode_each, decoder, encode, one_pass, probe
from pipeline.video import ffmpeg as command
from pipeline.video.encoder import writing
from pipeline.video.errors import telling_line


def psnr(one, other):
    error = np.mean((one.astype(float) - other.astype(float)) ** 2)
    return 10 * np.log10(255**2 / max(error, 1e-9))


def smooth_clip(frames=13, height=48, width=64):
    """A coloured plaid that drifts: smooth, so that 4:2:0 colour costs little."""
    t, y, x = np.meshgrid(np.arange(frames), np.arange(height), np.arange(width), indexing="ij")
    red, green = 128 + 100 * np.sin((x + t) / 9), 128 + 100 * np.sin((y + 2 * t) / 11)
    return np.stack([red, green, 255 - red / 2 - green / 2], -1).round().astype(np.uint8)


def quadrants(frames=13, height=32, width=48):
    """Red, green / blue, white: tells every rotation and flip apart."""
    clip = np.zeros((frames, height, width, 3), np.uint8)
    h, w = height // 2, width // 2
    clip[:, :h, :w, 0] = clip[:, :h, w:, 1] = clip[:, h:, :w, 2] = 255
    clip[:, h:, w:] = 255
    return clip


def corners(frame):
    h, w = frame.shape[:2]
    names = {(1, 0, 0): "red", (0, 1, 0): "green", (0, 0, 1): "blue", (1, 1, 1): "white"}
    spots = (frame[h // 4, w // 4], frame[h // 4, -w // 4], frame[-h // 4, w // 4], frame[-h // 4, -w // 4])
    return [names[tuple(int(c > 127) for c in spot)] for spot in spots]


def one_line_error(path, *words):
    with pytest.raises(VideoError) as caught:
        probe(path)
        decode(path, num_frames=13)
    text = str(caught.value)
    assert "\n" not in text and text.startswith(f"{printable(path)}: ") and "; " in text, text
    for word in words:
        assert word in text, text
    return text


# ---- time


def test_a_slice_is_the_same_as_slicing_the_whole(tools, tmp_path, lavfi):
    path = lavfi(tmp_path / "a.mp4", "testsrc=s=64x48:r=25", 60, "-pix_fmt", "yuv420p", "-g", 12)
    whole = decode(path)
    assert whole.shape == (58, 48, 64, 3) and whole.dtype == np.uint8 and whole.flags.c_contiguous  # 60*24/25=57.6
    assert np.array_equal(decode(path, start_frame=17, num_frames=13), whole[17:30])
    assert np.array_equal(decode(path, start_frame=50), whole[50:])
    each = list(decode_each(path, [3, 10, 45], num_frames=13))
    assert all(np.array_equal(clip, whole[s : s + 13]) for clip, s in zip(each, [3, 10, 45], strict=True))


@pytest.mark.parametrize(
    ("rate", "shown_frames"),
    [
        ("24", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("12", [0, 0, 1, 1, 2, 2, 3, 3]),
        ("48", [0, 2, 4, 6, 8, 10, 12, 14]),
        ("30", [0, 1, 3, 4, 5, 6, 8, 9]),  # by hand: frame i is due at 0.8 i; the last one due wins
    ],
)
def test_resampling_takes_the_frame_that_is_due(tools, tmp_path, lossless, numbered, levels_of, rate, shown_frames):
    path = lossless(tmp_path / "n.mov", numbered(16), rate, "-c:v", "png", "-pix_fmt", "rgb24")
    assert levels_of(decode(path, num_frames=8), 16) == shown_frames


def test_variable_frame_rate_follows_the_clock(tools, tmp_path, lossless, numbered, levels_of):
    slower = "setpts='if(lt(N,5),N,5+(N-5)*3)/24/TB'"  # from the fifth on, each frame lasts three
    path = lossless(tmp_path / "v.mkv", numbered(10), "24", "-vf", slower)
    assert levels_of(decode(path, num_frames=14), 10) == [0, 1, 2, 3, 4, 5, 5, 5, 6, 6, 6, 7, 7, 7]


def test_a_late_first_frame_is_not_filled_up(tools, tmp_path, lossless, numbered, levels_of, ffmpeg):
    silent = lossless(tmp_path / "s.mkv", numbered(13))
    late = tmp_path / "late.mkv"
    tone = ["-f", "lavfi", "-t", "2", "-i", "sine"]
    ffmpeg(*tone, "-itsoffset", "0.5", "-i", silent, "-map", "1:v", "-map", "0:a", "-c:v", "copy", late)
    assert levels_of(decode(late), 13) == list(range(13))
    info = probe(late)
    assert info.has_audio and info.duration_s == pytest.approx(13 / 24, abs=0.01)  # the picture's, not the sound's
    assert video.count_frames(info, 24.0) == 13


def test_counts_agree_with_decoding(tools, tmp_path, lavfi):
    for rate, frames in (("24000/1001", 30), ("30000/1001", 40), ("48", 25), ("25", 14)):
        for suffix in ("mp4", "mkv"):
            path = lavfi(tmp_path / f"c.{suffix}", f"testsrc=s=32x32:r={rate}", frames, "-pix_fmt", "yuv420p")
            assert video.count_frames(probe(path), 24.0) == len(decode(path)), (rate, suffix)


def test_short_decode_says_how_many_there_were(tmp_path, lavfi):
    path = lavfi(tmp_path / "a.mp4", "testsrc=s=32x32:r=24", 17)
    for start in (5, 40):
        with pytest.raises(VideoError, match=rf"has only 17 frames at 24 FPS, and 13 from frame {start} on"):
            decode(path, start_frame=start, num_frames=13)
    good, bad = decode_each(path, [0, 5], num_frames=13)
    assert good.shape == (13, 32, 32, 3) and isinstance(bad, VideoError)
    with pytest.raises(ValueError, match="start_frame >= 0"):
        decode(path, start_frame=-1, num_frames=13)


# ---- geometry


@pytest.mark.parametrize(
    ("deg", "expected"),
    [
        (90, ["blue", "red", "white", "green"]),
        (180, ["white", "blue", "green", "red"]),
        (270, ["green", "white", "red", "blue"]),
    ],
)
def test_rotation_metadata(tools, tmp_path, turn, deg, expected):
    path = tmp_path / "r.mp4"
    encode(quadrants(), path)
    assert corners(decode(path)[0]) == ["red", "green", "blue", "white"]
    turn(path, deg)
    info = probe(path)
    assert info.rotation_deg == deg
    assert (info.width, info.height) == ((48, 32) if deg == 180 else (32, 48))
    frames = decode(path)
    assert frames.shape[1:3] == (info.height, info.width)
    assert corners(frames[0]) == expected


def test_non_square_pixels_are_stretched_then_turned(tools, tmp_path, lavfi, turn):
    path = lavfi(tmp_path / "s.mp4", "testsrc=s=60x40:r=24", 13, "-vf", "setsar=4/3", "-pix_fmt", "yuv420p")
    assert (probe(path).width, probe(path).height) == (80, 40)
    assert decode(path).shape[1:3] == (40, 80)
    turn(path, 90)
    assert (probe(path).width, probe(path).height) == (40, 80)
    assert decode(path).shape[1:3] == (80, 40)


def test_max_height_only_shrinks(tools, tmp_path, lossless):
    clip = smooth_clip(height=90, width=131)
    path = lossless(tmp_path / "m.mkv", clip)
    assert np.array_equal(decode(path, max_height=90), clip) and np.array_equal(decode(path), clip)
    small = decode(path, max_height=30)
    assert small.shape == (13, 30, 44, 3)  # 131 / 3 = 43.67
    thirds = clip[:, :, :129].reshape(13, 30, 3, 43, 3, 3).mean((2, 4))
    assert psnr(small[:, :, :43], thirds) > 25  # the mean over an area, not a picked pixel
    assert decode(path, max_height=29).shape == (13, 29, 42, 3)


@pytest.mark.parametrize("height", [16, 100, 120])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p10le", "yuv444p"])
def test_shrunk_frames_are_those_of_ffmpegs_rgb24(tools, tmp_path, lavfi, pix_fmt, height):
    path = lavfi(tmp_path / "a.mkv", "testsrc2=size=320x240:rate=24", 6, "-c:v", "ffv1", "-pix_fmt", pix_fmt)
    width = round(320 * height / 240)
    scale = f"scale={width}:{height}:flags=area+accurate_rnd+full_chroma_int:in_color_matrix=bt601"
    plain = [
        video.ffmpeg_exe(),
        "-v",
        "error",
        "-i",
        str(path),
        "-vf",
        scale,
        "-pix_fmt",
        "rgb24",
        "-f",
        "rawvideo",
        "-",
    ]
    pixels = np.frombuffer(subprocess.run(plain, check=True, capture_output=True).stdout, np.uint8)
    assert np.array_equal(decode(path, max_height=height), pixels.reshape(-1, height, width, 3))


def test_every_second_line_averages_when_halved(tmp_path, lossless):
    stripes = np.zeros((2, 32, 32, 3), np.uint8)
    stripes[:, ::2] = 255
    halved = decode(lossless(tmp_path / "z.mkv", stripes), max_height=16)
    assert np.abs(halved.astype(int) - 128).max() <= 2


# ---- pixel formats


@pytest.mark.parametrize(
    ("name", "args", "least_db"),
    [
        ("odd.mkv", ["-c:v", "ffv1", "-pix_fmt", "bgr0"], 99),
        ("ten_bit.mkv", ["-c:v", "ffv1", "-pix_fmt", "yuv444p10le"], 45),
        ("full_range.mkv", ["-c:v", "mjpeg", "-q:v", "1", "-pix_fmt", "yuvj420p"], 33),
        ("alpha.mov", ["-c:v", "qtrle", "-pix_fmt", "argb"], 99),
        ("alpha_png.mov", ["-vf", "format=rgba,colorchannelmixer=aa=0.3", "-c:v", "png"], 99),
        ("h264.mp4", ["-c:v", "libx264", "-crf", "1", "-pix_fmt", "yuv444p"], 40),
    ],
)
def test_pixel_formats_become_rgb(tools, tmp_path, lossless, name, args, least_db):
    clip = smooth_clip(height=35, width=51)
    path = lossless(tmp_path / name, clip, "24", *args)
    frames = decode(path, num_frames=13)
    assert frames.shape == clip.shape and frames.dtype == np.uint8
    assert np.array_equal(frames, clip) if least_db == 99 else psnr(frames, clip) > least_db


def test_an_mp4_plays_in_whole_rounds_until_it_is_long_enough(tools, tmp_path):
    clip = smooth_clip()
    video.encode(clip, tmp_path / "once.mp4")
    video.encode(clip, tmp_path / "rounds.mp4", least_s=1.1)
    once, rounds = decode(tmp_path / "once.mp4"), decode(tmp_path / "rounds.mp4", num_frames=39)
    assert np.array_equal(rounds, np.tile(once, (3, 1, 1, 1)))
    assert video.count_frames(video.probe(tmp_path / "rounds.mp4"), 24) == 39  # 1.1 s are 26.4 frames
    video.encode(clip[:1], tmp_path / "still.mp4", least_s=1.1)
    assert len(decode(tmp_path / "still.mp4", num_frames=1)) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"once.mp4", "rounds.mp4", "still.mp4"}


def test_gray_becomes_three_equal_channels(tools, tmp_path, lossless):
    clip = smooth_clip()
    clip[..., :] = clip[..., :1]
    path = lossless(tmp_path / "g.mkv", clip, "24", "-pix_fmt", "gray")
    frames = decode(path)
    assert np.ptp(frames.astype(int), axis=-1).max() == 0 and psnr(frames, clip) > 40


def test_vp9_with_alpha_and_sound(tools, tmp_path, ffmpeg):
    path = tmp_path / "a.webm"
    picture = ["-f", "lavfi", "-i", "testsrc=s=64x48:r=24:d=1,format=yuva420p"]
    ffmpeg(*picture, "-f", "lavfi", "-i", "sine=d=1", "-c:v", "libvpx-vp9", "-cpu-used", 8, path)
    info = probe(path)
    assert info.has_audio and (info.width, info.height, info.fps) == (64, 48, 24.0)
    frames = decode(path, num_frames=13)
    assert frames.shape == (13, 48, 64, 3) and frames.std() > 40


@pytest.fixture
def headers(tmp_path, lavfi, turn):
    """Files of several formats, and what each is by how it was made; None: as the encoder likes."""
    made = [
        ("a b.mp4", "30000/1001", ["-pix_fmt", "yuv420p10le"], (66, 34, 29.97, 20 * 1001 / 30000, 0, "yuv420p10le")),
        ("sar.mkv", "24000/1001", ["-vf", "setsar=8/9"], (59, 34, 23.98, 20 * 1001 / 24000, 0, None)),
        ("q.mov", "25", ["-vf", "format=argb", "-c:v", "qtrle"], (66, 34, 25.0, 20 / 25, 0, "argb")),
        ("t.avi", "15", ["-c:v", "mpeg4"], (66, 34, 15.0, 20 / 15, 0, "yuv420p")),
        ("turned.mp4", "24", ["-pix_fmt", "yuv420p"], (34, 66, 24.0, 20 / 24, 270, "yuv420p")),
    ]
    files = {
        lavfi(tmp_path / name, f"testsrc=s=66x34:r={rate}", 20, *args): expected for name, rate, args, expected in made
    }
    turn(tmp_path / "turned.mp4", 270)
    return files


def test_a_header_says_what_was_made(tools, headers):
    for path, (width, height, fps, duration_s, rotation_deg, pix_fmt) in headers.items():
        found = probe(path)
        assert (found.width, found.height, found.fps, found.rotation_deg) == (width, height, fps, rotation_deg), path
        assert found.duration_s == pytest.approx(duration_s, abs=0.002) and not found.has_audio, path
        assert pix_fmt in (None, found.pix_fmt), path


def test_the_line_that_tells_why():
    lines = b"[mov @ 0x1] [x @ 0x2] moov atom not found\nError opening input: X"
    assert telling_line("a", lines) == "moov atom not found"


# ---- folders of frames and stills


def test_folder_of_frames_in_natural_order(tools, tmp_path, lavfi, numbered, levels_of, ffmpeg, lossless):
    source = lossless(tmp_path / "n.mkv", numbered(14))
    folder = tmp_path / "50%d 100% främe"
    folder.mkdir()
    for i in range(14):
        picked = ["-vf", f"select=eq(n\\,{i})", "-frames:v", "1", "-update", "1"]
        ffmpeg("-i", source, *picked, f"file:{folder}/{i + 1}{'.bmp' if i == 3 else '.png'}")
    assert levels_of(decode(folder, fps=7.0), 14) == list(range(14))
    assert levels_of(decode(folder, start_frame=8, num_frames=3), 14) == [8, 9, 10]
    assert decode(folder, max_height=12, num_frames=1).shape == (1, 12, 16, 3)
    assert video.count_frames(probe(folder), 24.0) == 14
    lavfi(folder / "9.png", "testsrc=s=64x48", 1, "-update", 1)
    with pytest.raises(VideoError, match=r"9\.png: is 48×64 px \(H×W\) but the first frame is 24×32; "):
        decode(folder, max_height=24)
    (folder / "9.png").write_bytes(b"no picture")
    with pytest.raises(VideoError, match=r"9\.png: .*; "):
        decode(folder)
    (folder / "010.png").write_bytes(b"")
    with pytest.raises(VideoError, match="same number as"):
        decode(folder)


def test_a_still_is_one_frame(tools, tmp_path, lavfi):
    path = tmp_path / "still%02d.png"
    os.rename(lavfi(tmp_path / "x.png", "testsrc=s=64x48", 1, "-update", 1), path)
    assert video.count_frames(probe(path), 24.0) == 1 and decode(path).shape == (1, 48, 64, 3)
    with pytest.raises(VideoError, match="has only 1 frame at 24 FPS"):
        decode(path, num_frames=13)


# ---- bad files


def test_bad_files_are_one_line_each(tools, tmp_path, lavfi, ffmpeg):
    one_line_error(tmp_path / "missing.mp4", "no such file", "check the path")
    empty = tmp_path / "empty.mp4"
    empty.touch()
    one_line_error(empty, "is empty (0 bytes)", "copy it again")
    text = tmp_path / "text.mp4"
    text.write_text("hello, I am a letter\n" * 200)
    one_line_error(text, "is a text file, not a video; give a video file")
    text.write_text("Zürich " * 800)
    one_line_error(text, "is a text file")
    noise = tmp_path / "noise.mp4"
    noise.write_bytes(np.random.default_rng(1).bytes(5000))
    one_line_error(noise)
    sound = tmp_path / "talk.mp4"
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", "-c:a", "aac", sound)
    assert one_line_error(sound).endswith("talk.mp4: has no video stream (audio only); give a file with video")
    whole = lavfi(tmp_path / "whole.mp4", "testsrc=s=64x48:r=24", 24)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[:2000])
    one_line_error(cut, "cut off", "copy it again")
    cut.write_bytes(lavfi(tmp_path / "w.mkv", "testsrc=s=64x48:r=24", 24, "-g", 1).read_bytes()[:6000])
    one_line_error(cut, "has only")
    os.mkfifo(tmp_path / "pipe.mp4")
    one_line_error(tmp_path / "pipe.mp4", "not a regular file")
    one_line_error(tmp_path / "nul\0.mp4", "cannot be opened")


def test_song_with_a_cover_is_audio_only(tools, tmp_path, lavfi, ffmpeg):
    cover = lavfi(tmp_path / "c.png", "testsrc=s=64x48", 1, "-update", 1)
    song = tmp_path / "song.mp4"
    streams = ["-map", "0", "-map", "1", "-c:v", "copy", "-disposition:v:0", "attached_pic"]
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", "-i", cover, *streams, song)
    one_line_error(song, "audio only")


def test_a_cover_is_not_taken_for_the_video(tools, tmp_path, lavfi, ffmpeg, lossless, numbered, levels_of):
    cover = lavfi(tmp_path / "c.png", "testsrc=s=64x48", 1, "-update", 1)
    frames = lossless(tmp_path / "n.mp4", numbered(13), "24", "-c:v", "libx264", "-pix_fmt", "yuv444p", "-crf", 1)
    both = tmp_path / "both.mp4"
    streams = ["-map", "0", "-map", "1", "-c", "copy", "-disposition:v:0", "attached_pic"]
    ffmpeg("-i", cover, "-i", frames, *streams, both)
    assert (probe(both).width, probe(both).height) == (32, 24)
    assert levels_of(decode(both, num_frames=13), 13) == list(range(13))


def test_a_playlist_opens_no_other_file(tools, tmp_path, lavfi):
    secret = lavfi(tmp_path / "secret.ts", "testsrc=s=64x48:r=24", 24, "-c:v", "mpeg2video")
    lists = {
        "list.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n#\x01",
        "cat.mp4": f"ffconcat version 1.0\nfile {secret.name}\n#\x01\n",
    }
    for name, content in lists.items():
        (tmp_path / name).write_text(content)  # \x01: not plain text
        one_line_error(tmp_path / name, "no video format" if name == "cat.mp4" else "")


@pytest.mark.parametrize("name", ["a b ü 漢字.mp4", "-y.mp4", "concat:a|b.mp4", "new\nline'\".mp4", "a\\:,[x];%d=.mp4"])
def test_names_are_only_names(tools, tmp_path, lavfi, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    made = lavfi(tmp_path / "plain.mp4", "testsrc=s=32x32:r=24", 13)
    os.rename(made, name)
    assert probe(name).path == name
    assert decode(name, num_frames=13).shape == (13, 32, 32, 3)
    with open(name, "r+b") as file:
        file.truncate(500)
    one_line_error(name)


def test_a_stuck_command_is_an_error(tmp_path, lavfi, monkeypatch):
    path = lavfi(tmp_path / "a.mp4", "testsrc=s=32x32:r=24", 13)
    stuck = tmp_path / "ffmpeg"
    stuck.write_text("#!/bin/sh\nexec sleep 60\n")
    stuck.chmod(0o755)
    monkeypatch.setattr(command, "COMMAND_TIMEOUT_S", 0.3)
    monkeypatch.setattr(one_pass, "FRAME_TIMEOUT_S", 0.0)
    info = probe(path)
    monkeypatch.setattr(command, "ffmpeg_exe", lambda: str(stuck))
    monkeypatch.setattr(decoder, "probe", lambda _path: info)
    with pytest.raises(VideoError, match=r"was not done after 0\.3 s"):
        decode(path, num_frames=13)


# ---- encode


@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
def test_mp4_round_trip(tools, tmp_path, size):
    clip = smooth_clip(height=size[0], width=size[1])
    path = tmp_path / "out é.mp4"
    encode(clip, path)
    frames = decode(path)
    assert frames.shape == (13, size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    assert psnr(frames[:, : size[0], : size[1]], clip) > 38
    assert np.abs(frames[:, -1].astype(int) - frames[:, size[0] - 1]).mean() < 3  # the edge repeated, not black
    assert probe(path).pix_fmt == "yuv420p" and probe(path).fps == 24.0
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # plays before it is all there
    assert os.listdir(tmp_path) == [path.name]
    flat = np.full((13, 32, 32, 3), (200, 30, 90), np.uint8)  # one colour cannot hide a wrong matrix
    encode(flat, path)
    assert np.abs(decode(path).astype(int) - flat).max() <= 3


@pytest.mark.parametrize("fps", [24.0, 29.97])
@pytest.mark.parametrize("size", [(48, 64), (47, 63), (1, 1)])
def test_mkv_round_trip_is_to_the_bit(tools, tmp_path, size, fps):
    clip = np.random.default_rng(0).integers(0, 256, (13, *size, 3), dtype=np.uint8)
    path = tmp_path / "out.mkv"
    encode(clip, path, fps=fps)
    assert np.array_equal(decode(path, fps=fps), clip) and probe(path).fps == pytest.approx(fps, abs=0.02)
    assert np.array_equal(decode(path, fps=None), clip)


def test_gif_round_trip_and_loop(tools, tmp_path):
    clip = quadrants(height=33, width=47)
    path = tmp_path / "out.GIF"
    encode(clip, path, fps=25.0)
    assert b"NETSCAPE2.0\x03\x01\x00\x00" in path.read_bytes()  # loops for ever
    frames = decode(path, fps=25.0)
    assert frames.shape == clip.shape and psnr(frames, clip) > 35


def test_encode_refuses_and_leaves_nothing_half_done(tmp_path, monkeypatch):
    clip = smooth_clip()
    for bad in (clip.astype(np.float32), clip[0], clip[..., :2], clip[:0]):
        with pytest.raises(ValueError, match="uint8"):
            encode(bad, tmp_path / "a.mp4")
    with pytest.raises(ValueError, match="unknown suffix"):
        encode(clip, tmp_path / "a.avi")
    encode(clip, tmp_path / "a.mp4")
    before = (tmp_path / "a.mp4").read_bytes()
    full = tmp_path / "bin" / "ffmpeg"
    full.parent.mkdir()
    full.write_text(
        '#!/bin/sh\nfor target; do :; done\nprintf half >"${target#file:}"\n'
        "printf 'No space left on device\\nConversion failed!' >&2\nexit 1\n"
    )
    full.chmod(0o755)
    monkeypatch.setattr(command, "ffmpeg_exe", lambda: str(full))
    with pytest.raises(VideoError, match=r"a\.mp4: ffmpeg could not write it \(No space left on device\); "):
        encode(smooth_clip(frames=20), tmp_path / "a.mp4")
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "bin"] and (tmp_path / "a.mp4").read_bytes() == before


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.gif"])
def test_frames_written_as_they_come_are_those_of_encode(tools, tmp_path, name):
    clip = smooth_clip(frames=30, height=47, width=63)
    encode(clip, tmp_path / f"whole {name}", fps=25.0)
    with writing(tmp_path / name, 47, 63, fps=25.0) as write:
        for run in (clip[:1], clip[1:18], clip[18:]):
            write(run)
            assert not (tmp_path / name).exists()
    frames, whole = decode(tmp_path / name, fps=25.0), decode(tmp_path / f"whole {name}", fps=25.0)
    assert frames.shape[0] == 30 and (frames == whole).all()
    assert sorted(os.listdir(tmp_path)) == [name, f"whole {name}"]


def test_a_video_that_is_not_finished_is_not_there(tmp_path, monkeypatch):
    clip = smooth_clip(frames=60)
    encode(clip, tmp_path / "a.mp4")
    before = (tmp_path / "a.mp4").read_bytes()
    with pytest.raises(KeyboardInterrupt), writing(tmp_path / "a.mp4", 48, 64) as write:
        write(clip[:20])
        raise KeyboardInterrupt
    for bad, told in ((clip[:, :40], "frames of 48x64 are needed"), (clip[:0], "uint8")):
        with pytest.raises(ValueError, match=told), writing(tmp_path / "a.mp4", 48, 64) as write:
            write(clip[:20])
            write(bad)
    with pytest.raises(ValueError, match=r"a\.mp4: no frames were given"), writing(tmp_path / "a.mp4", 48, 64):
        pass
    deaf = tmp_path / "deaf"
    deaf.write_text("#!/bin/sh\nexec sleep 60\n")
    deaf.chmod(0o755)
    monkeypatch.setattr(command, "ffmpeg_exe", lambda: str(deaf))
    monkeypatch.setattr(command, "COMMAND_TIMEOUT_S", 0.3)
    with pytest.raises(VideoError, match=r"a\.mp4: ffmpeg was not done after 0\.3 s; "):
        encode(clip, tmp_path / "a.mp4")
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "deaf"] and (tmp_path / "a.mp4").read_bytes() == before


def test_commands_let_no_other_protocol_in(tmp_path, lavfi, monkeypatch):
    path = lavfi(tmp_path / "a.mp4", "testsrc=s=32x32:r=24", 13)
    seen = []
    real = subprocess.Popen

    def spy(args, **kwargs):
        seen.append((args, kwargs.get("stdin")))
        return real(args, **kwargs)

    monkeypatch.setattr(command.subprocess, "Popen", spy)
    decode(path)
    args, stdin = next(call for call in seen if "rawvideo" in call[0])
    assert stdin == subprocess.DEVNULL
    assert re.search(r"-protocol_whitelist file -?.*-i file:/", " ".join(args))

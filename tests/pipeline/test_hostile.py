"""Hundreds of damaged and hostile files: each becomes a clip or one line with its cause, within bounds."""

import contextlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import damage
import numpy as np
import pytest

from infra.errors import printable
from pipeline import shards, video
from pipeline.clips import ClipSpec, plan
from pipeline.video import decoder
from pipeline.video import ffmpeg as command

pytestmark = pytest.mark.faults

MIB = 1 << 20


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, lavfi):
    made = tmp_path_factory.mktemp("made")
    picture = "testsrc=s=64x48:r=24"
    codecs = {
        ".mp4": ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-g", 6],
        ".mkv": ["-c:v", "mpeg4"],
        ".avi": ["-c:v", "mpeg4"],
        ".ts": ["-c:v", "mpeg2video"],
        ".gif": [],
    }
    originals = {s: lavfi(made / f"a{s}", picture, 20, *args).read_bytes() for s, args in codecs.items()}

    def png(width, height):
        return lavfi(made / "a.png", f"testsrc=s={width}x{height}", 1, "-update", 1).read_bytes()

    root = tmp_path_factory.mktemp("hostile") / "corpus"
    damage.build(root, originals, png)
    yield root, made
    damage.remove(root)


def _found(root):
    """What the walk should tell of: video files as they are, folders of frames as one, from real folders only."""
    names = {str(damage.deep_file(root))}
    for folder, folders, files in os.walk(root):
        at = Path(folder)
        if "deep" in folders:
            folders.remove("deep")  # os.walk itself may recurse
        if folder.endswith("_png"):
            names.add(str(at))
        else:
            names |= {str(at / name) for name in files} | {str(at / n) for n in folders if os.path.islink(at / n)}
    return names


def test_every_file_is_a_clip_or_a_line_with_its_cause(tools, corpus, tmp_path, injected):
    root, made = corpus
    before = sorted(os.listdir(root.parent)), sorted(os.listdir(root)), sorted(os.listdir(made))
    there = _found(root) - {str(root / "links" / name) for name in ("round", "round.mp4")}
    peak_before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    own_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    planned = plan([str(root)], ClipSpec())
    written = shards.write(planned.clips, tmp_path / "store")
    took_s = time.monotonic() - started

    clips = {clip.source: clip.clip_id for clip in planned.clips if clip.clip_id in written.clip_ids}
    failed = [*planned.failures, *written.failures]
    assert len(there) >= 200 + len(damage.GOOD)
    told = [*clips, *(failure.source for failure in failed)]
    injected("damaged and hostile files among good ones", there, told, times=len(there) - len(damage.GOOD))
    assert sorted(told) == sorted(there)
    for failure in failed:
        assert failure.reason.isprintable() and len(failure.reason) < 6000, failure
        assert failure.reason.startswith(printable(failure.source)) and "; " in failure.reason, failure
    read = {clip.clip_id: clip.frames_thwc for clip in shards.read(tmp_path / "store")}
    for name in damage.GOOD:
        whole = video.decode(made / f"a{Path(name).suffix}", num_frames=13)
        assert np.array_equal(read[clips[str(root / name)]], whole), name
    assert all(frames.shape == (13, 48, 64, 3) or frames.nbytes < 40 * MIB for frames in read.values())

    unit = 1 if sys.platform == "darwin" else 1024
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # A child is as large as this process until it has become ffmpeg: after other tests that may be more than 700 MiB.
    peak_allowed = max(peak_before * unit, own * unit + 64 * MIB, 700 * MIB)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit <= peak_allowed
    assert own * unit < own_before * unit + 300 * MIB
    assert took_s < 240, "hundreds of files of a few kB"
    assert before == (sorted(os.listdir(root.parent)), sorted(os.listdir(root)), sorted(os.listdir(made)))
    assert all(name.rpartition(".")[2] in ("tar", "json") for name in os.listdir(tmp_path / "store"))
    _causes_are_right(root, {failure.source: failure.reason for failure in failed}, clips)


def _causes_are_right(root, reasons, clips):
    expected = {
        "cut/mp4-0.mp4": "is empty",
        "cut/mp4-1500.mp4": "cut off",
        "links/self.mp4": "cannot be opened (Too many levels of symbolic links)",
        "links/one.mp4": "cannot be opened",
        "links/gone.mp4": "no such file",
        "links/zero.mp4": "is not a regular file",
        "links/pipe.mp4": "is not a regular file",
        "other/m3u8.mp4": "; ",
        "other/html.mp4": "is a text file",
        "other/ffconcat.mp4": "no video format",
        "absurd/large.y4m": "100000x100000",
        "absurd/thin.y4m": "4000000x16",
        "absurd/stretched.y4m": "px (H×W)",
        "absurd/years.y4m": "has 31200000000 frames at 24 FPS, 2073600 are the most; cut it into parts",
        "cut_png": "7.png: is an image that ffmpeg cannot read to its end",
        "mixed_png": "5.png: is 64×48 px (H×W) but the first frame is 48×64",
        "bomb_first_png": "100000x100000",
        "bomb_later_png": "9.png: ",
    }
    for name, words in expected.items():
        assert words in reasons[str(root / name)], reasons[str(root / name)]
    assert not [source for source in clips if "/names/" in source or "/absurd/billion_sizes" in source]


@contextlib.contextmanager
def _anyone():
    """Run as a user for whom permissions hold: root may read everything."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_what_may_not_be_read_costs_only_itself(lavfi, injected):
    top = Path(tempfile.mkdtemp())  # pytest's own folders are closed to other users
    try:
        top.chmod(0o755)
        video_file = lavfi(top / "b.mp4", "testsrc=s=64x48:r=24", 13)
        for folder in ("closed", "frames", "unseen"):
            (top / folder).mkdir()
        shutil.copy(video_file, top / "a_locked.mp4")
        shutil.copy(video_file, top / "unseen" / "c.mp4")
        (top / "a_locked.mp4").chmod(0)
        (top / "closed").chmod(0)
        (top / "unseen").chmod(0o644)  # may be listed, not entered
        with _anyone():
            planned = plan([str(top)], ClipSpec())
            direct = plan(
                [str(top / "closed" / "x.mp4"), str(top / "unseen" / "list.csv"), str(top / "closed")], ClipSpec()
            )
        assert [Path(clip.source).name for clip in planned.clips] == ["b.mp4"]
        told = {Path(failure.source).name: failure.reason for failure in planned.failures}
        assert "a_locked.mp4: may not be read (permission denied); change its permissions" in told["a_locked.mp4"]
        assert "closed: cannot be listed (Permission denied); check the folder" in told["closed"]
        assert "c.mp4: may not be read (permission denied)" in told["c.mp4"]
        found = [Path(one.source).name for one in (*planned.clips, *planned.failures)]
        injected("files and folders that may not be read", ["b.mp4", "a_locked.mp4", "closed", "c.mp4"], found, times=3)
        assert len(told) == 3 and len(direct.failures) == 3 and not direct.clips
    finally:
        shutil.rmtree(top)


# ---- files and names that point elsewhere


@pytest.fixture
def listener():
    """An HTTP server on this machine that has nothing to give and counts what it is asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    server.server_close()


def _pointing_to(target):
    """Files of every format that can name another file or address, by suffix."""
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n"
    return {
        ".m3u8": playlist,
        ".ffconcat": f"ffconcat version 1.0\nfile '{target}'\n",
        ".mpd": "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011' type='static' "
        "mediaPresentationDuration='PT1S'><Period><AdaptationSet mimeType='video/mp4'><Representation id='0' "
        f"bandwidth='9'><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>\n",
        ".sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nu={target}\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
        ".svg": f"<svg xmlns='http://www.w3.org/2000/svg' width='64' height='48'><image href='{target}'/></svg>\n",
        ".asx": f"<asx version='3.0'><entry><ref href='{target}'/></entry></asx>\n",
    }


def test_a_file_that_names_another_opens_neither_it_nor_an_address(tools, tmp_path, lavfi, listener):
    address, asked = listener
    secret = lavfi(tmp_path / "secret.ts", "testsrc=s=64x48:r=24", 24, "-c:v", "mpeg2video")
    folder = tmp_path / "in"
    folder.mkdir()
    for kind, target in (("http", f"{address}/x.ts"), ("file", str(secret)), ("url", f"file:{secret}")):
        for suffix, text in _pointing_to(target).items():
            for disguise in (suffix, ".mp4", ".1.png"):
                (folder / f"{kind}{suffix}{disguise}").write_text(text)
                (folder / f"{kind}{suffix}.binary{disguise}").write_text(f"{text}#\x01")  # not taken for text
    files = sorted(str(path) for path in folder.iterdir())
    planned = plan(files, ClipSpec(num_frames=2))
    assert not planned.clips and [failure.source for failure in planned.failures] == files
    for file in files:
        with pytest.raises(video.VideoError):
            video.decode(file, num_frames=1)
    assert not asked
    # The playlists do work where they are let in.
    for kind in ("http", "file"):
        let_in = ["-protocol_whitelist", "file,http,tcp", "-i", folder / f"{kind}.m3u8.m3u8", "-f", "null", "-"]
        unguarded = [video.ffmpeg_exe(), "-nostdin", "-v", "error", *let_in]
        done = subprocess.run(unguarded, capture_output=True, env={"no_proxy": "127.0.0.1"}, check=False)
        assert (done.returncode == 0) == (kind == "file"), done.stderr
    assert asked


def test_paths_in_a_manifest_are_only_file_names(tools, tmp_path, lavfi, listener, monkeypatch):
    address, asked = listener
    monkeypatch.chdir(tmp_path)
    secret = lavfi(tmp_path / "secret.ts", "testsrc=s=64x48:r=24", 24, "-c:v", "mpeg2video")
    paths = [
        f"{address}/x.mp4",
        "concat:secret.ts|secret.ts",
        f"subfile,,start,0,end,9999,,:{secret}",
        f"cache:{address}/x.mp4",
        f"crypto:{secret}",
        "data:video/mp4;base64,AAAAIGZ0eXA=",
        "file:secret.ts",
        "pipe:0",
        "-i secret.ts",
        "-filter_complex movie=secret.ts",
        "tcp://127.0.0.1:9",
        "@secret.ts",
        "secret%2ets",
        "secret.t\\s",
    ]
    rows = "".join(f'clip-{number},"{path}",0\n' for number, path in enumerate(paths))
    (tmp_path / "list.csv").write_text(f"clip_id,path,start_s\n{rows}good,secret.ts,0\n")
    planned = plan(["list.csv"], ClipSpec())
    assert [clip.clip_id for clip in planned.clips] == ["good"] and len(planned.failures) == len(paths)
    for failure in planned.failures:
        assert any(
            words in failure.reason for words in ("no such file; check the path", "is a URI; copy the file here")
        )
    for number, name in enumerate(("concat:secret.ts|secret.ts", "-i secret.ts", "data:video,x.ts", "file:secret.ts")):
        shutil.copy(secret, tmp_path / name)  # where there is a file of that name, it is the file
        (tmp_path / "list.csv").write_text(f'clip_id,path,start_s\nclip-{number},"{name}",0\n')
        (clip,) = plan(["list.csv"], ClipSpec()).clips
        assert video.decode(clip.source, num_frames=13).shape == (13, 48, 64, 3)
    assert not asked


# ---- the limits themselves


def test_time_memory_and_output_of_a_command_are_bounded(tmp_path):
    noisy = command.run("x.mp4", ["/bin/sh", "-c", "head -c 30000000 /dev/zero >&2; exit 3"])
    assert noisy.returncode == 3 and len(noisy.stderr) == command.MAX_MESSAGES_BYTES
    with pytest.raises(video.VideoError, match=r"x\.mp4: makes ffmpeg print more than 5000 bytes; "):
        command.run("x.mp4", ["/bin/sh", "-c", "while :; do echo y; done"], max_bytes=5000)
    started = time.monotonic()
    with pytest.raises(video.VideoError, match=r"x\.mp4: ffmpeg was not done after 0\.3 s; "):
        command.run("x.mp4", ["/bin/sh", "-c", f"echo $$ >{tmp_path}/pid; exec sleep 60"], timeout_s=0.3)
    assert time.monotonic() - started < 10
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    if sys.platform == "linux":
        greedy = f"bytearray({command.MAX_MEMORY_BYTES + MIB})"
        done = command.run("x.mp4", [sys.executable, "-S", "-c", greedy])
        assert done.returncode == 1 and b"MemoryError" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces the limit")
def test_a_video_that_needs_too_much_memory_is_a_line(tools, tmp_path, lavfi, monkeypatch):
    path = lavfi(tmp_path / "large.mkv", "color=s=4096x4096:r=24", 14, "-c:v", "mjpeg")
    assert video.decode(path, num_frames=13, max_height=64).shape == (13, 64, 64, 3)
    monkeypatch.setattr(command, "MAX_MEMORY_BYTES", 48 * MIB)
    with pytest.raises(video.VideoError, match=r"large\.mkv: .*; "):
        video.decode(path, num_frames=13, max_height=64)


def test_clips_too_large_for_memory_are_refused(tmp_path, lavfi, monkeypatch):
    path = lavfi(tmp_path / "a.mkv", "testsrc=s=640x480:r=24", 20, "-c:v", "mpeg4")
    monkeypatch.setattr(decoder, "MAX_CLIP_BYTES", 10 * MIB)
    assert video.decode(path, num_frames=13, max_height=240).nbytes < 10 * MIB
    for frames in (13, None):
        with pytest.raises(video.VideoError, match=r"frames of 480×640 px .* are more than 0 GiB; take fewer"):
            video.decode(path, num_frames=frames)


def test_frames_are_counted_no_further_than_the_limit(tmp_path, lavfi, monkeypatch):
    path = lavfi(tmp_path / "a.mp4", "testsrc=s=64x48:r=24", 40)
    monkeypatch.setattr(decoder, "MAX_FRAMES", 30)
    info = video.probe(path)
    with pytest.raises(video.VideoError, match="has 40 frames at 24 FPS, 30 are the most; cut it into parts"):
        video.count_frames(info, 24.0)

"""Shards: what goes in comes out, nothing is done twice, and what is damaged or hostile is refused."""

import io
import json
import os
import pickle
import resource
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from pipeline import shards, video
from pipeline.clips import ClipPlan, ClipSpec, plan
from pipeline.shards import ShardEntry, ShardError


@pytest.fixture(scope="module")
def source(tmp_path_factory, lossless):
    """A lossless video of 40 frames of noise, 20 x 36 px."""
    frames = np.random.default_rng(0).integers(0, 256, (40, 20, 36, 3), np.uint8)
    return lossless(tmp_path_factory.mktemp("shards") / "noise.mkv", frames), frames


@pytest.fixture
def made(tmp_path, source):
    """A folder with three clips in two shards."""
    planned = plan([str(source[0])], ClipSpec(stride=13))
    shards.write(planned.clips, tmp_path / "made", clips_per_shard=2)
    return tmp_path / "made"


def test_round_trip(tmp_path, source):
    path, frames = source
    planned = plan([str(path)], ClipSpec(stride=13))
    seen = []
    written = shards.write(planned.clips, tmp_path, clips_per_shard=2, on_clip=seen.append)
    ids = tuple(clip.clip_id for clip in planned.clips)
    assert written.clip_ids == ids == tuple(seen) and written.failures == () and written.skipped == 0
    assert [p.name for p in written.shards] == ["000000.tar", "000001.tar"]
    assert sorted(os.listdir(tmp_path)) == ["000000.json", "000000.tar", "000001.json", "000001.tar"]
    assert shards.is_corpus(tmp_path)
    tars = [str(tmp_path / name) for name in ("000000.tar", "000000.tar", "000001.tar")]
    assert shards.index(tmp_path) == tuple(
        ShardEntry(clip_id, tar, "noise.mkv", 20, 36, 13, 24.0, start)
        for clip_id, tar, start in zip(ids, tars, (0, 13, 26), strict=True)
    )
    for clip, start in zip(shards.read(tmp_path), (0, 13, 26), strict=True):
        assert np.array_equal(clip.frames_thwc, frames[start : start + 13])
        assert clip.frames_thwc.dtype == np.uint8 and clip.frames_thwc.flags.c_contiguous
        expected = {"start_frame": start, "num_frames": 13, "fps": 24.0, "height": 20, "width": 36}
        assert clip.meta.items() >= (expected | {"source": "noise.mkv", "clip_id": clip.clip_id}).items()
    sidecar = json.loads((tmp_path / "000000.json").read_text())
    assert sidecar["bytes"] == (tmp_path / "000000.tar").stat().st_size
    assert sidecar["num_clips"] == 2 and sidecar["num_frames"] == 26 and sidecar["settings"] == {"max_height": 256}
    assert len(sidecar["sha256"]) == 64


def test_webdataset_reads_them(made, source):
    import webdataset

    samples = list(webdataset.WebDataset(str(made / "000000.tar"), shardshuffle=False).decode())
    assert [sample["json"]["start_frame"] for sample in samples] == [0, 13]
    assert np.array_equal(samples[1]["frames.npy"], source[1][13:26])


def test_max_height_shrinks(tmp_path, source):
    shards.write(plan([str(source[0])], ClipSpec()).clips, tmp_path, max_height=10)
    (clip,) = shards.read(tmp_path)
    assert clip.frames_thwc.shape == (13, 10, 18, 3) and (clip.meta["height"], clip.meta["width"]) == (10, 18)


def test_again_does_only_what_is_missing(tmp_path, source, monkeypatch):
    clips = plan([str(source[0])], ClipSpec(stride=13)).clips
    shards.write(clips[:1], tmp_path)
    before = (tmp_path / "000000.tar").read_bytes()
    (tmp_path / "000001.tar").write_bytes(b"a run that was killed left this without a sidecar")
    seen = []
    written = shards.write(clips, tmp_path, on_clip=seen.append)
    assert written.skipped == 1 and written.clip_ids == tuple(clip.clip_id for clip in clips[1:])
    assert [path.name for path in written.shards] == ["000001.tar"] and len(seen) == 3
    assert (tmp_path / "000000.tar").read_bytes() == before
    assert len(list(shards.read(tmp_path))) == 3

    def never(*_args, **_options):
        raise AssertionError("decoded again")

    monkeypatch.setattr(video, "decode_each", never)
    assert shards.write(clips, tmp_path) == shards.Written((), (), (), 3)


def test_same_clips_make_the_same_bytes(tmp_path, source):
    clips = plan([str(source[0])], ClipSpec(stride=13)).clips
    for name in ("one", "two"):
        shards.write(clips, tmp_path / name)
    assert (tmp_path / "one/000000.tar").read_bytes() == (tmp_path / "two/000000.tar").read_bytes()


def test_other_settings_are_refused(made, source):
    clips = plan([str(source[0])], ClipSpec(stride=13)).clips
    with pytest.raises(
        ShardError, match=r"was made with \{'max_height': 256\}, not \{'max_height': 128\}; give the same"
    ):
        shards.write(clips, made, max_height=128)
    other = [ClipPlan(clips[0].clip_id, clips[0].source, 0, num_frames=5)]
    with pytest.raises(ShardError, match=r"is there, cut otherwise \(num_frames 13 is now 5"):
        shards.write(other, made)


def test_a_clip_that_fails_does_not_stop_the_others(tmp_path, source):
    path = str(source[0])
    (tmp_path / "broken.mp4").write_bytes(b"\0" * 100)
    clips = [
        ClipPlan("gone", str(tmp_path / "gone.mp4"), 0),
        ClipPlan("broken", str(tmp_path / "broken.mp4"), 0),
        ClipPlan("late", path, 30),
        ClipPlan("good", path, 2),
    ]
    written = shards.write(clips, tmp_path / "out")
    assert written.clip_ids == ("good",)
    assert [Path(failure.source).name for failure in written.failures] == [
        "gone.mp4",
        "broken.mp4",
        "noise.mkv",
    ]
    assert "has only 40 frames at 24 FPS, and 13 from frame 30" in written.failures[2].reason
    assert [entry.clip_id for entry in shards.index(tmp_path / "out")] == ["good"]


def test_a_killed_run_leaves_no_finished_shard(tmp_path, source, monkeypatch):
    clips = plan([str(source[0])], ClipSpec(stride=13)).clips
    real, calls = os.replace, []

    def killed(one, other):
        calls.append(other)
        if len(calls) == 2:  # the tar has its name, the sidecar has not
            raise KeyboardInterrupt
        real(one, other)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        shards.write(clips, tmp_path)
    assert not shards.is_corpus(tmp_path) and shards.index(tmp_path) == ()
    monkeypatch.setattr(os, "replace", real)
    assert len(shards.write(clips, tmp_path).clip_ids) == 3 and len(list(shards.read(tmp_path))) == 3
    assert sorted(os.listdir(tmp_path)) == ["000000.json", "000000.tar"]


def test_what_is_no_corpus(tmp_path, source):
    assert not shards.is_corpus(tmp_path) and not shards.is_corpus(tmp_path / "missing")
    assert not shards.is_corpus(source[0]) and not shards.is_corpus("demo")


def test_damage_is_told_in_one_line(made):
    entry = shards.index(made)[0]
    tar = made / "000000.tar"
    whole = tar.read_bytes()
    at = whole.index(b"\x93NUMPY") + 500
    tar.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])  # one bit of one pixel
    _refused(entry, "sha256")
    tar.write_bytes(whole[:3000])
    _refused(entry, "cannot be read")
    with pytest.raises(ShardError, match=rf"000000\.tar: has 3000 bytes, its sidecar says {len(whole)}; delete"):
        shards.index(made)
    with pytest.raises(ShardError):
        next(shards.read(made))
    tar.unlink()
    with pytest.raises(ShardError, match="cannot be read"):
        shards.index(made)
    tar.write_bytes(whole)
    _refused(ShardEntry("not-there", str(tar), "noise.mkv", 20, 36, 13, 24.0, 0), "holds nothing of it")
    for content in ("{", "[]", '{"clips": [{"clip_id": "a"}], "bytes": 1}', '{"clips": 3}'):
        (made / "000000.json").write_text(content)
        with pytest.raises(ShardError, match=r"000000\.tar: "):
            shards.index(made)


def _refused(entry, *words):
    with pytest.raises(ShardError) as caught:
        shards.read_clip(entry)
    text = str(caught.value)
    assert "\n" not in text and text.startswith(f"{entry.shard}: ") and all(word in text for word in words), text


def _tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, tarfile.TarInfo):
                info = content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return ShardEntry("clip", str(path), "a.mp4", 3, 4, 2, 24.0, 0)


def _npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def _meta(npy, **changes):
    import hashlib

    meta = {
        "clip_id": "clip",
        "num_frames": 2,
        "height": 3,
        "width": 4,
        "sha256": hashlib.sha256(npy).hexdigest(),
    }
    return json.dumps(meta | changes).encode()


def test_hostile_tars(tmp_path):
    good = _npy(np.zeros((2, 3, 4, 3), np.uint8))
    sample = [("clip.frames.npy", good), ("clip.json", _meta(good))]
    entry = _tar(tmp_path / "good.tar", sample)
    assert shards.read_clip(entry).frames_thwc.shape == (2, 3, 4, 3)
    link = tarfile.TarInfo("clip.frames.npy")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    for bad in (
        ("../up.json", b"{}"),
        ("/etc/x.json", b"{}"),
        ("clip.frames.pyd", b""),
        ("clip.pickle", b""),
    ):
        _refused(_tar(tmp_path / "bad.tar", [*sample, bad]), "which is no clip's")
    _refused(_tar(tmp_path / "bad.tar", [(link.name, link), sample[1]]), "which is no clip's")
    _refused(_tar(tmp_path / "bad.tar", [*sample, sample[0]]), "there twice")
    _refused(_tar(tmp_path / "bad.tar", sample[:1]), "frames.npy")
    for changes in (
        {"num_frames": 3},
        {"height": -3},
        {"width": "4"},
        {"clip_id": "other"},
        {"num_frames": True},
    ):
        _refused(_tar(tmp_path / "bad.tar", [sample[0], ("clip.json", _meta(good, **changes))]))
    _refused(_tar(tmp_path / "bad.tar", [sample[0], ("clip.json", b"[1]")]))
    for array in (
        np.zeros((2, 3, 4, 3), np.int8),
        np.zeros((2, 3, 12), np.uint8),
        np.zeros((2, 3, 4), np.uint8),
    ):
        npy = _npy(array)
        _refused(_tar(tmp_path / "bad.tar", [("clip.frames.npy", npy), ("clip.json", _meta(npy))]), "not uint8")
    for shape in (b"(2000000, 3000000, 4, 3)", b"(2, 3, 5, 3)", b"(1000000000, 3, 4, 3)", b"(" * 60, b"{'a"):
        lying = good.replace(b"(2, 3, 4, 3)", shape)[:128] + good[128:]
        _refused(_tar(tmp_path / "bad.tar", [("clip.frames.npy", lying), ("clip.json", _meta(lying))]), "not uint8")
    for npy in (good[:-1], good + b"\0", good.replace(b"|u1", b"<u1"), good.replace(b"False", b"True "), good[:50]):
        _refused(_tar(tmp_path / "bad.tar", [("clip.frames.npy", npy), ("clip.json", _meta(npy))]))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
def test_members_that_are_no_files(tmp_path, kind):
    good = _npy(np.zeros((2, 3, 4, 3), np.uint8))
    for name in ("clip.frames.npy", "other.frames.npy"):
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "/etc/passwd"
        _refused(_tar(tmp_path / "bad.tar", [(name, member), ("clip.json", _meta(good))]), "which is no clip's")
    assert os.listdir(tmp_path) == ["bad.tar"]


def test_sizes_that_lie_take_no_memory(tmp_path):
    """A few kB that announce terabytes, and a real file of holes that is as large as it says."""
    good = _npy(np.zeros((2, 3, 4, 3), np.uint8))
    sample = [("other.json", b"{}"), ("clip.frames.npy", good), ("clip.json", _meta(good))]
    entry = _tar(tmp_path / "bad.tar", sample)
    whole = (tmp_path / "bad.tar").read_bytes()
    own_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for size in (b"77777777777\0", b"\x80" + b"\x7f" * 11, b"\xff" * 12, b"nonsense\0\0\0\0"):
        for start in (0, 1024, 2048):  # another clip's member, and this one's two
            header = bytearray(whole[start : start + 512])
            header[124:136] = size
            header[148:156] = b" " * 8
            header[148:156] = b"%06o\0 " % sum(header)
            (tmp_path / "bad.tar").write_bytes(whole[:start] + header + whole[start + 512 :])
            _refused(entry)
    for name, kind in (
        ("clip.frames.npy", tarfile.REGTYPE),
        ("clip.json", tarfile.REGTYPE),
        ("clip.frames.npy", tarfile.GNUTYPE_SPARSE),
        ("x", tarfile.XHDTYPE),
        ("x", tarfile.XGLTYPE),
        ("x", tarfile.GNUTYPE_LONGNAME),
        ("x", tarfile.GNUTYPE_LONGLINK),
    ):
        member = tarfile.TarInfo(name)
        member.type, member.size = kind, 3 << 30
        with open(tmp_path / "bad.tar", "wb") as file:
            file.write(member.tobuf(tarfile.USTAR_FORMAT))
            file.truncate(4 << 30)
        _refused(entry)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - own_before
    assert grown < 100 * (1024 if sys.platform == "linux" else 1 << 20)


def test_extended_headers_rename_nothing(tmp_path):
    good = _npy(np.zeros((2, 3, 4, 3), np.uint8))
    sample = [("clip.frames.npy", good), ("clip.json", _meta(good))]
    for headers in ({"path": "../../evil.npy"}, {"GNU.sparse.major": "1"}, {"size": "99999999999"}):
        with tarfile.open(tmp_path / "bad.tar", "w", format=tarfile.PAX_FORMAT) as tar:
            for name, content in sample:
                info = tarfile.TarInfo(name)
                info.size, info.pax_headers = len(content), headers
                tar.addfile(info, io.BytesIO(content))
        _refused(ShardEntry("clip", str(tmp_path / "bad.tar"), "a.mp4", 3, 4, 2, 24.0, 0))


def test_hostile_sidecars(made):
    sidecar = made / "000000.json"
    content = json.loads(sidecar.read_text())

    def refused(text, *words):
        sidecar.write_bytes(text if isinstance(text, bytes) else json.dumps(text).encode())
        with pytest.raises(ShardError) as caught:
            shards.index(made)
        told = str(caught.value)
        assert told.isprintable() and len(told) < 1000 and "000000.tar: " in told, told
        assert all(word in told for word in words), told

    def changed(**values):
        return content | {"clips": [content["clips"][0] | values, *content["clips"][1:]]}

    for values in (
        {"height": 10**9},
        {"num_frames": 10**9},
        {"num_frames": 10**30},
        {"width": -36},
        {"height": 0},
        {"height": "20"},
        {"num_frames": 13.0},
        {"num_frames": True},
        {"start_frame": None},
        {"fps": "24"},
        {"fps": -1},
        {"fps": 1e300},
        {"source": ["a"]},
        {"clip_id": "../../evil"},
        {"clip_id": "/etc/passwd"},
        {"clip_id": "a\x1b[31m"},
        {"clip_id": ["a"]},
        {"sha256": 5},
    ):
        refused(changed(**values), "does not describe its clips")
    refused(content | {"clips": [content["clips"][0]] * 2}, "is there already in 000000.tar")
    refused(content | {"clips": {"clip_id": 1}})
    refused(content | {"bytes": "\x1b[31m" * 1000}, "its sidecar says")
    whole = json.dumps(content).encode()
    refused(whole.replace(b'"bytes":', b'"bytes": 1, "bytes":'), "there twice")
    refused(whole.replace(b'"fps": 24.0', b'"fps": NaN', 1), "NaN")
    refused(b"[" * 100_000, "nested too deeply")
    refused(b'{"a":' * 100_000, "nested too deeply")
    refused(b"1" * 5000)
    refused(b"\xff\xfe" + whole)
    refused(whole + b" " * (17 << 20), "more than 16777216 bytes")
    sidecar.unlink()
    os.mkfifo(sidecar)
    with pytest.raises(ShardError, match="not a regular file"):
        shards.index(made)
    sidecar.unlink()
    os.symlink(sidecar, sidecar)
    with pytest.raises(ShardError, match=r"000000\.tar"):
        shards.index(made)


def test_a_clip_in_two_shards_is_refused(made):
    for suffix in ("tar", "json"):
        shutil.copy(made / f"000000.{suffix}", made / f"000007.{suffix}")
    with pytest.raises(ShardError, match=r"000007\.tar: clip \S+ is there already in 000000\.tar; "):
        shards.index(made)


class _Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_pickled_arrays_are_not_executed(tmp_path):
    flag = tmp_path / "executed"
    npy = _npy(np.array([_Bomb(flag)], dtype=object))
    _refused(_tar(tmp_path / "bad.tar", [("clip.frames.npy", npy), ("clip.json", _meta(npy))]))
    raw = pickle.dumps(_Bomb(flag))
    _refused(_tar(tmp_path / "bad.tar", [("clip.frames.npy", raw), ("clip.json", _meta(raw))]))
    assert not flag.exists()
    pickle.loads(raw)
    assert flag.exists()  # the bomb does work

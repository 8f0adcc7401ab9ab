"""Makes a folder of damaged, hostile and three good videos out of a few tiny real ones."""

import os
import random
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

ESC = "\x1b[31m\x1b]0;owned\x07"  # colours the terminal, then renames its window
DEPTH = 1100  # of folders in folders
GOOD = ("good.mp4", "sub/good too.mkv", f"sub/line\nend '\"{ESC}\udcff.mp4")  # \udcff: a byte that is no UTF-8
HARD_NAMES = (
    "new\nline.mp4",
    "carriage\rreturn.mp4",
    f"escape{ESC}.mp4",
    "\x9b31mcsi.mp4",
    "right\u202eto-left.mp4",
    "quote's.mp4",
    'double"quote.mp4',
    "a..mp4",
    "a\\..\\..\\up.mp4",
    "-i.mp4",
    "-y -f lavfi.mp4",
    "concat:a.mp4|b.mp4",
    "http:127.0.0.1.mp4",
    "data:video,x.mp4",
    "pipe:0.mp4",
    "$(touch owned).mp4",
    "; touch owned;.mp4",
    "[red]markup[/red].mp4",
    "100%d.mp4",
    "#.mp4",
    "\udcff\udcfe.mp4",
    "ü" * 120 + ".mp4",
    " .mp4",
)


def build(root: Path, originals: Mapping[str, bytes], png: Callable[[int, int], bytes]) -> None:
    """Fill `root`. `originals`: suffix -> bytes of a good video; png(width, height): a good image."""
    for name, suffix in zip(GOOD, (".mp4", ".mkv", ".mp4"), strict=True):
        _write(root / name, originals[suffix])
    for name, content in _files(originals, png):
        _write(root / name, content)
    for name in HARD_NAMES:
        _write(root / "names" / name, originals[".mp4"][:700])
    _links(root / "links", originals[".mp4"])
    image = png(64, 48)
    folders = {
        "cut_png": [image] * 7 + [image[: len(image) // 2]] + [image] * 6,
        "no_png": [b"\x89PNG\r\n\x1a\n"] * 14,
        "mixed_png": [image] * 5 + [png(48, 64)] + [image] * 8,
        "bomb_first_png": [bomb(100_000, 100_000, b"")] + [image] * 13,
        "bomb_later_png": [image] * 9 + [bomb(9000, 9000, bytes(9000 * 27001))] + [image] * 4,
        "zeros_png": [image, bytes(100), *[image] * 12],
    }
    for folder, images in folders.items():
        for number, content in enumerate(images):
            _write(root / folder / f"{number}.png", content)


def bomb(width: int, height: int, rows: bytes) -> bytes:
    """A PNG that says it is width x height px, with these rows in it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _files(originals: Mapping[str, bytes], png: Callable[[int, int], bytes]) -> Iterator[tuple[str, bytes]]:
    chance = random.Random(4)
    for suffix, whole in originals.items():
        kind = suffix[1:]
        lengths = {0, 1, 8, 40, 100, 511, 1500, len(whole) - 1, len(whole) - 9}
        lengths |= {len(whole) * part // 8 for part in range(1, 8)}
        for length in sorted(lengths):
            yield f"cut/{kind}-{length}{suffix}", whole[:length]
        for number in range(10):
            within = min(600, len(whole)) if number % 2 else len(whole)  # half of them in what is a header
            damaged = bytearray(whole)
            for _ in range(1 << number // 2):
                damaged[chance.randrange(within)] ^= 1 << chance.randrange(8)
            yield f"bits/{kind}-{number}{suffix}", bytes(damaged)
        yield f"holes/{kind}{suffix}", whole[:400] + bytes(400) + whole[800:]
        yield from ((f"suffix/{kind}-as{other}", whole) for other in (".mp4", ".ts") if other != suffix)
    yield from ((f"other/{name}.mp4", content) for name, content in _other_formats(originals, png).items())
    yield from ((f"absurd/{name}", content) for name, content in _absurd(originals).items())


def _other_formats(originals: Mapping[str, bytes], png: Callable[[int, int], bytes]) -> dict[str, bytes]:
    return {
        "png": png(64, 48),
        "zip": b"PK\x03\x04" + bytes(500),
        "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + bytes(500),
        "elf": b"\x7fELF\x02\x01\x01" + bytes(500),
        "gzip": b"\x1f\x8b\x08" + bytes(500),
        "wav": b"RIFF\x24\x08\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x40\x1f\x00\x00\x80\x3e\x00\x00\x02\x00"
        b"\x10\x00data\x00\x08\x00\x00" + bytes(2048),
        "sqlite": b"SQLite format 3\x00" + bytes(500),
        "pickle": b"\x80\x04\x95\x10" + bytes(500),
        "html": b"<html><video src='http://127.0.0.1/x.mp4'></html>",
        "utf16": "a letter\n".encode("utf-16") * 100,
        "zeros": bytes(10_000),
        "ones": b"\xff" * 10_000,
        "noise": random.Random(5).randbytes(10_000),
        "twice": originals[".mp4"] + originals[".mp4"],
        "padded": bytes(2000) + originals[".mp4"],
        "subtitles": b"1\n00:00:00,000 --> 00:00:09,000\n\x01hello\n",
        "ffconcat": b"ffconcat version 1.0\nfile ../good.mp4\n#\x01\n",
        "m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n../good.mp4\n#EXT-X-ENDLIST\n#\x01",
        "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n#\x01",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='../good.mp4'/></svg>\n<!--\x01-->",
    }


def _absurd(originals: Mapping[str, bytes]) -> dict[str, bytes]:
    billion = 10**9
    mp4, avi = originals[".mp4"], originals[".avi"]
    planes = bytes(range(200, 248)) * 100
    return {
        "wide_track.mp4": _patch(mp4, b"tkhd", 80, ">II", 65535 << 16, 65535 << 16),
        "wide_sample.mp4": _patch(mp4, b"avc1", 28, ">HH", 65535, 65535),
        "long_track.mp4": _patch(mp4, b"mdhd", 20, ">I", 0xFFFFFFFF),
        "slow_track.mp4": _patch(mp4, b"mdhd", 16, ">I", 1),
        "no_clock.mp4": _patch(mp4, b"mdhd", 16, ">I", 0),
        "billion_frames.mp4": _patch(_patch(mp4, b"stts", 12, ">I", billion), b"stsz", 8, ">II", 1, billion),
        "billion_sizes.mp4": _patch(mp4, b"stsz", 12, ">I", billion),
        "billion_chunks.mp4": _patch(mp4, b"stco", 8, ">I", billion),
        "huge_box.mp4": _patch(mp4, b"moov", -4, ">I", 0x7FFFFFFF),
        "large.avi": _patch(avi, b"strf", 12, "<ii", 100_000, 100_000),
        "negative.avi": _patch(avi, b"strf", 12, "<ii", -64, -(2**31)),
        "billion_frames.avi": _patch(_patch(avi, b"avih", 24, "<I", billion), b"vids", 32, "<I", billion),
        "billion_fps.avi": _patch(avi, b"vids", 20, "<II", 1, billion),
        "no_fps.avi": _patch(avi, b"vids", 20, "<II", 0, 0),
        "days.mkv": _patch(originals[".mkv"], b"\x44\x89\x88", 3, ">d", 1e15),
        "not_a_time.mkv": _patch(originals[".mkv"], b"\x44\x89\x88", 3, ">d", float("nan")),
        "large.gif": _patch(originals[".gif"], b"GIF89a", 6, "<HH", 65535, 65535),
        "large.y4m": b"YUV4MPEG2 W100000 H100000 F24:1 Ip\nFRAME\n" + planes,
        "thin.y4m": b"YUV4MPEG2 W4000000 H16 F24:1 Ip\nFRAME\n" + planes,
        "stretched.y4m": b"YUV4MPEG2 W64 H48 F24:1 Ip A2000000:1\n" + (b"FRAME\n" + planes[:4608]) * 13,
        "fast.y4m": b"YUV4MPEG2 W64 H48 F2000000000:1 Ip\n" + (b"FRAME\n" + planes[:4608]) * 13,
        "years.y4m": b"YUV4MPEG2 W64 H48 F1:100000000 Ip\n" + (b"FRAME\n" + planes[:4608]) * 13,
    }


def _patch(content: bytes, mark: bytes, offset: int, layout: str, *values: float) -> bytes:
    """`content` with these values written `offset` bytes after the beginning of `mark`."""
    at = content.index(mark) + offset
    packed = struct.pack(layout, *values)
    return content[:at] + packed + content[at + len(packed) :]


def _links(folder: Path, video: bytes) -> None:
    folder.mkdir()
    links = {"self.mp4": "self.mp4", "one.mp4": "two.mp4", "two.mp4": "one.mp4", "gone.mp4": "nowhere.mp4"}
    links |= {"zero.mp4": "/dev/zero", "round": "..", "round.mp4": "../links", "null.mp4": "/dev/null"}
    for name, target in links.items():
        os.symlink(target, folder / name)
    os.mkfifo(folder / "pipe.mp4")
    (folder / "folder.mp4").mkdir()
    _write(folder / "locked.mp4", video)
    (folder / "locked.mp4").chmod(0)
    deep = folder / "deep"
    deep.mkdir()
    at = os.getcwd()
    try:  # deeper than Python's calls may nest and longer than a path may be
        os.chdir(deep)
        for _ in range(DEPTH):
            os.mkdir("d")
            os.chdir("d")
        Path("short.mp4").write_bytes(video[:300])
    finally:
        os.chdir(at)


def deep_file(root: Path) -> Path:
    return root / "links" / "deep" / Path(*["d"] * DEPTH) / "short.mp4"


def remove(root: Path) -> None:
    """Delete the folder: shutil.rmtree recurses, and the deep folder is deeper than that."""
    at = os.getcwd()
    try:
        os.chdir(root / "links" / "deep")
        while os.path.isdir("d"):
            os.rename("d", "e")
            if os.path.isdir("e/d"):
                os.rename("e/d", "d")
            for name in os.listdir("e"):
                os.unlink(f"e/{name}")
            os.rmdir("e")
    finally:
        os.chdir(at)
    shutil.rmtree(root)

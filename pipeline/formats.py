"""Which files of a folder are videos: by their suffix, or by how they begin."""

import re
from pathlib import Path

from pipeline import image
from pipeline.video.animation import head

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts"}
    | {".wmv", ".flv", ".ogv", ".3gp", ".gif", ".y4m", ".mxf", ".vob"}
    | {".3g2", ".asf", ".f4v", ".divx", ".xvid", ".qt", ".ogm", ".ogx", ".nut", ".ivf", ".obu", ".dv", ".rm", ".rmvb"}
    | {".m1v", ".m2v", ".mpv", ".mpe", ".m2p", ".h264", ".264", ".avc", ".h265", ".265", ".hevc", ".vc1", ".mjpeg"}
    | {".mjpg", ".m2t", ".tp", ".trp", ".tod", ".mod", ".evo", ".wtv", ".dvr-ms", ".mk3d", ".apng", ".f4p", ".m4p"}
    | {".3gpp", ".3gpp2", ".mp4v", ".mpg4", ".mpeg4", ".mqv", ".movie", ".mj2", ".mpeg2", ".mpg2", ".mpv2", ".vro"}
    | {".mpegts", ".ssif", ".h263", ".av1", ".mjp"}
)
# Videos if they begin like one. Else they are data, PostScript, sound and the like.
MAYBE_SUFFIXES = frozenset({"", ".dat", ".ps", ".rec", ".m4s", ".ogg", ".mp2"})
# What is a video to other programs and is not read here: formats of their own, and lists of other files.
OTHER_SUFFIXES = frozenset(
    {".swf", ".braw", ".r3d", ".ari", ".crm", ".bik", ".smk", ".insv", ".lrv", ".amv", ".roq", ".mvi", ".nsv", ".ismv"}
    | {".m3u8", ".mpd", ".f4m", ".vdr", ".cine", ".viv", ".fli", ".flc", ".wrf", ".gxf"}
    | {".dav", ".pva", ".266", ".h266", ".vvc"}
)
RAW_SUFFIXES = frozenset({".yuv", ".i420", ".yv12", ".nv12", ".nv21", ".yuy2", ".uyvy", ".p010"})
UNFINISHED_SUFFIXES = frozenset(  # of downloads
    {".part", ".partial", ".crdownload", ".opdownload", ".!qb", ".!ut", ".download", ".filepart", ".bc!", ".xltd"}
)
# What no video is called, or begins like one without being one, such as sound. These are not opened.
_NEVER_SUFFIXES = frozenset(
    {".txt", ".json", ".jsonl", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".toml", ".ini", ".md", ".html", ".log", ".py"}
    | {".srt", ".vtt", ".ass", ".sub", ".idx", ".nfo", ".flo", ".npy", ".npz", ".pt", ".pth", ".pkl", ".mat", ".h5"}
    | {".zip", ".tar", ".gz", ".7z", ".rar", ".pdf", ".db", ".thm"}
    | {".mp3", ".m4a", ".m4b", ".aac", ".wav", ".flac", ".opus", ".oga", ".mka", ".weba", ".wma", ".ra"}
)
_KNOWN_SUFFIXES = frozenset().union(
    *(VIDEO_SUFFIXES, MAYBE_SUFFIXES, OTHER_SUFFIXES, RAW_SUFFIXES, UNFINISHED_SUFFIXES, _NEVER_SUFFIXES),
    *(image.IMAGE_SUFFIXES, image.OTHER_SUFFIXES),
)
BEGIN_BYTES = 512  # which hold the first header of each stream of an Ogg
_IMAGE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|RIFF.{4}WEBP|II\*\x00|MM\x00\*|.{4}ftyp(hei[cxms]|hev[cx]|mif1|msf1|avi[fs])",
    re.DOTALL,
)
_VIDEO = re.compile(
    rb".{4}(ftyp(?!M4[ABP] |F4[AB] |aax )|styp|moov|moof|mdat|pnot)"  # MP4 and QuickTime, but for sound
    rb"|\x1aE\xdf\xa3|RIFF.{4}(AVI |CDXA)|FLV\x01|\x30\x26\xb2\x75\x8e\x66\xcf\x11|\.RMF|DKIF|YUV4MPEG2 |nut/multimedia"
    rb"|OggS.{,400}(\x80theora|\x01video|OVP80)"
    rb"|\x06\x0e\x2b\x34\x02\x05\x01\x01|\xb7\xd8\x00\x20\x37\x49\xda\x11|\x1f\x07\x00[\x3f\xbf]"  # MXF, WTV, DV
    rb"|G.{187}G.{187}G|.{4}G.{191}G|\x00\x00\x01[\xb3\xba]"  # MPEG transport and program streams
    rb"|\x00?\x00\x00\x01([\x06\x09\x27\x47\x67]|[\x40\x42\x46]\x01)",  # H.264, H.265
    re.DOTALL,
)


def is_video(path: Path) -> bool:
    """Whether a file is a video by its suffix; one that says nothing, or has none, by its content."""
    suffix = path.suffix.lower()
    return suffix in VIDEO_SUFFIXES or (suffix in MAYBE_SUFFIXES and bool(_VIDEO.match(head(path, BEGIN_BYTES))))


def disguised(path: Path) -> str | None:
    """ "video" or "image" for a file that begins like one and whose suffix is of neither, nor of anything else."""
    if path.suffix.lower() in _KNOWN_SUFFIXES:
        return None
    begin = head(path, BEGIN_BYTES)
    return "image" if _IMAGE.match(begin) else "video" if _VIDEO.match(begin) else None

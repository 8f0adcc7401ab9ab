"""From a stored frame to the one that is seen: the filters of ffmpeg between its decoder and RGB."""

from typing import Any

from pipeline.video import ffmpeg as command
from pipeline.video.container import UNNAMED
from pipeline.video.info import VideoInfo, shrunk

HD_LINES = 720  # from which on a video that does not name its colours has those of HDTV
PQ, HLG = 16, 18  # transfer characteristics of HDR, by ITU-T H.273
BT2020 = 9  # matrix, by the same
WIDE = {9: "bt2020", 11: "smpte431", 12: "smpte432"}  # primaries beyond BT.709's, by the same: ffmpeg's names
SRGB = 13  # transfer, by the same
_MATRICES = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020"}  # by the same
WHITE_NITS = 203  # of HDR's graphics white, which becomes SDR's (ITU-R BT.2408)
PEAK = 1000 / WHITE_NITS  # what becomes the brightest; above `KNEE` it is compressed
KNEE = 0.8
# Codecs whose frames may be interlaced, some of them or all. Progressive ones pass as they are.
FIELDS = frozenset(
    {"mpeg2video", "mpeg4", "h264", "hevc", "vc1", "wmv3", "dvvideo", "prores", "dnxhd", "ffv1", "mjpeg"}
)


def is_hdr(info: VideoInfo) -> bool:
    return info.transfer in (PQ, HLG)


def is_wide(info: VideoInfo) -> bool:
    """Whether it is SDR in other primary colours than those of BT.709, such as P3."""
    return info.primaries in WIDE and not is_hdr(info)


def can_tone_map() -> bool:
    """Whether this machine's ffmpeg can turn HDR and wide colours into BT.709's."""
    exe = command.ffmpeg_exe()
    return command.has(exe, "filters", "zscale") and command.has(exe, "filters", "tonemap")


def may_be_interlaced(info: VideoInfo) -> bool:
    """Whether some of its frames may be, by what it says or by its codec."""
    return info.interlaced or info.field_order > 1 or (info.codec in FIELDS and info.pix_fmt.startswith("yuv"))


def progressive(node: Any, info: VideoInfo) -> Any:
    """The graph's frames, those that are interlaced made whole; all of the size and format of the first one.

    For a graph that is not built anew where these change: `bwdif` has two frames in it, which would be lost.
    """
    if not may_be_interlaced(info):
        return node
    node = node.filter("scale", "iw", "ih", interl=-1, flags="bicubic+accurate_rnd+full_chroma_int")
    if info.field_order > 1 and not info.interlaced:
        order = "tff" if info.field_order in (2, 4) else "bff"
        return node.filter("setfield", order).filter("bwdif", mode="send_frame", deint="all")
    return node.filter("bwdif", mode="send_frame", deint="interlaced")


def filtered(node: Any, info: VideoInfo, max_height: int | None, *, alpha: bool = False) -> Any:
    """The graph's progressive frames as they are seen: cropped, of the size of `shrunk`, turned, in SDR's colours.

    Args: alpha: whether the alpha channel, which is there, is kept. It is straight. What is transparent has no part
        in the colours of a shrunk frame.
    """
    width, height = shrunk(info.width, info.height, max_height)
    transfer = "arib-std-b67" if info.transfer == HLG else "smpte2084"
    if is_hdr(info) and info.matrix == BT2020:  # the frames may not say it, which the container does
        node = node.filter("setparams", colorspace="bt2020nc", color_primaries="bt2020", color_trc=transfer)
    if info.crop:  # a newer ffmpeg has done it already
        wide, high, left, top = info.crop
        node = node.filter(
            "crop", f"min(iw,{wide})", f"min(ih,{high})", f"if(gt(iw,{wide}),{left},0)", f"if(gt(ih,{high}),{top},0)"
        )
    # `area` is right for shrinking, bicubic for stretched pixels.
    scaler = ("area" if height < info.height else "bicubic") + "+accurate_rnd+full_chroma_int"
    stored = (height, width) if info.orientation.turned else (width, height)
    if alpha and (width, height) != (info.width, info.height):
        node = node.filter("scale", flags=scaler, **_matrix(info)).filter("format", "gbrap16le")
        node = node.filter("premultiply", inplace=1).filter("scale", *stored, flags=scaler)
        node = node.filter("format", "gbrap16le").filter("unpremultiply", inplace=1)
    else:
        node = node.filter("scale", *stored, flags=scaler, **_matrix(info))
    if is_wide(info) and can_tone_map():
        curve = "iec61966-2-1" if info.transfer == SRGB else "bt709"
        given = {"pin": WIDE[info.primaries], "tin": curve, "min": "gbr", "rin": "pc"}
        node = node.filter("format", "gbrap16le" if alpha else "gbrp16le")
        node = node.filter("zscale", p="bt709", t=curve, m="gbr", r="pc", **given)
    for name, *arguments in info.orientation.filters():
        node = node.filter(name, *arguments)
    if is_hdr(info) and can_tone_map():
        given = {"tin": transfer, "pin": "bt2020", "min": "bt2020nc"}
        node = (
            node.filter("format", "yuv444p12")
            .filter("zscale", t="linear", npl=WHITE_NITS, **given)
            .filter("format", "gbrpf32le")
            .filter("zscale", p="bt709")
            .filter("tonemap", "mobius", param=KNEE, peak=PEAK, desat=0)
            .filter("zscale", t="bt709", m="gbr", r="pc")
        )
    if height * 2 <= info.height and info.pix_fmt.startswith("yuv") and not (alpha or is_hdr(info) or is_wide(info)):
        # The bits are those of rgb24, in three quarters of the time. Of less shrunk frames they are not always.
        node = node.filter("format", "gbrp")
    return node


def _matrix(info: VideoInfo) -> dict[str, str]:
    """How YUV becomes RGB: as the file says, or as its size does. ffmpeg's own guess is SD's."""
    if info.pix_fmt.startswith(("rgb", "bgr", "gbr", "argb", "abgr", "gray", "pal8", "mono", "0rgb", "0bgr")):
        return {}
    is_hd = (info.width if info.orientation.turned else info.height) >= HD_LINES
    name = _MATRICES.get(info.matrix, "bt709" if is_hd and info.matrix in UNNAMED else "")
    return {"in_color_matrix": name} if name else {}

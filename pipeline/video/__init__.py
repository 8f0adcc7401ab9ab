"""Video files, still images and folders of frames: `probe`, `decode`, `decode_each`, `encode`.

Nothing outside this folder runs ffmpeg.
"""

from infra.errors import printable
from pipeline.video.animation import is_animation
from pipeline.video.decoder import (
    MAX_CLIP_BYTES,
    Damaged,
    count_frames,
    damage,
    decode,
    decode_each,
    decode_stored,
    notes,
)
from pipeline.video.encoder import ENCODED_SUFFIXES, encode, writing
from pipeline.video.errors import VideoError, video_error
from pipeline.video.ffmpeg import IMAGE_SUFFIXES, MAX_PIXELS, ffmpeg_exe
from pipeline.video.frames import frame_files, numbered_images
from pipeline.video.info import MAX_FRAMES, VideoInfo, probe, shrunk

__all__ = [
    "ENCODED_SUFFIXES",
    "IMAGE_SUFFIXES",
    "MAX_CLIP_BYTES",
    "MAX_FRAMES",
    "MAX_PIXELS",
    "Damaged",
    "VideoError",
    "VideoInfo",
    "count_frames",
    "damage",
    "decode",
    "decode_each",
    "decode_stored",
    "encode",
    "ffmpeg_exe",
    "frame_files",
    "is_animation",
    "notes",
    "numbered_images",
    "printable",
    "probe",
    "shrunk",
    "video_error",
    "writing",
]

"""Clips in webdataset tars with sidecars: `write` makes shards, `index` and `read_clip` read them."""

from pipeline.shards.reader import ShardEntry, ShardError, StoredClip, index, is_corpus, read, read_clip, sidecars
from pipeline.shards.writer import Written, write

__all__ = [
    "ShardEntry",
    "ShardError",
    "StoredClip",
    "Written",
    "index",
    "is_corpus",
    "read",
    "read_clip",
    "sidecars",
    "write",
]

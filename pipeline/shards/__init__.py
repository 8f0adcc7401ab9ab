"""Clips in webdataset tars with sidecars: `write` makes shards, `index` and `read_clip` read them."""

from pipeline.shards.batch import Batch, Decode, OnClip, Written, in_turn, write_batch
from pipeline.shards.reader import ShardEntry, ShardError, StoredClip, index, is_corpus, read, read_clip, sidecars
from pipeline.shards.writer import missing, write

__all__ = [
    "Batch",
    "Decode",
    "OnClip",
    "ShardEntry",
    "ShardError",
    "StoredClip",
    "Written",
    "in_turn",
    "index",
    "is_corpus",
    "missing",
    "read",
    "read_clip",
    "sidecars",
    "write",
    "write_batch",
]

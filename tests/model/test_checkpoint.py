"""The checkpoint file: what it gives back, and that nothing unreadable, foreign or hostile gets past `load`."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import random

import pytest
import torch

from infra.errors import StorageError
from model import checkpoint as ckpt
from model.checkpoint import CheckpointError, DamagedCheckpoint

from .conftest import CLIP_ID, SIZES, one_thread, tiny, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "checkpoint.pt"
    with one_thread():
        train(tiny(iters_per_scale=1), path)
    return path


def test_round_trip(trained, tmp_path):
    first = ckpt.load(trained)
    ckpt.save(first, tmp_path / "again.pt")
    again = ckpt.load(tmp_path / "again.pt")
    for field in ("config", "sizes", "clip_id", "scale", "iteration", "train_s", "noise_amps", "samples"):
        assert getattr(again, field) == getattr(first, field), field
    assert first.config == tiny(iters_per_scale=1)
    assert first.sizes == SIZES and first.clip_id == CLIP_ID and first.done
    assert len(first.noise_amps) == len(SIZES)
    for name, tensor in first.generators.items():
        assert torch.equal(again.generators[name], tensor), name


def test_stack_is_rebuilt_from_the_file_alone(trained):
    saved = ckpt.load(trained)
    stack = saved.stack()
    assert stack.num_scales == len(SIZES)
    assert tuple(stack.noise_amps) == saved.noise_amps
    assert not any(p.requires_grad for p in stack.parameters())
    assert all(torch.equal(tensor, saved.generators[name]) for name, tensor in stack.state_dict().items())


def refused(path, cause, kind=CheckpointError):
    with pytest.raises(kind, match=cause) as caught:
        ckpt.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).endswith("; give the checkpoint.pt of a clip")  # it may be any file of a user's


def test_missing_file(tmp_path):
    refused(tmp_path / "nothing.pt", "no such file")


def test_folder(tmp_path):
    refused(tmp_path, "not a readable checkpoint")


@pytest.mark.parametrize(
    "content", [b"", b"hello\n", bytes(5000), b"PK\x03\x04" + bytes(100), b"\x80\x02}q\x00.", bytes(range(256)) * 16]
)
def test_foreign_bytes(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)
    refused(path, "not a readable checkpoint")


@pytest.mark.parametrize("content", [b"\x80\x02b.", b"\x80\x02\x85."], ids=["build", "tuple"])
def test_broken_pickle(tmp_path, content):
    test_foreign_bytes(tmp_path, content)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_torn_file(trained, tmp_path, share):
    whole = trained.read_bytes()
    path = tmp_path / "torn.pt"
    path.write_bytes(whole[: int(share * len(whole))])
    refused(path, "not a readable checkpoint")


@pytest.mark.parametrize("lost", [1, 30, 72, 73, 74, 80, 200])
def test_torn_at_its_seal(trained, tmp_path, lost):
    path = tmp_path / "torn.pt"
    path.write_bytes(trained.read_bytes()[:-lost])
    refused(path, "damaged, its checksum does not match|not a readable checkpoint", DamagedCheckpoint)


@pytest.mark.faults
def test_any_changed_bit_is_noticed(trained, tmp_path):
    whole = trained.read_bytes()
    path = tmp_path / "flipped.pt"
    draw = random.Random(3)
    places = [0, len(whole) - 1, *range(len(whole) - 75, len(whole) - 60), *draw.choices(range(len(whole)), k=60)]
    for at in places:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << draw.randrange(8))]) + whole[at + 1 :])
        refused(path, "damaged|not a readable|not a checkpoint|format", DamagedCheckpoint)


def sealed(record, path):
    """A file as `save` seals it, of any record."""
    torch.save(record, path)
    content = path.read_bytes()
    path.write_bytes(content + b"\nsha256 " + hashlib.sha256(content).hexdigest().encode() + b"\n")


@pytest.mark.parametrize("record", [[1, 2], {"state_dict": {}}, torch.zeros(3), "text"], ids=repr)
def test_file_of_another_program(tmp_path, record):
    path = tmp_path / "foreign.pt"
    torch.save(record, path)
    refused(path, "not a checkpoint of this program")


def test_another_format_and_missing_fields(trained, tmp_path):
    record = torch.load(trained, weights_only=True)
    path = tmp_path / "other.pt"
    sealed(record | {"format": 99}, path)
    refused(path, "format 99, this version reads 3")
    torch.save(record | {"format": 1}, path)  # as the version before wrote it, without a seal
    refused(path, "format 1, this version reads 3")
    for name in set(record) - {"format"}:
        sealed({key: value for key, value in record.items() if key != name}, path)
        refused(path, f"incomplete checkpoint.*{name}")
    sealed(record | {"config": record["config"] | {"channels": 0}}, path)
    refused(path, "channels=0")


class Bomb:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def test_code_in_the_file_is_not_executed(trained, tmp_path):
    marker = tmp_path / "executed"
    sealed(torch.load(trained, weights_only=True) | {"clip_id": Bomb(marker)}, tmp_path / "bomb.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"format": 1, "config": Bomb(marker)}, protocol=2))
    for name in ("bomb.pt", "plain.pt"):
        refused(tmp_path / name, "not a readable checkpoint")
        assert not marker.exists()
    torch.load(tmp_path / "bomb.pt", weights_only=False)  # the bomb is live: an unguarded reader sets it off
    assert marker.exists()


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.faults
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_save_leaves_the_old_files_and_nothing_else(trained, tmp_path, monkeypatch, call, injected):
    path = tmp_path / "checkpoint.pt"
    saved = ckpt.load(trained)
    ckpt.save(saved, path)
    ckpt.save(saved, path)
    written = {file: file.read_bytes() for file in tmp_path.iterdir()}
    assert set(written) == {path, ckpt.previous(path)} == {path, tmp_path / "checkpoint.previous.pt"}
    monkeypatch.setattr(os, call, full)
    with pytest.raises(StorageError, match=r"No space left on device.*make room") as caught:
        ckpt.save(saved, path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    there = {file: file.read_bytes() for file in tmp_path.iterdir()}
    injected("no room for a checkpoint", written.items(), there.items())
    assert there == written


def test_what_a_killed_save_left_is_removed_by_the_next(trained, tmp_path):
    path = tmp_path / "checkpoint.pt"
    for name in (".checkpoint.pt.0123.tmp", ".checkpoint.pt.4567.tmp", ".metrics.json.0123.tmp"):
        (tmp_path / name).write_bytes(b"half of it")
    ckpt.save(ckpt.load(trained), path)
    assert {file.name for file in tmp_path.iterdir()} == {"checkpoint.pt", ".metrics.json.0123.tmp"}

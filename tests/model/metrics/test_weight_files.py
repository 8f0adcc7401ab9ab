"""`--features` words and weight files: which are refused, in one line that helps, and that none is executed."""

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from model.metrics.lite0 import Lite0Features
from model.metrics.option import from_option
from model.metrics.weight_files import FeaturesError, Layout, load

LAYOUTS = (
    Layout(project="one/project", names={"a": "first.weight", "b": "second.weight"}, classes="last.bias"),
    Layout(project="another/project", names={"a": "layer/W", "b": "layer/b"}, classes="end/b", trained_on="clips"),
)
SHAPES = {"a": (2, 3), "b": (2,)}


class Touch:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def fit(path):
    return load(path, LAYOUTS, SHAPES, {7: "weekdays"})


def one(**changes):
    return {
        "first.weight": torch.arange(6.0).view(2, 3),
        "second.weight": torch.ones(2),
        "last.bias": torch.ones(7),
    } | {name.replace("__", "."): tensor for name, tensor in changes.items()}


def another():
    return {"layer/W": torch.arange(6.0).view(2, 3), "layer/b": torch.ones(2)}


@pytest.mark.parametrize(
    ("record", "project", "trained_on"),
    [
        (one(), "one/project", "weekdays"),
        (one(last__bias=torch.ones(5)), "one/project", "5classes"),
        (one(extra=torch.ones(9), note="text"), "one/project", "weekdays"),
        (one(first__weight=torch.arange(6.0).view(2, 3).half()), "one/project", "weekdays"),
        ({"epoch": 3, "state_dict": one(), "opt_dict": {"lr": 0.1}}, "one/project", "weekdays"),
        ({"state_dict": {f"module.{name}": tensor for name, tensor in one().items()}}, "one/project", "weekdays"),
        ({f"backbone.{name}": tensor for name, tensor in another().items()}, "another/project", "clips"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_file_is_told_by_its_names(tmp_path, record, project, trained_on, zipped):
    torch.save(record, tmp_path / "w", _use_new_zipfile_serialization=zipped)
    weights = fit(tmp_path / "w")
    assert (weights.layout.project, weights.trained_on) == (project, trained_on)
    assert weights.tensors.keys() == {"a", "b"}
    assert weights.tensors["a"].dtype == torch.float32
    assert weights.tensors["a"].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_is_one_under_any_name(tmp_path, save):
    with open(tmp_path / "w.bin", "wb") as file:
        save(file, **{name: tensor.numpy() for name, tensor in another().items()})
    assert fit(tmp_path / "w.bin").trained_on == "clips"


def saved(record):
    return lambda path: torch.save(record, path)


def cut(path):
    torch.save(one(), path)
    path.write_bytes(path.read_bytes()[:-300])


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "not a readable file"),
        (lambda path: path.write_bytes(b""), "not a readable file"),
        (lambda path: path.write_bytes(b"<!DOCTYPE html>" + 2000 * b"."), "not a readable file"),
        (cut, "not a readable file"),
        (saved([1, 2]), "no state dict but a list"),
        (saved({"state_dict": 3}), "no state dict"),
        (saved({}), "nearest is that of another/project, but no layer/W, layer/b;"),
        (saved({f"n{i}": torch.ones(1) for i in range(5)}), r"fits \(it has n0, n1, n2 and 2 more\); nearest is"),
        (saved({"second.weight": torch.ones(2), "last.bias": torch.ones(7)}), "of one/project, but no first.weight;"),
        (saved({k: v for k, v in one().items() if k != "last.bias"}), "of one/project, but no last.bias;"),
        (saved(one(first__weight=torch.ones(3, 2))), r"first.weight is \(3, 2\), not \(2, 3\)"),
        (saved(one(second__weight=torch.tensor([1.0, float("nan")]))), "second.weight holds NaN"),
        (saved(one(second__weight=torch.ones(2).to_sparse())), "no second.weight"),
        (saved(one(second__weight=torch.ones(2, dtype=torch.int64))), "no second.weight"),
    ],
)
def test_refuses_in_one_line(tmp_path, write, words):
    write(tmp_path / "w")
    with pytest.raises(FeaturesError, match=words) as caught:
        fit(tmp_path / "w")
    message = str(caught.value)
    assert "\n" not in message and message.startswith(f"{tmp_path / 'w'}: ") and "Features by file" in message


def pickled(trap, path):
    path.write_bytes(pickle.dumps(trap))


def new_torch(trap, path):
    torch.save({**one(), "trap": trap}, path)


def old_torch(trap, path):
    torch.save({**one(), "trap": trap}, path, _use_new_zipfile_serialization=False)


def object_array(trap, path):
    with open(path, "wb") as file:
        np.savez(file, **{"layer/W": np.array([trap], dtype=object), "layer/b": np.ones(2)})


def pickle_in_npz(trap, path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("layer/W.npy", pickle.dumps(trap))


@pytest.mark.parametrize("write", [pickled, new_torch, old_torch, object_array, pickle_in_npz])
@pytest.mark.parametrize("kind", ["c3d", "inception"])
def test_nothing_in_a_file_is_executed(tmp_path, write, kind, recwarn):
    path, mark = tmp_path / "weights", tmp_path / "executed"
    write(Touch(mark), path)
    with pytest.raises(FeaturesError) as caught:
        from_option(f"{kind}:{path}")
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert not mark.exists() and not recwarn.list
    pickle.loads(pickle.dumps(Touch(mark)))
    assert mark.exists()  # the trap works where something is executed


def test_the_words_of_the_option(tmp_path):
    assert isinstance(from_option("lite0"), Lite0Features)
    for wrong in ("", "lite1", "lite0:x", "c3d", "c3d:", "inception", "vgg:file"):
        with pytest.raises(FeaturesError, match="give lite0, c3d:FILE, inception:FILE or inception192:FILE"):
            from_option(wrong)
    # A file of the other network: the nearest layout is one of the network asked for.
    torch.save({"Conv2d_1a_3x3.conv.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "w")
    with pytest.raises(FeaturesError, match=r"no conv1a.conv.weight, conv1a.conv.bias, conv2a.conv.weight and 13 more"):
        from_option(f"c3d:{tmp_path / 'w'}")

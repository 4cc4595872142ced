"""Checkpoints in and out, and every kind of file that is none."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from u2net.errors import ArtifactError, CheckpointError, OutputError
from u2net.network.checkpoint import detect_config, load_checkpoint, model_from_tensors, save_checkpoint
from u2net.network.model import CONFIGS, StageWidths, U2Net, U2NetConfig
from u2net.zoo import own_weights

WIDTHS = tuple(StageWidths(2 + i % 2, 4 + i % 3) for i in range(11))


def network(**settings) -> U2Net:
    torch.manual_seed(1)
    model = U2Net(U2NetConfig("tiny", WIDTHS, **settings)).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, 0, 0.1)  # type: ignore[arg-type]
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return model


def same(one: U2Net, other: U2Net) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture(scope="module")
def model() -> U2Net:
    return network()


@pytest.fixture
def state(model: U2Net) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"stem": 2},
        {"stem": 2, "first_pool": False},
        {"resql": True, "size": 256},
        {"stem": 4, "resql": True},
    ],
)
def test_saved_and_loaded_is_the_same_network(tmp_path: Path, settings: dict):
    model = network(**settings)
    save_checkpoint(model, tmp_path / "a.safetensors")
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert same(model, loaded) and loaded.config == model.config and not loaded.training
    save_checkpoint(loaded, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict", "net", "params_ema"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.module.net."])
def test_pth_in_its_usual_wrappings(tmp_path: Path, model: U2Net, state: dict, wrapper: str | None, prefix: str):
    named = {prefix + name: value for name, value in state.items()}
    torch.save({wrapper: named, "epoch": 3} if wrapper else named, tmp_path / "w.pth")
    assert same(load_checkpoint(tmp_path / "w.pth"), model)


@pytest.mark.parametrize("prefix", ["module.", "model.net."])
def test_prefixes_in_safetensors(tmp_path: Path, model: U2Net, state: dict, prefix: str):
    save_file({prefix + name: value for name, value in state.items()}, tmp_path / "w.safetensors")
    assert same(load_checkpoint(tmp_path / "w.safetensors"), model)


def test_lightning_and_what_else_it_keeps(tmp_path: Path, model: U2Net, state: dict):
    """Hyper-parameters beside the state dict, the weights of a loss and a counter inside it."""
    named = {f"model.{name}": value for name, value in state.items()} | {"loss.weight": torch.ones(3)}
    saved = {"state_dict": {**named, "n_averaged": 3}, "epoch": 3, "hyper_parameters": {"lr": 1e-3}}
    torch.save(saved, tmp_path / "w.ckpt")
    assert same(load_checkpoint(tmp_path / "w.ckpt"), model)


def test_the_running_mean_is_taken_before_the_weights(tmp_path: Path, model: U2Net, state: dict):
    torch.save({"state_dict": {k: v * 0 for k, v in state.items()}, "state_dict_ema": state}, tmp_path / "w.pth")
    assert same(load_checkpoint(tmp_path / "w.pth"), model)


def test_two_networks_in_one_file_are_refused(tmp_path: Path, state: dict):
    both = {f"{part}.{name}": v.clone() for part in ("student", "teacher") for name, v in state.items()}
    save_file(both, tmp_path / "w.safetensors")
    said = refused(tmp_path / "w.safetensors")
    assert "holds 2 U²-Nets, under student., teacher." in said and "torch.save(model.state_dict()" in said


def test_pth_of_the_old_format(tmp_path: Path, model: U2Net, state: dict):
    torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    assert same(load_checkpoint(tmp_path / "w.pth"), model)


def test_counters_that_old_files_lack_are_made_up(tmp_path: Path, model: U2Net, state: dict):
    old = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    save_file(old, tmp_path / "w.safetensors")
    assert same(load_checkpoint(tmp_path / "w.safetensors"), model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path: Path, state: dict, dtype: torch.dtype):
    cast = {name: v.to(dtype) if v.is_floating_point() else v for name, v in state.items()}
    save_file(cast, tmp_path / "w.safetensors")
    loaded = load_checkpoint(tmp_path / "w.safetensors").state_dict()
    for name, value in cast.items():
        assert loaded[name].dtype in (torch.float32, torch.int64)
        torch.testing.assert_close(loaded[name], value.to(loaded[name].dtype), rtol=0, atol=0)


def test_loaded_network_can_be_trained(tmp_path: Path, model: U2Net):
    save_checkpoint(model, tmp_path / "w.safetensors")
    loaded = load_checkpoint(tmp_path / "w.safetensors")
    assert all(p.requires_grad and not p.is_meta for p in loaded.parameters())


def test_authors_weights_are_recognised(small_weights: Path):
    loaded = load_checkpoint(small_weights)
    assert loaded.config == CONFIGS["small"]
    published = load_file(small_weights)
    assert all(torch.equal(value, published[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize(("model", "shape"), [("lite", "lite"), ("small-fast", "small-fast"), ("small-tuned", "small")])
def test_weights_in_the_repository_have_the_shape_that_they_are_named_for(model: str, shape: str):
    assert load_checkpoint(own_weights(model)).config == CONFIGS[shape]


def test_known_shapes_get_their_names():
    for known in CONFIGS.values():
        with torch.device("meta"):
            state = U2Net(known).state_dict()
        assert detect_config(state) == known


# ---- what is not a U²-Net, or a damaged one --------------------------------------------------------------------------


def complaint(tensors: dict[str, torch.Tensor]) -> str:
    with pytest.raises(CheckpointError) as caught:
        model_from_tensors(tensors, source="w.pth")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    return str(caught.value)


def test_missing_tensors_are_named(state: dict):
    del state["side3.bias"], state["stage2d.rebnconv4.bn_s1.running_var"]
    said = complaint(state)
    assert "w.pth misses" in said and "side3.bias" in said and "stage2d.rebnconv4.bn_s1.running_var" in said


def test_left_over_tensors_are_named(state: dict):
    state["stage7.conv.weight"] = torch.zeros(3)
    assert "has stage7.conv.weight, which no U²-Net has" in complaint(state)


def test_misshapen_tensors_are_named_with_both_shapes(state: dict):
    state["side1.weight"] = torch.zeros(2, 4, 3, 3)
    assert "has side1.weight of shape 2×4×3×3, not 1×" in complaint(state)
    state["side1.weight"] = torch.zeros(())
    assert "of shape scalar" in complaint(state)


def test_values_that_are_not_finite_are_named(state: dict):
    state["stage3.rebnconv2.conv_s1.weight"][0, 0, 0, 0] = float("nan")
    assert "stage3.rebnconv2.conv_s1.weight holds values that are not finite" in complaint(state)


def test_other_networks_are_told_apart():
    assert "is not a U²-Net" in complaint({"layer1.0.conv1.weight": torch.zeros(64, 64, 3, 3)})
    assert "holds no tensor at all" in complaint({})


def test_hundreds_of_missing_tensors_stay_one_line(state: dict):
    kept = {name: v for name, v in state.items() if "conv_s1.weight" in name}
    said = complaint(kept)
    assert "and" in said and "more" in said


def test_impossible_stem_is_said(state: dict):
    state["stage1.rebnconvin.conv_s1.weight"] = torch.zeros(4, 4, 3, 3)
    assert "takes 4 channels, and this project feeds a network pictures in RGB" in complaint(state)


def test_a_network_of_several_classes_is_said_to_be_one(state: dict):
    for name in [f"side{i}" for i in range(1, 7)] + ["outconv"]:
        state[f"{name}.weight"] = torch.zeros(4, *state[f"{name}.weight"].shape[1:])
        state[f"{name}.bias"] = torch.zeros(4)
    assert "one for each of 4 classes" in complaint(state)


@pytest.mark.parametrize("size", [0, -320, 10**9, "320", 1.5])
def test_damaged_metadata_is_refused(state: dict, size: object):
    with pytest.raises(CheckpointError, match="input size"):
        model_from_tensors(state, config={"size": size})


@pytest.mark.parametrize(("first_pool", "said"), [(False, "takes a stem"), ("yes", "must be true or false")])
def test_pooling_that_cannot_be_is_refused(state: dict, first_pool: object, said: str):
    with pytest.raises(CheckpointError, match=said):
        model_from_tensors(state, config={"first_pool": first_pool})


# ---- files -----------------------------------------------------------------------------------------------------------


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".onnx"])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"this is text",
        b"\x80\x02",
        b"\x80\x02]q\x00.",
        b"PK\x03\x04" + b"\0" * 50,
        b"\x10\0\0\0\0\0\0\0{" + b"\0" * 40,
        b"\xff\xff\xff\xff\xff\xff\xff\xff{}",
        b"\0" * 4096,
        b"<!DOCTYPE html><title>404</title>",
        b"version https://git-lfs.github.com/spec/v1\n",
    ],
)
def test_garbage_is_refused_in_one_line(tmp_path: Path, suffix: str, data: bytes):
    (tmp_path / f"w{suffix}").write_bytes(data)
    assert f"w{suffix}" in refused(tmp_path / f"w{suffix}")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("kept", [0.01, 0.5, 0.99])
def test_truncated_checkpoints_are_refused(tmp_path: Path, model: U2Net, name: str, kept: float):
    path = tmp_path / name
    if name.endswith(".pth"):
        torch.save(model.state_dict(), path)
    else:
        save_checkpoint(model, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    refused(path)


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("new_format", [True, False])
def test_pickled_code_is_refused_and_not_run(tmp_path: Path, state: dict, new_format: bool):
    state["surprise"] = Bomb(tmp_path / "ran")
    torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=new_format)
    said = refused(tmp_path / "w.pth")
    assert "needs code" in said and "system" in said
    assert not (tmp_path / "ran").exists()


def test_plain_pickle_of_code_is_refused_and_not_run(tmp_path: Path):
    (tmp_path / "w.pth").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    refused(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


def test_whole_pickled_module_is_refused(tmp_path: Path, model: U2Net):
    torch.save(model, tmp_path / "w.pth")
    assert "torch.save(model.state_dict(), 'weights.pth')" in refused(tmp_path / "w.pth")


def test_a_torchscript_program_is_refused_with_the_cure(tmp_path: Path):
    torch.jit.save(torch.jit.script(torch.nn.Conv2d(3, 3, 1)), tmp_path / "w.pt")
    assert "torch.jit.load('program.pt').state_dict()" in refused(tmp_path / "w.pt")


def test_what_hosts_give_instead_of_a_file_is_said(tmp_path: Path):
    (tmp_path / "w.pth").write_bytes(b"<!DOCTYPE html><title>404</title>")
    assert "is a web page" in refused(tmp_path / "w.pth")
    (tmp_path / "w.onnx").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\n")
    assert "git lfs pull" in refused(tmp_path / "w.onnx")


@pytest.mark.parametrize("value", [[1, 2], torch.zeros(3), {"a": 1}, {"state_dict": {"lr": 0.1}}])
def test_pth_without_a_state_dict_is_refused(tmp_path: Path, value: object):
    torch.save(value, tmp_path / "w.pth")
    assert "state dict" in refused(tmp_path / "w.pth")


def test_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("u2net.network.checkpoint.MAX_CHECKPOINT_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", b"\x80\x02}q\x00.")
        archive.writestr("w/data/0", bytes(8 << 20))
    assert (tmp_path / "w.pth").stat().st_size < 20_000
    assert "unpacks to" in refused(tmp_path / "w.pth")


def test_too_large_a_file_is_refused_unread(tmp_path: Path):
    with (tmp_path / "w.safetensors").open("wb") as file:
        file.truncate((1 << 30) + 1)  # sparse: takes no space
    assert "are refused" in refused(tmp_path / "w.safetensors")


def test_header_that_promises_too_much_is_refused(tmp_path: Path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))
    refused(tmp_path / "w.safetensors")


def test_what_is_no_file_is_refused(tmp_path: Path):
    assert "No such file" in refused(tmp_path / "missing.pth")
    assert "not a file" in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe.pth")
    assert "not a file" in refused(tmp_path / "pipe.pth")


def test_control_characters_in_the_path_are_refused(tmp_path: Path):
    with pytest.raises(ArtifactError, match="control characters"):
        load_checkpoint(tmp_path / "a\nb.pth")
    with pytest.raises(ArtifactError, match="control characters"):
        save_checkpoint(network(), tmp_path / "a\x1b[2Jb.safetensors")


def test_only_safetensors_are_saved(tmp_path: Path, model: U2Net):
    with pytest.raises(CheckpointError, match=r"\.safetensors"):
        save_checkpoint(model, tmp_path / "w.pth")
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_nothing(tmp_path: Path, tiny_checkpoint: Path):
    """A limit on file sizes stands in for a full disk: writes fail half-way, as on one."""
    code = (
        "import resource, sys\n"
        "from u2net.network.checkpoint import load_checkpoint, save_checkpoint\n"
        "from u2net.errors import OutputError\n"
        f"model = load_checkpoint({str(tiny_checkpoint)!r})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "try:\n"
        f"    save_checkpoint(model, {str(tmp_path / 'out' / 'w.safetensors')!r})\n"
        "except OutputError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cannot write" in done.stdout and done.stdout.count("\n") == 1
    assert list((tmp_path / "out").iterdir()) == []


def test_unwritable_folder_is_said(tmp_path: Path, model: U2Net):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot write"):
        save_checkpoint(model, tmp_path / "file" / "w.safetensors")


def test_bytes_decide_not_the_name(tmp_path: Path, model: U2Net):
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    (tmp_path / "w.safetensors").write_bytes(buffer.getvalue())
    assert same(load_checkpoint(tmp_path / "w.safetensors"), model)

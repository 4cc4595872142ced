"""Checkpoints: `.safetensors`, `.pth` and `.onnx` become a `U2Net`, a `U2Net` becomes `.safetensors`.

Notable choices:

- the configuration is read off the tensors (widths, stem, attention), never asked for, so any U²-Net of this family
  loads, the pruned ones too; its name is the one in `CONFIGS` with the same shape, or the one that the file carries;
- a state dict is found wherever people leave it: under the names of `WRAPPERS`, several deep, its tensors behind any
  prefix (`module.`, `model.`, `_orig_mod.` …); of weights and their running mean the mean is taken;
- a `.pth` is read by torch's restricted unpickler alone: a file that needs code to be loaded is refused;
- what is wrong with a checkpoint is said in terms of its tensors: missing, left over, of another shape, not finite;
- float16 and bfloat16 values are widened to float32.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from u2net.errors import CheckpointError, ConfigError
from u2net.files import atomic_path, check_path

from .model import CONFIGS, STAGE_NAMES, StageWidths, U2Net, U2NetConfig

__all__ = ["MAX_CHECKPOINT_BYTES", "detect_config", "load_checkpoint", "model_from_tensors", "save_checkpoint"]

#: The largest checkpoint that is read, unpacked: full in float32 with an optimiser's two moments is 530 MB.
MAX_CHECKPOINT_BYTES = 1 << 30
CONFIG_KEY = "u2net.config"  # where `save_checkpoint` leaves the configuration in the safetensors metadata
NAMED = 6  # tensors named in one error message
#: Where checkpoints keep a state dict, the running means first: they are what their authors measured.
WRAPPERS = (
    "state_dict_ema", "params_ema", "ema_state_dict", "model_ema", "ema",
    "state_dict", "model_state_dict", "params", "model", "network", "net", "module", "weights",
)  # fmt: skip
DEEPEST = 6  # wrappers in each other
FIRST = "stage1.rebnconvin.conv_s1.weight"  # what the names of a U²-Net's tensors are told by
SAVE_ALONE = "save its state dict alone: torch.save(model.state_dict(), 'weights.pth')"


def load_checkpoint(path: str | os.PathLike[str]) -> U2Net:
    """The network stored at `path`, in evaluation mode, float32, on the CPU.

    `.safetensors` and `.pth`/`.pt`/`.ckpt` hold a state dict with the authors' names (`FIRST`, …), behind any prefix,
    in a `.pth` bare or under any of `WRAPPERS`; `.onnx` holds an exported U²-Net, which `onnx_import` maps back. What
    the file is follows from its bytes, not from its name. Raises `CheckpointError`, one line, where the file cannot be
    read, is refused or is not a U²-Net.
    """
    file = check_path(path)
    try:
        size_bytes = file.stat().st_size
        if not file.is_file():
            raise CheckpointError(f"{file} is not a file")
        with file.open("rb") as opened:
            head = opened.read(16)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror or error}") from error
    if size_bytes == 0:
        raise CheckpointError(f"{file} is empty")
    if size_bytes > MAX_CHECKPOINT_BYTES:
        raise CheckpointError(f"{file} is {size_bytes:,} bytes; more than {MAX_CHECKPOINT_BYTES:,} are refused")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size_bytes:
        tensors, config = _read_safetensors(file)
        return model_from_tensors(_without_prefix(tensors, file), source=str(file), config=config)
    if head[:4] == b"PK\x03\x04" or head[:1] == b"\x80":
        return model_from_tensors(_without_prefix(_read_pickle(file), file), source=str(file))
    if head.lstrip()[:1] == b"<":
        raise CheckpointError(f"{file} is a web page, not a checkpoint: the host's answer was saved in its place")
    if head == b"version https://":
        raise CheckpointError(f"{file} is a Git LFS pointer, not a checkpoint; fetch the file with `git lfs pull`")
    if file.suffix.lower() == ".onnx":
        from .onnx_import import import_onnx

        return import_onnx(file)
    raise CheckpointError(f"{file} is no checkpoint: neither safetensors, nor a PyTorch .pth, nor .onnx")


def save_checkpoint(model: U2Net, path: str | os.PathLike[str]) -> None:
    """Write `model`'s state dict and configuration to `path` as safetensors, atomically.

    The same values give the same bytes. Raises `CheckpointError` for another suffix than `.safetensors` and
    `OutputError` where the file cannot be written.
    """
    from safetensors.torch import save

    target = check_path(path)
    if target.suffix != ".safetensors":
        raise CheckpointError(f"checkpoints are saved as .safetensors, not {target.name}")
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    data = save(tensors, metadata={CONFIG_KEY: _config_json(model.config)})
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)


def _config_json(config: U2NetConfig) -> str:
    said = {"name": config.name, "size": config.size, "first_pool": config.first_pool}
    return json.dumps(said, sort_keys=True)


def _read_safetensors(file: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  (no mapping)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{file} is not a readable safetensors file: {_one_line(error)}") from error
    try:
        config = json.loads(metadata.get(CONFIG_KEY, "{}"))
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise CheckpointError(f"{file} carries a damaged {CONFIG_KEY} in its metadata")
    return tensors, config


def _read_pickle(file: Path) -> dict[str, Tensor]:
    """The state dict in a `.pth`, read by the restricted unpickler."""
    _refuse_zip_bomb(file)
    try:
        # An open file, because torch.load takes a path that ends in .safetensors for one.
        with file.open("rb") as opened, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = torch.load(opened, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"(?:GLOBAL|global|class|function) ([\w.]+)", str(error))
        if wanted is None:
            raise CheckpointError(
                f"{file} is not a readable PyTorch checkpoint: its pickle is damaged; fetch or save it again"
            ) from error
        raise CheckpointError(
            f"{file} is refused: loading it needs code ({wanted.group(1)}), which a checkpoint can bring along; "
            f"where it is yours, {SAVE_ALONE}"
        ) from error
    except Exception as error:  # torch raises half a dozen types, some of them bare, for damaged files
        raise CheckpointError(f"{file} is not a readable PyTorch checkpoint: {_one_line(error)}") from error
    for _ in range(DEEPEST):
        inner = [
            value[name] for name in WRAPPERS if isinstance(value, Mapping) and isinstance(value.get(name), Mapping)
        ]
        if not inner:
            break
        value = inner[0]
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{file} holds a {type(value).__name__}, not a state dict; {SAVE_ALONE}")
    tensors = {str(name): tensor for name, tensor in value.items() if isinstance(tensor, Tensor)}
    if not any(name.endswith(FIRST) for name in tensors) and len(tensors) < len(value):
        strange = [str(name) for name, tensor in value.items() if not isinstance(tensor, Tensor)]
        raise CheckpointError(f"{file} is not a state dict: {_listed(strange)} are not tensors; {SAVE_ALONE}")
    return tensors


def _without_prefix(tensors: Mapping[str, Tensor], file: Path) -> dict[str, Tensor]:
    """The tensors of the one U²-Net in `tensors`, named as the authors name them; others beside it are left out."""
    prefixes = sorted(name.removesuffix(FIRST) for name in tensors if name.endswith(FIRST))
    if "" in prefixes or not prefixes:
        return dict(tensors)
    if len(prefixes) > 1:
        raise CheckpointError(
            f"{file} holds {len(prefixes)} U²-Nets, under {_listed(prefixes)}; of the one that is meant, {SAVE_ALONE}"
        )
    return {name.removeprefix(prefixes[0]): tensor for name, tensor in tensors.items() if name.startswith(prefixes[0])}


def _refuse_zip_bomb(file: Path) -> None:
    """Torch stores tensors uncompressed: members that unpack to more than the file itself are no checkpoint's."""
    if not zipfile.is_zipfile(file):
        return
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
            names = {name.partition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise CheckpointError(f"{file} is not a readable PyTorch checkpoint: {_one_line(error)}") from error
    if unpacked > MAX_CHECKPOINT_BYTES:
        raise CheckpointError(f"{file} unpacks to {unpacked:,} bytes; more than {MAX_CHECKPOINT_BYTES:,} are refused")
    if "constants.pkl" in names:
        raise CheckpointError(
            f"{file} is a TorchScript program, which is refused; where it is yours, save its weights alone: "
            "torch.save(torch.jit.load('program.pt').state_dict(), 'weights.pth')"
        )


def detect_config(tensors: Mapping[str, Tensor], *, source: str = "the checkpoint") -> U2NetConfig:
    """The configuration that a state dict belongs to, read off the shapes of its tensors.

    It is the one of `CONFIGS` with these widths, stem and attention, else one named `custom` with the first pooling,
    which no tensor tells of. Raises `CheckpointError` where a tensor that decides a width is missing or has no such
    shape.
    """

    def shape(name: str) -> tuple[int, ...]:
        if name not in tensors:
            stranger = f", but it has {_listed(sorted(tensors)[:NAMED])}" if tensors else ", and holds no tensor at all"
            raise CheckpointError(f"{source} is not a U²-Net: it has no {name}{stranger}")
        found = tuple(tensors[name].shape)
        if len(found) != 4:
            raise CheckpointError(f"{source}: {name} is of shape {_shape(found)}, not a convolution's")
        return found

    channels = shape("stage1.rebnconvin.conv_s1.weight")[1]
    stems = {3 * stem**2: stem for stem in (1, 2, 4)}
    if channels not in stems:
        raise CheckpointError(
            f"{source} takes {channels} channels, and this project feeds a network pictures in RGB: teach one with 3 "
            "(or 12 or 48 behind a stem)"
        )
    classes = [shape(name)[0] for name in ("side1.weight", "outconv.weight") if name in tensors]
    if len(classes) == 2 and min(classes) > 1:
        raise CheckpointError(
            f"{source} gives {classes[1]} maps for a picture, one for each of {classes[1]} classes (as networks that "
            "segment clothes do); this project is for one mask: teach a network with one class"
        )
    widths = tuple(
        StageWidths(
            mid=shape(f"{stage}.rebnconv1.conv_s1.weight")[0], out=shape(f"{stage}.rebnconvin.conv_s1.weight")[0]
        )
        for stage in STAGE_NAMES
    )
    resql = any(name.startswith("resql") for name in tensors)
    try:
        found = U2NetConfig("custom", widths, stem=stems[channels], resql=resql)
    except ConfigError as error:
        raise CheckpointError(f"{source}: {error}") from error
    for known in CONFIGS.values():
        if (known.widths, known.stem, known.resql) == (found.widths, found.stem, found.resql):
            return known
    return found


def model_from_tensors(
    tensors: Mapping[str, Tensor],
    *,
    source: str = "the checkpoint",
    config: Mapping[str, Any] | None = None,
) -> U2Net:
    """A `U2Net` in evaluation mode with these values, whose names are the authors'.

    `config` may say the `name`, `size` and `first_pool` that shapes cannot tell. Raises `CheckpointError` that names
    missing, left-over, mis-shaped and non-finite tensors.
    """
    found = detect_config(tensors, source=source)
    said = dict(config or {})
    if "size" in said:
        if not isinstance(said["size"], int) or not 16 <= said["size"] <= 4096:
            raise CheckpointError(f"{source} says an input size of {said['size']!r}; it must be 16 to 4096 pixels")
        found = replace(found, size=said["size"])
    if "first_pool" in said:
        if not isinstance(said["first_pool"], bool):
            raise CheckpointError(f"{source} says a first_pool of {said['first_pool']!r}; it must be true or false")
        if found.stem == 1 and not said["first_pool"]:
            raise CheckpointError(f"{source} has no pooling behind stage 1, which takes a stem")
        if said["first_pool"] != found.first_pool:
            found = replace(found, name="custom", first_pool=said["first_pool"], aliases=())
    if found.name not in CONFIGS and isinstance(said.get("name"), str) and said["name"].isprintable():
        found = replace(found, name=said["name"])
    with torch.device("meta"):
        model = U2Net(found)
    wanted = model.state_dict()
    counters = {name for name in wanted if name.endswith("num_batches_tracked")}  # absent from files before torch 0.4.1
    missing = [name for name in wanted if name not in tensors and name not in counters]
    extra = [name for name in tensors if name not in wanted]
    problems = []
    if missing:
        problems.append(f"misses {_listed(missing)}")
    if extra:
        problems.append(f"has {_listed(extra)}, which no U²-Net has")
    for name, value in wanted.items():
        if name in tensors and tensors[name].shape != value.shape:
            problems.append(f"has {name} of shape {_shape(tensors[name].shape)}, not {_shape(value.shape)}")
    if problems:
        more = f"; and {len(problems) - NAMED} problems more" if len(problems) > NAMED else ""
        raise CheckpointError(f"{source} {'; '.join(problems[:NAMED])}{more}; save the whole state dict of a U²-Net")
    state: dict[str, Tensor] = {}
    for name, value in wanted.items():
        if name in counters:
            state[name] = tensors.get(name, torch.zeros((), dtype=torch.int64)).to(torch.int64)
        else:
            state[name] = tensors[name].to(value.dtype).contiguous()
            if not bool(torch.isfinite(state[name]).all()):
                raise CheckpointError(f"{source}: {name} holds values that are not finite; take an earlier checkpoint")
    model.load_state_dict(state, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model.eval()


def _listed(names: list[str]) -> str:
    shown = ", ".join(name[:80] if name.isprintable() else repr(name[:80]) for name in names[:NAMED])
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED} more"


def _shape(shape: tuple[int, ...] | torch.Size) -> str:
    return "×".join(str(n) for n in shape) if shape else "scalar"


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"

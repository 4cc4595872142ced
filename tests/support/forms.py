"""The forms in which people have a U²-Net, checkpoints and graphs of other exporters, and what becomes of each.

PYTEST_DONT_REWRITE: `docs/forms.py` writes the table of it with no test running.
"""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper
from safetensors.torch import save_file
from torch import Tensor

from u2net.errors import U2NetError
from u2net.network.checkpoint import load_checkpoint, save_checkpoint
from u2net.network.model import StageWidths, U2Net, U2NetConfig

__all__ = ["CHECKPOINTS", "GRAPHS", "SIZE", "checkpoint_outcome", "exported", "graph_outcome", "wide_network"]

SIZE = 64
State = dict[str, Tensor]


def wide_network() -> U2Net:
    """Just wide enough to have integer convolutions, with batch norms that do something."""
    torch.manual_seed(3)
    made = U2Net(U2NetConfig("wide", (StageWidths(8, 8),) * 11)).eval()
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2.0)
    return made


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def _pth(wrap: Callable[[State], Any], **settings: Any) -> Callable[[U2Net, Path], Path]:
    """A `.pth` of what `wrap` makes of the state dict."""

    def make(model: U2Net, folder: Path) -> Path:
        torch.save(wrap(model.state_dict()), folder / "w.pth", **settings)
        return folder / "w.pth"

    return make


def _safetensors(change: Callable[[State], State]) -> Callable[[U2Net, Path], Path]:
    def make(model: U2Net, folder: Path) -> Path:
        state = dict(model.state_dict())
        save_file({name: value.clone() for name, value in change(state).items()}, folder / "w.safetensors")
        return folder / "w.safetensors"

    return make


def _saved(model: U2Net, folder: Path) -> Path:
    save_checkpoint(model, folder / "w.safetensors")
    return folder / "w.safetensors"


def _whole(model: U2Net, folder: Path) -> Path:
    torch.save(model, folder / "w.pth")
    return folder / "w.pth"


def _torchscript(model: U2Net, folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Conv2d(3, 4, 3)), folder / "w.pt")
    return folder / "w.pt"


def _plain_pickle(model: U2Net, folder: Path) -> Path:
    (folder / "w.pth").write_bytes(pickle.dumps({"weights": [1.0, 2.0]}))
    return folder / "w.pth"


def _prefixed(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + name: value for name, value in state.items()}


def _classes(state: State) -> State:
    for name in [f"side{index}" for index in range(1, 7)] + ["outconv"]:
        state[f"{name}.weight"] = torch.zeros(
            4, *(4 * n if name == "outconv" and i == 0 else n for i, n in enumerate(state[f"{name}.weight"].shape[1:]))
        )
        state[f"{name}.bias"] = torch.zeros(4)
    return state


def _channels(count: int) -> Callable[[State], State]:
    def change(state: State) -> State:
        name = "stage1.rebnconvin.conv_s1.weight"
        return {**state, name: torch.zeros(len(state[name]), count, 3, 3)}

    return change


def _spoilt(state: State) -> State:
    state["outconv.bias"] = torch.full_like(state["outconv.bias"], float("nan"))
    return state


def _without(end: str) -> Callable[[State], State]:
    return lambda state: {name: value for name, value in state.items() if not name.endswith(end)}


CHECKPOINTS: dict[str, Callable[[U2Net, Path], Path]] = {
    "`.safetensors`, as this project writes it": _saved,
    "`.pth`, a state dict": _pth(dict),
    "`.pth` of before torch 1.6": _pth(dict, _use_new_zipfile_serialization=False),
    "in `state_dict`, with an epoch": _pth(lambda state: {"state_dict": state, "epoch": 3}),
    "in `model`": _pth(lambda state: {"model": state}),
    "in `net`": _pth(lambda state: {"net": state}),
    "in `model_state_dict`, with an optimizer": _pth(lambda state: {"model_state_dict": state, "optimizer": {"lr": 1}}),
    "in `params_ema`": _pth(lambda state: {"params_ema": state}),
    "`state_dict_ema` beside `state_dict`": _pth(lambda state: {"state_dict": state, "state_dict_ema": state}),
    "PyTorch Lightning's": _pth(
        lambda state: {"state_dict": _prefixed("model.")(state), "hyper_parameters": {"lr": 1e-3}, "global_step": 9}
    ),
    "prefix `module.` (DataParallel)": _pth(_prefixed("module.")),
    "prefix `model.`": _pth(_prefixed("model.")),
    "prefix `net.`": _pth(_prefixed("net.")),
    "prefix `_orig_mod.module.net.`, three deep": _pth(_prefixed("_orig_mod.module.net.")),
    "prefix `module.` in `.safetensors`": _safetensors(_prefixed("module.")),
    "float16": _safetensors(lambda state: {n: v.half() if v.is_floating_point() else v for n, v in state.items()}),
    "bfloat16": _safetensors(lambda state: {n: v.bfloat16() if v.is_floating_point() else v for n, v in state.items()}),
    "without batch norm's counters": _safetensors(_without("num_batches_tracked")),
    "a whole pickled model": _whole,
    "TorchScript": _torchscript,
    "a pickle of something else": _plain_pickle,
    "four classes, as clothes are parsed": _safetensors(_classes),
    "one input channel": _safetensors(_channels(1)),
    "four input channels": _safetensors(_channels(4)),
    "two networks in one file": _safetensors(lambda state: {**_prefixed("a.")(state), **_prefixed("b.")(state)}),
    "a tensor missing": _safetensors(_without("side3.bias")),
    "values that are not numbers": _safetensors(_spoilt),
}


def checkpoint_outcome(form: str, model: U2Net, folder: Path) -> str:
    """`the same network`, or why it is refused, of the form made of `model` in the empty `folder`."""
    path = CHECKPOINTS[form](model, folder)
    try:
        found = load_checkpoint(path).state_dict()
    except U2NetError as error:
        return f"refused: {str(error).replace(str(path), path.name)}"
    half = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(form)
    for name, value in model.state_dict().items():
        wanted = value.to(half).float() if half is not None and value.is_floating_point() else value
        if not torch.equal(found[name], wanted):
            return f"another network: {name} differs"
    return "the same network"


# ---- graphs of other exporters ---------------------------------------------------------------------------------------


class Outputs(torch.nn.Module):
    """The first `count` maps of a network."""

    def __init__(self, model: U2Net, count: int) -> None:
        super().__init__()
        self.net = model
        self.count = count

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.net(x)[: self.count]


def exported(
    model: U2Net,
    path: Path,
    *,
    opset: int = 11,
    maps: int = 1,
    batch: int = 1,
    size: tuple[int, int] = (SIZE, SIZE),
    free: dict[int, str] | None = None,
    dynamo: bool = False,
    fold: bool = True,
    half: bool = False,
    external: bool = False,
) -> Path:
    """`model` as torch's exporters write it."""
    names = [f"out{59 + index}" for index in range(maps)]
    buffer = io.BytesIO()
    settings: dict[str, Any] = {"opset_version": opset, "input_names": ["input.1"], "output_names": names}
    if dynamo:
        shapes = dict.fromkeys(free, torch.export.Dim.AUTO) if free else None
        settings |= {"dynamo": True, "dynamic_shapes": (shapes,) if shapes else None, "verbose": False}
    else:
        axes = dict.fromkeys(("input.1", *names), free) if free else None
        training = torch.onnx.TrainingMode.EVAL if fold else torch.onnx.TrainingMode.PRESERVE
        settings |= {"dynamo": False, "dynamic_axes": axes, "training": training, "do_constant_folding": fold}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(Outputs(model, maps).eval(), (torch.zeros(batch, 3, *size),), buffer, **settings)  # type: ignore[arg-type]
    proto = onnx.load_model_from_string(buffer.getvalue())
    if half:
        for tensor in proto.graph.initializer:
            if tensor.data_type == TensorProto.FLOAT:
                values = numpy_helper.to_array(tensor).astype(np.float16)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        for node in proto.graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT and attribute.t.dims:
                    values = numpy_helper.to_array(attribute.t).astype(np.float16)
                    attribute.t.CopyFrom(numpy_helper.from_array(values, attribute.t.name))
        for value in (*proto.graph.input, *proto.graph.output):
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
        del proto.graph.value_info[:]
    onnx.save_model(proto, path, save_as_external_data=external, location="model.onnx.data", size_threshold=0)
    return path


GRAPHS: dict[str, dict[str, Any]] = {
    "legacy, opset 9, seven outputs": {"opset": 9, "maps": 7},
    "legacy, opset 11, seven outputs, as rembg's": {"maps": 7},
    "legacy, opset 12, free batch": {"opset": 12, "free": {0: "batch"}},
    "legacy, opset 13, all free": {"opset": 13, "free": {0: "b", 2: "h", 3: "w"}},
    "legacy, opset 17": {"opset": 17},
    "legacy, a batch of four": {"batch": 4},
    "legacy, not square": {"size": (64, 96)},
    "legacy, batch norms as they are": {"fold": False},
    "legacy, float16": {"opset": 13, "half": True},
    "legacy, external data": {"opset": 13, "external": True},
    "dynamo, opset 18, seven outputs": {"opset": 18, "maps": 7, "dynamo": True},
    "dynamo, opset 22, external data": {"opset": 22, "dynamo": True, "external": True},
}


def graph_outcome(form: str, model: U2Net, path: Path) -> tuple[str, str]:
    """What `export --weights` and what `quantize` make of the form of `model`, written to `path`."""
    from quantize.graph import load_graph

    exported(model, path, **GRAPHS[form])
    outcomes = []
    for read in (load_checkpoint, load_graph):
        try:
            found: Any = read(path)
        except U2NetError as error:
            outcomes.append(f"refused: {str(error).replace(str(path), path.name)}")
            continue
        if read is load_checkpoint:
            outcomes.append("the network's own masks")
        else:
            outcomes.append(f"int8 for {'×'.join(map(str, found.input_shape))}")
    return outcomes[0], outcomes[1]

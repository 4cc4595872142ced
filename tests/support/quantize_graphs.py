"""A small network with everything that U²-Net's passes meet, made from nothing, in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 32
WIDTH = 16


def network(seed: int = 0, constant: float = 0.0, size: int = SIZE, width: int = WIDTH) -> onnx.ModelProto:
    """A residual U-block between a first and a side convolution: 3×size×size in, a mask in [0, 1] out.

    With `constant`, one channel lies there with a ripple of about 1 on it, and the next layer subtracts it again.
    """
    random = np.random.default_rng(seed)
    weights: dict[str, npt.NDArray] = {}
    nodes = []

    def conv(name: str, source: str, inputs: int, outputs: int, relu: bool = True, dilation: int = 1) -> str:
        weights[f"{name}.conv_s1.weight"] = (
            random.normal(size=(outputs, inputs, 3, 3)) * np.sqrt(2 / (9 * inputs))
        ).astype(np.float32)
        weights[f"{name}.conv_s1.bias"] = (random.normal(size=outputs) * 0.1).astype(np.float32)
        names = [source, f"{name}.conv_s1.weight", f"{name}.conv_s1.bias"]
        options: dict[str, Any] = {"pads": [dilation] * 4, "dilations": [dilation] * 2, "kernel_shape": [3, 3]}
        nodes.append(helper.make_node("Conv", names, [f"{name}_pre"], name=f"{name}_conv", **options))
        if not relu:
            return f"{name}_pre"
        nodes.append(helper.make_node("Relu", [f"{name}_pre"], [f"{name}_out"], name=f"{name}_relu"))
        return f"{name}_out"

    def add(op_type: str, sources: list[str], output: str, **options: Any) -> str:
        nodes.append(helper.make_node(op_type, sources, [output], name=f"{output}_node", **options))
        return output

    entry = conv("stage1.rebnconvin", "input", 3, width)
    first = conv("stage1.rebnconv1", entry, width, width)
    pooled = add("MaxPool", [first], "pooled", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    second = conv("stage1.rebnconv2", pooled, width, width)
    deepest = conv("stage1.rebnconv3", second, width, width, dilation=2)
    inner = conv("stage1.rebnconv2d", add("Concat", [deepest, second], "joined2", axis=1), 2 * width, width)
    weights["sizes"] = np.array([1, width, size, size], np.int64)
    wide = add("Resize", [inner, "", "", "sizes"], "wide", mode="linear", coordinate_transformation_mode="half_pixel")
    outer = conv("stage1.rebnconv1d", add("Concat", [wide, first], "joined1", axis=1), 2 * width, width)
    total = add("Add", [outer, entry], "total")
    last = conv("stage2.rebnconvin", total, width, width)
    logit = conv("side1", last, width, 1, relu=False)
    add("Sigmoid", [logit], "alpha")

    if constant:
        weights["stage1.rebnconv2d.conv_s1.weight"][3] *= 0.3
        weights["stage1.rebnconv2d.conv_s1.bias"][3] = constant
        reader, bias = weights["stage1.rebnconv1d.conv_s1.weight"], weights["stage1.rebnconv1d.conv_s1.bias"]
        reader[:, 3] *= 0.1
        reader[:, 3, 1, 1] = random.normal(size=width)
        bias -= reader[:, 3].sum((1, 2)) * np.float32(constant)

    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, size, size])],
        [helper.make_tensor_value_info("alpha", TensorProto.FLOAT, [1, 1, size, size])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {"u2net.interface": "tensor", "u2net.size": str(size), "u2net.model": "test"})
    onnx.checker.check_model(model)
    return model


def save_network(path: Path, **options: Any) -> Path:
    """Write `network` to `path`."""
    onnx.save(network(**options), path)
    return path


def inputs(count: int, seed: int = 1, size: int = SIZE) -> list[npt.NDArray[np.float32]]:
    """Smooth random network inputs (1, 3, size, size), each of its own brightness and contrast."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        coarse = random.normal(size=(3, 5, 5))
        smooth = np.kron(coarse, np.ones((size // 5 + 1, size // 5 + 1)))[:, :size, :size]
        noise = random.normal(size=(3, size, size)) * 0.2
        made.append((smooth * random.uniform(0.3, 1.5) + noise + random.normal()).astype(np.float32)[None])
    return made


def run(model: onnx.ModelProto, feeds: list[npt.NDArray[np.float32]], fuse: bool = True) -> npt.NDArray[np.float32]:
    """The model's masks of `feeds`, stacked."""
    from quantize.sessions import open_session

    session = open_session(model, 1, fuse=fuse)
    return np.stack([session.run(None, {"input": feed})[0] for feed in feeds])

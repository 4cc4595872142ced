"""Small ONNX models for tests of the runner: right or wrong in one respect, and made without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 64


def red_detector(
    path: Path,
    *,
    convolutions: int = 119,
    interface: str = "tensor",
    size: int = SIZE,
    input_shape: list[int] | None = None,
    metadata: dict[str, str] | None = None,
    external: bool = False,
) -> Path:
    """A graph with a U²-Net's inputs, outputs and number of convolutions whose map is high where a picture is red."""
    nodes = []
    weight = np.array([8.0, -8.0, -8.0], np.float32).reshape(1, 3, 1, 1)
    one = np.ones((1, 1, 1, 1), np.float32)
    tensors = [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(one, "one")]
    if interface == "image":
        shape = input_shape or [1, size, size, 4]
        kind = TensorProto.UINT8
        tensors.append(numpy_helper.from_array(np.array([3, 1], np.int64), "split"))
        tensors.append(numpy_helper.from_array(np.array(1 / 64, np.float32), "scale"))
        nodes += [
            helper.make_node("Cast", ["input"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["float"], ["nchw"], perm=[0, 3, 1, 2]),
            helper.make_node("Split", ["nchw", "split"], ["colours", "ignored"], axis=1),
            helper.make_node("Mul", ["colours", "scale"], ["picture"]),
        ]
        name = "picture"
    else:
        shape = input_shape or [1, 3, size, size]
        kind = TensorProto.FLOAT
        name = "input"
    for index in range(convolutions):
        nodes.append(helper.make_node("Conv", [name, "one" if index else "weight"], [f"c{index}"]))
        name = f"c{index}"
    nodes.append(helper.make_node("Sigmoid", [name], ["alpha"]))
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("input", kind, shape)],
        [helper.make_tensor_value_info("alpha", TensorProto.FLOAT, None)],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if metadata is None:
        metadata = {"u2net.size": str(size), "u2net.interface": interface}
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    if external:
        onnx.save(model, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    else:
        path.write_bytes(model.SerializeToString())
    return path

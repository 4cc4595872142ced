"""Models and pictures as every engine takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eval.models import Candidate

from .pictures import Picture

__all__ = ["Prepared"]


class Prepared:
    """Models and pictures as every engine takes them."""

    def __init__(self, models: Sequence[Candidate], pictures: Sequence[Picture]) -> None:
        self.models, self.pictures = models, pictures
        self.feeds = [[model.feed(picture.rgb) for picture in pictures] for model in models]
        self.identity = _identity_model()

    def model_bytes(self, key: str) -> bytes:
        return self.identity if key == "identity" else self.models[int(key)].path.read_bytes()

    def feed_bytes(self, index: int, picture: int) -> bytes:
        return self.feeds[index][picture].tobytes()

    def question(self, index: int, picture: int, mask: bool = False) -> dict[str, Any]:
        feed, graph = self.feeds[index][picture], self.models[index].graph
        described = {
            "name": graph.input_name,
            "output": graph.output_name,
            "type": feed.dtype.name,
            "dims": list(feed.shape),
        }
        return {"index": index, "picture": picture, "input": described, "mask": mask}


def _identity_model() -> bytes:
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", values[:1], values[1:])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    return bytes(model.SerializeToString())

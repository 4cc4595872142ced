"""Nothing of the exporter's own stays in a file."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx import TensorProto, helper

from export.passes import StripProvenance
from tests.support.exports import Exported

pytest_plugins = ["tests.support.exports"]


def test_doc_strings_and_metadata_go():
    node = helper.make_node("Relu", ["x"], ["y"], doc_string='File "/home/someone/model.py", line 3')
    node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/home/someone/model.py")
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1], doc_string="someone's input")
    graph = helper.make_graph([node], "g", [value], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])])
    graph.doc_string = "made by someone"
    proto = helper.make_model(graph, doc_string="someone", ir_version=10)
    proto.metadata_props.add(key="path", value="/home/someone")
    graph.metadata_props.add(key="path", value="/home/someone")
    result = StripProvenance()(ir.from_proto(proto))
    assert result.modified
    assert b"someone" not in ir.to_proto(result.model).SerializeToString()
    assert not StripProvenance()(result.model).modified


def test_exported_files_speak_of_the_network_alone(exported: Exported):
    proto = exported()
    data = proto.SerializeToString()
    for word in (b"/home", b"/root", b"/work", b"site-packages", b".py", b"torch", b"namespace"):
        assert word not in data, word
    assert {entry.key for entry in proto.metadata_props} == {"u2net.interface", "u2net.model", "u2net.size"}
    assert isinstance(proto, onnx.ModelProto) and proto.producer_name == "u2net"

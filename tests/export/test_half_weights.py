"""Weights stored as float16, arithmetic in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, numpy_helper

from export.exporter import store_half
from export.passes import HalfWeights
from tests.support.exports import SIZE, Exported
from u2net.errors import ModelError
from u2net.runtime import onnxruntime

pytest_plugins = ["tests.support.exports"]


def run(proto: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(2).normal(size=(1, 3, SIZE, SIZE)).astype(np.float32)
    return session.run(None, {"input": x})[0]


def test_weights_are_halved_and_biases_kept(exported: Exported):
    half = store_half(exported())
    onnx.checker.check_model(half, full_check=True)
    kinds = {t.name: t.data_type for t in half.graph.initializer if t.name.endswith((".weight", ".bias"))}
    assert len(kinds) == 2 * 119
    for name, kind in kinds.items():
        assert kind == (TensorProto.FLOAT16 if name.endswith(".weight") else TensorProto.FLOAT), name
    assert half.graph.input[0].type == exported().graph.input[0].type


def test_it_computes_what_the_rounded_weights_compute_in_float32(exported: Exported):
    rounded = exported()
    for tensor in rounded.graph.initializer:
        if tensor.name.endswith(".weight"):
            values = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    half = run(store_half(exported()))
    np.testing.assert_allclose(half, run(rounded), atol=1e-6)
    assert 0 < np.abs(half - run(exported())).max() < 5e-3


def test_small_is_half_as_large(small_fp32: Path):
    full = onnx.load_model(small_fp32)
    assert store_half(full).ByteSize() < 0.53 * full.ByteSize()


def test_second_time_changes_nothing(exported: Exported):
    assert not HalfWeights()(ir.from_proto(store_half(exported()))).modified


def test_what_does_not_fit_is_refused(exported: Exported):
    proto = exported()
    tensor = next(t for t in proto.graph.initializer if t.name == "side3.weight")
    values = numpy_helper.to_array(tensor).copy()
    values[0, 0, 0, 0] = 70000
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    with pytest.raises(ModelError, match=r"side3\.weight does not fit"):
        HalfWeights().call(ir.from_proto(proto))

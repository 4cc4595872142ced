"""Opening onnxruntime sessions for measurement: quiet, a fixed number of threads, no spinning."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import onnx

from u2net.errors import ModelError

__all__ = ["open_session"]


def open_session(
    model: onnx.ModelProto | str | os.PathLike[str],
    threads: int,
    *,
    fuse: bool = False,
    optimized: str | os.PathLike[str] | None = None,
) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU.

    With `fuse` quantized operators become integer kernels as they do in deployment; without it they are computed in
    float as written. `optimized` saves the graph as the runtime has rewritten it. Raises `ModelError`.
    """
    from u2net.runtime import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = False  # the arena keeps the largest buffers of every session ever opened
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not fuse:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if optimized is not None:
        options.optimized_model_filepath = os.fspath(optimized)
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else os.fspath(Path(model))
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own that derive from Exception alone
        raise ModelError(
            f"onnxruntime cannot load the model: {str(error).splitlines()[0]}; make it again with `u2net export`"
        ) from error

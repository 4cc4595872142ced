"""onnxruntime's own format, `.ort`.

The converter is `onnxruntime.tools`, where the former `onnxruntime-tools` package lives on. A `.ort` file is the graph
after onnxruntime's own optimisation, which minimal builds of the engine need; it starts no faster and is no smaller.
Weights stored as float16 come out as float32, so only float32 and int8 models are worth converting. It is the one
artifact whose bytes differ from run to run: onnxruntime writes a table of type names in the order of a hash map in
memory, about 50 bytes of it; the graph and the masks are the same.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from u2net.artifact import verify_artifact, write_sidecar
from u2net.errors import ConfigError, ModelError, QualityError
from u2net.files import atomic_path, check_path, sha256_file
from u2net.onnx_scan import QUANTIZED_OPERATORS

from .parity import MAX_DIFFERENCE

__all__ = ["write_ort"]

#: Largest difference of integer graphs, five steps of 8 bits: fused otherwise, a value may round the other way.
MAX_INTEGER_DIFFERENCE = 0.02


def write_ort(model: str | os.PathLike[str]) -> tuple[Path, dict[str, Any]]:
    """Convert `model`, an `.onnx` with its sidecar, to `.ort` beside it; returns the path and its sidecar.

    The result must give the same output as `model` on a random input, to rounding. Raises `ArtifactError` where the
    sidecar does not speak of these bytes, `ModelError` where onnxruntime cannot convert it, `QualityError` where
    outputs differ.
    """
    source = check_path(model)
    if source.suffix != ".onnx":
        raise ConfigError(f"only .onnx becomes .ort, not {source.name}; make one with `u2net export`")
    digest = verify_artifact(source)["sha256"]
    target = source.with_suffix(".ort")
    with tempfile.TemporaryDirectory() as folder:
        made = _convert(source, Path(folder))
        difference = _difference(source, made)
        if not difference <= (MAX_INTEGER_DIFFERENCE if _is_quantized(source) else MAX_DIFFERENCE):
            raise QualityError(
                f"{target.name} gives other masks than {source.name}: they differ by {difference:.2g}; use the "
                ".onnx, which computes the same everywhere"
            )
        with atomic_path(target) as temporary:
            temporary.write_bytes(made.read_bytes())
    sidecar = write_sidecar(
        target,
        stage="ort",
        settings={"optimization_style": "Fixed"},
        inputs={"model": digest},
        figures={"max_difference_from_onnx": difference},
        libraries=("onnxruntime",),
    )
    if sha256_file(source) != digest:
        raise ModelError(f"{source} changed while it was converted; run `u2net export ort {source.name}` again")
    return target, sidecar


def _is_quantized(model: Path) -> bool:
    import onnx

    graph = onnx.load(str(model)).graph
    return any(node.op_type in QUANTIZED_OPERATORS for node in graph.node)


def _convert(source: Path, folder: Path) -> Path:
    from onnxruntime.tools.convert_onnx_models_to_ort import OptimizationStyle, convert_onnx_models_to_ort  # noqa: TID251  # u2net is imported

    said = io.StringIO()
    logging.getLogger("ort_format_model.utils").setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            convert_onnx_models_to_ort(source, folder, optimization_styles=[OptimizationStyle.Fixed])
    except Exception as error:  # onnxruntime raises its own family, which derives from Exception alone
        raise ModelError(
            f"onnxruntime cannot convert {source}: {' '.join(str(error).split())[:200]}; use the .onnx"
        ) from error
    made = folder / f"{source.stem}.ort"
    if not made.is_file():
        raise ModelError(f"onnxruntime wrote no .ort for {source}; use the .onnx")
    return made


def _difference(first: Path, second: Path) -> float:
    """Largest difference of the two models' first outputs, relative to their range, on one random input."""
    from u2net.runtime import onnxruntime

    results = []
    for path in (first, second):
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        given = session.get_inputs()[0]
        shape = [side if isinstance(side, int) else 320 for side in given.shape]
        pixels = np.random.default_rng(0).integers(0, 256, shape)
        feed = pixels.astype(np.uint8) if "uint8" in given.type else (pixels / 64 - 2).astype(np.float32)
        results.append(session.run(None, {given.name: feed})[0].astype(np.float64))
    largest = max(1.0, float(np.abs(results[0]).max()))
    return float(np.abs(results[0] - results[1]).max()) / largest

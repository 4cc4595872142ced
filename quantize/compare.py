"""Measurements side by side: what each pass brings, and this project beside the usual tools.

All contenders are calibrated on the same pictures and measured on the same others, in one run. The usual tools are
called as their documentation shows, with the weights per channel and the convolutions in float that this project keeps
in float too, so that they are not judged by what they were not told.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from datasets.calibration import CalibrationImages, CalibrationSplit, calibration_images, calibration_split
from datasets.folder import ImageFolder
from u2net.errors import ModelError

from .agreement import agreement, maps_of
from .emit import emit
from .graph import FloatGraph, load_graph
from .inputs import NetworkInputs, network_inputs
from .kernels import count_kernels
from .observe import observe
from .pipeline import plan_of, prepare, repair
from .plan import Progress
from .region import float_reasons
from .settings import QuantizeSettings

__all__ = ["ablation", "compare"]

FloatArray = npt.NDArray[np.float32]
Row = dict[str, Any]

#: Pictures that onnxruntime's calibrators hold at once: each keeps every intermediate tensor of them.
CHUNK = 4

#: Each pass switched on after the ones above it.
ABLATION: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "round to nearest, minmax ranges",
        {"method": "nearest", "calibrator": "minmax", "split": False, "equalize": False},
    ),
    ("+ MSE ranges", {"method": "nearest", "split": False, "equalize": False}),
    ("+ constant channels split", {"method": "nearest", "equalize": False}),
    ("+ channels equalized", {"method": "nearest"}),
    ("+ biases corrected layer by layer", {"method": "bias"}),
    ("+ weights refitted layer by layer (`--fast`)", {"method": "refit"}),
    ("+ integers learned (default)", {"method": "learned"}),
)
#: The defaults with one thing taken away.
WITHOUT: tuple[tuple[str, dict[str, Any]], ...] = (
    ("default without the split", {"split": False}),
    ("default without equalization", {"equalize": False}),
    ("default with minmax ranges", {"calibrator": "minmax"}),
    ("default with percentile ranges", {"calibrator": "percentile"}),
    ("default with entropy ranges", {"calibrator": "entropy"}),
)


class _Bench:
    """The float model's maps of the pictures that all contenders are measured on."""

    def __init__(
        self,
        source: str | os.PathLike[str],
        calib: str | os.PathLike[str] | None,
        data: str | os.PathLike[str] | None,
        settings: QuantizeSettings,
        progress: Progress,
    ) -> None:
        self.source = Path(source)
        self.settings = settings
        self.progress = progress
        self.graph: FloatGraph = load_graph(source)
        pictures = _pictures(calib, data, settings)
        self.calibration: NetworkInputs = network_inputs(self.graph, pictures.calibration)
        self.inputs: NetworkInputs = network_inputs(self.graph, pictures.check)
        self.reference = self._maps(self.graph.to_model(), "running float")

    def _maps(self, model: onnx.ModelProto | str, what: str) -> list[FloatArray]:
        return maps_of(model, self.graph.input, self.inputs, self.settings.threads, self.progress, what)

    def row(self, name: str, model: onnx.ModelProto, graph: FloatGraph) -> Row:
        """Measure one quantized model, made from `graph`."""
        found = agreement(self.reference, self._maps(model, f"measuring {name}"))
        try:
            share = round(count_kernels(graph, model).share, 4)
        except ModelError:
            share = 0.0
        return {
            "name": name,
            **found.summary(),
            "integer_macs_share": share,
            "size_bytes": len(model.SerializeToString(deterministic=True)),
        }


def ablation(
    source: str | os.PathLike[str],
    calib: str | os.PathLike[str] | None,
    data: str | os.PathLike[str] | None,
    settings: QuantizeSettings,
    progress: Progress,
) -> tuple[list[Row], str]:
    """What each pass brings, as rows and as a Markdown table."""
    bench = _Bench(source, calib, data, settings, progress)
    observed = observe(
        bench.graph, bench.calibration, budget=settings.samples, seed=settings.seed, threads=settings.threads,
        progress=lambda done: progress("watching the float model", done, len(bench.calibration)),
    )  # fmt: skip
    rows = []
    for name, changes in (*ABLATION, *WITHOUT):
        variant = replace(settings, **changes)
        prepared = repair(bench.graph, observed, bench.calibration, variant)
        graph, plan = plan_of(prepared, variant, progress)
        rows.append(bench.row(name, emit(graph, plan, variant.form), graph))
    return rows, _table(rows)


def compare(
    source: str | os.PathLike[str],
    calib: str | os.PathLike[str] | None,
    data: str | os.PathLike[str] | None,
    settings: QuantizeSettings,
    progress: Progress,
) -> tuple[list[Row], str]:
    """This project beside the usual tools, as rows and as a Markdown table. NNCF only where it is installed."""
    bench = _Bench(source, calib, data, settings, progress)
    contenders: list[tuple[str, Callable[[_Bench], tuple[onnx.ModelProto, FloatGraph]]]] = []
    for method in ("MinMax", "Entropy", "Percentile"):
        contenders.append((f"onnxruntime quantize_static, {method}", _onnxruntime(method)))
    if importlib.util.find_spec("nncf") is not None:
        contenders.append(("NNCF defaults", _nncf))
    contenders.append(("this project, `--fast`", _ours("refit")))
    if settings.method == "learned":
        contenders.append(("**this project**", _ours("learned")))
    rows = []
    for name, make in contenders:
        with _quiet():
            model, graph = make(bench)
        rows.append(bench.row(name, model, graph))
    return rows, _table(rows)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the tools print and log off standard output, which is for results."""
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


def _ours(method: str) -> Callable[[_Bench], tuple[onnx.ModelProto, FloatGraph]]:
    def make(bench: _Bench) -> tuple[onnx.ModelProto, FloatGraph]:
        variant = replace(bench.settings, method=method)  # type: ignore[arg-type]
        pictures = bench.calibration.pictures
        assert isinstance(pictures, CalibrationImages)
        prepared = prepare(bench.graph, pictures, variant, bench.progress)
        graph, plan = plan_of(prepared, variant, bench.progress)
        return emit(graph, plan, variant.form), graph

    return make


def _onnxruntime(method: str) -> Callable[[_Bench], tuple[onnx.ModelProto, FloatGraph]]:
    def make(bench: _Bench) -> tuple[onnx.ModelProto, FloatGraph]:
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static  # noqa: TID251  # u2net is imported

        chunk = next(size for size in range(CHUNK, 0, -1) if len(bench.calibration) % size == 0)
        with tempfile.TemporaryDirectory(prefix="compare-") as folder:
            out = Path(folder) / "int8.onnx"
            quantize_static(
                os.fspath(bench.source),
                os.fspath(out),
                _Reader(bench, method),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=[bench.graph.conv(name).node for name in float_reasons(bench.graph)],
                calibrate_method=getattr(CalibrationMethod, method),
                extra_options={"CalibStridedMinMax": chunk},
            )
            return onnx.load(out), bench.graph

    return make


class _Reader:
    """The calibration pictures as onnxruntime's quantizer asks for them, in chunks so that memory is bounded."""

    def __init__(self, bench: _Bench, what: str) -> None:
        self.bench = bench
        self.what = what
        self.set_range(0, len(bench.calibration))

    def __len__(self) -> int:
        return len(self.bench.calibration)

    def __iter__(self) -> Iterator[dict[str, npt.NDArray[Any]]]:
        while (value := self.get_next()) is not None:
            yield value

    def set_range(self, start_index: int, end_index: int) -> None:
        """Give out these pictures next."""
        self.next, self.end = start_index, end_index

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        """The next picture, or None after the last."""
        if self.next >= self.end:
            return None
        value = {self.bench.graph.input: self.bench.calibration[self.next]}
        self.next += 1
        self.bench.progress(f"quantize_static, {self.what}", self.next, len(self))
        return value


def _nncf(bench: _Bench) -> tuple[onnx.ModelProto, FloatGraph]:
    import nncf

    inputs = bench.calibration
    items = [{bench.graph.input: inputs[index]} for index in range(len(inputs))]
    quantized = nncf.quantize(onnx.load(bench.source), nncf.Dataset(items), subset_size=len(items))
    return quantized, bench.graph


def _pictures(
    calib: str | os.PathLike[str] | None, data: str | os.PathLike[str] | None, settings: QuantizeSettings
) -> CalibrationSplit:
    """What is calibrated on, and what is measured on: the pictures of `data`, or else others of the same source."""
    if data is None:
        return calibration_split(calib, settings.count, settings.check_count, settings.seed)
    measured = calibration_images(data, min(settings.check_count, len(ImageFolder(data))), settings.seed)
    return CalibrationSplit(calibration_images(calib, settings.count, settings.seed), measured)


def _table(rows: list[Row]) -> str:
    lines = [
        "| | mean IoU | 5th percentile | worst | MAE | integer MACs | bytes |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        lines.append(
            f"| {row['name']} | {row['iou_mean']:.4f} | {row['iou_p5']:.4f} | {row['iou_min']:.4f} "
            f"| {row['mae_mean']:.5f} | {row['integer_macs_share']:.1%} | {row['size_bytes']:,} |"
        )
    pictures = rows[0]["pictures"] if rows else 0
    return "\n".join([*lines, "", f"Against the float model's masks at 0.5 on {pictures} pictures not calibrated on."])

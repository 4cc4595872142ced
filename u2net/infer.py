"""The network, run by onnxruntime: a picture in, its saliency map out.

A model file is read once into memory and looked at before the engine sees it (`onnx_scan`): external data, which would
let a model read other files, is refused, and so is a graph that is not a U²-Net. What the graph declares as inputs and
outputs decides; the metadata written by the exporter (`u2net.size`, `u2net.interface`) must agree with it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from .cores import inference_threads
from .errors import ConfigError, ModelError, U2NetError
from .files import check_path
from .onnx_scan import OnnxSummary, scan
from .preprocess import network_input, read_size, sides

if TYPE_CHECKING:
    from .runtime import onnxruntime

__all__ = ["Session"]

Interface = Literal["tensor", "image"]
FloatArray = npt.NDArray[np.float32]

_MAX_MODEL_BYTES = 1 << 30  # `full` in float32 has 176 MB
_CONVOLUTIONS = 112  # of the paper's eleven stages, side maps not counted; every exported form has at least these
_CONVOLUTION_TYPES = ("Conv", "QLinearConv", "ConvInteger", "FusedConv", "NhwcConv", "NhwcFusedConv")
_DEFAULT_SIZE = 320  # where a graph leaves its size open and its metadata says nothing
_MAX_SIZE = 2048
_IMAGE_CHANNELS = 4


class Session:
    """A loaded model.

    `input_size` is the (height, width) in pixels of the picture that the network sees, `interface` says what it takes:
    `tensor` (normalised float NCHW) or `image` (uint8 RGBA NHWC); see `preprocess`. `threads` is the number of cores
    that one inference uses, by default `cores.inference_threads()`.

    Raises `ModelError` where the file is missing, damaged, refused, or not a U²-Net.
    """

    def __init__(self, model_path: str | os.PathLike[str], threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise ConfigError(f"threads must be at least 1, got {threads}")
        self.model_path = Path(model_path)
        self.threads = threads or inference_threads()
        try:
            data = _read_model(self.model_path)
            summary = scan(data)
            if summary.external_data:
                raise ModelError("external data (weights in other files) is refused; export it as one file")
            self.metadata: dict[str, str] = summary.metadata
            self._engine = _start_engine(data, self.threads)
            self.interface, self.input_size = _contract(self._engine, summary)
        except U2NetError as error:
            raise ModelError(f"{repr(str(self.model_path))[1:-1]}: {error}") from error
        self._input = self._engine.get_inputs()[0]
        self._output = self._engine.get_outputs()[0]

    @property
    def size(self) -> int:
        """The side of the square picture that the network sees. Raises `ModelError` where it is not square."""
        height, width = self.input_size
        if height != width:
            raise ModelError(
                f"{self.model_path}: its pictures are {height} high and {width} wide; a square one is needed here, as "
                "`u2net export --size 320` makes it"
            )
        return height

    def saliency(self, rgb: npt.NDArray[np.uint8], mirrored: bool = False) -> FloatArray:
        """The saliency map, float32 (height, width) in [0, 1], of a picture, uint8 (H, W, 3) sRGB.

        `mirrored` turns the network's input round, left to right, and its map back: another opinion of the same.
        Raises `ModelError` where the model yields no finite numbers.
        """
        tensor = self.prepare(rgb)
        if not mirrored:
            return self.run(tensor)
        across = 3 if self.interface == "tensor" else 2
        return np.ascontiguousarray(self.run(np.ascontiguousarray(np.flip(tensor, across)))[:, ::-1])

    def prepare(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.generic]:
        """The network's input for a picture, uint8 (H, W, 3): float (1, 3, h, w) or uint8 (1, h, w, 4)."""
        prepared = network_input(rgb, self.input_size, self.interface)
        return prepared.astype(np.float16) if self._input.type == "tensor(float16)" else prepared

    def run(self, tensor: npt.NDArray[np.generic]) -> FloatArray:
        """The saliency map, float32 (height, width) in [0, 1], of an input made by `prepare`."""
        try:
            result = self._engine.run([self._output.name], {self._input.name: tensor})[0]
        except Exception as error:  # onnxruntime raises its own family, which derives from Exception alone
            raise ModelError(f"{self.model_path}: the engine failed: {_one_line(error)}") from error
        array = np.asarray(result)
        if array.size != self.input_size[0] * self.input_size[1]:
            raise ModelError(f"{self.model_path}: gave a map of shape {array.shape}, not {self.input_size}")
        scale = np.float32(1 / 255) if array.dtype == np.uint8 else np.float32(1)
        saliency = array.reshape(self.input_size).astype(np.float32) * scale
        if not np.isfinite(saliency).all():
            raise ModelError(f"{self.model_path}: gave values that are not finite numbers")
        return np.clip(saliency, 0.0, 1.0, out=saliency)


def _read_model(path: Path) -> bytes:
    check_path(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ModelError("not a regular file")
            data = file.read(_MAX_MODEL_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > _MAX_MODEL_BYTES:
        raise ModelError(f"larger than {_MAX_MODEL_BYTES:,} bytes")
    return data


def _start_engine(data: bytes, threads: int) -> onnxruntime.InferenceSession:
    try:
        from .runtime import onnxruntime
    except ImportError as error:
        raise ModelError(f"onnxruntime is not installed ({error})") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # its warnings go to stderr in many lines; errors come back as exceptions
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.enable_mem_pattern = True
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own family, which derives from Exception alone
        raise ModelError(f"the engine refuses it: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    line = " ".join(str(error).split()) or type(error).__name__
    return line if len(line) <= 240 else line[:240] + "…"


def _contract(engine: onnxruntime.InferenceSession, summary: OnnxSummary) -> tuple[Interface, tuple[int, int]]:
    """Interface, and height and width, that the graph declares. Raises `ModelError` where they are not a U²-Net's."""
    inputs, outputs = engine.get_inputs(), engine.get_outputs()
    if len(inputs) != 1 or not outputs:
        raise ModelError(f"not a U²-Net: it has {len(inputs)} inputs and {len(outputs)} outputs")
    shape, dtype = inputs[0].shape, inputs[0].type
    interface: Interface
    if dtype in ("tensor(float)", "tensor(float16)") and len(shape) == 4 and shape[1] == 3:
        interface, open_sides = "tensor", shape[2:]
    elif dtype == "tensor(uint8)" and len(shape) == 4 and shape[3] == _IMAGE_CHANNELS:
        interface, open_sides = "image", shape[1:3]
    else:
        raise ModelError(f"not a U²-Net: its input is {dtype} {_shape(shape)}")
    if isinstance(shape[0], int) and shape[0] != 1:
        raise ModelError(f"it takes {shape[0]} pictures at a time; export it with `--batch 1` or `--batch dynamic`")
    said = summary.metadata.get("u2net.size")
    stated = None if said is None else read_size(said)
    if said is not None and stated is None:
        raise ModelError(f"its metadata says u2net.size = {said[:40]!r}")
    fixed = [side if isinstance(side, int) and side > 0 else None for side in open_sides]
    meant = sides(stated or fixed[0] or fixed[1] or _DEFAULT_SIZE)
    expected = fixed[0] or meant[0], fixed[1] or meant[1]
    if stated is not None and expected != meant:
        raise ModelError(f"its input {_shape(shape)} does not agree with size {said}")
    if not all(32 <= side <= _MAX_SIZE for side in expected):
        raise ModelError(f"its input has sides {expected}; 32 to {_MAX_SIZE} is supported")
    if summary.metadata.get("u2net.interface", interface) != interface:
        raise ModelError(f"its metadata says interface {summary.metadata['u2net.interface'][:40]!r}, its input {dtype}")
    if outputs[0].type not in ("tensor(float)", "tensor(float16)", "tensor(uint8)") or not _is_map(
        outputs[0].shape, expected
    ):
        raise ModelError(f"not a U²-Net: its output is {outputs[0].type} {_shape(outputs[0].shape)}")
    convolutions = sum(summary.operators[name] for name in _CONVOLUTION_TYPES)
    if convolutions < _CONVOLUTIONS:
        raise ModelError(f"not a U²-Net: it has {convolutions} convolutions, a U²-Net at least {_CONVOLUTIONS}")
    return interface, expected


def _shape(shape: Sequence[int | str | None]) -> str:
    return "(" + ", ".join(str(side)[:20] for side in shape) + ")"


def _is_map(shape: Sequence[int | str | None], size: tuple[int, int]) -> bool:
    """Whether `shape`, ones left out, can be `size`, free sides being of any length."""
    given = [side for side in shape if side != 1]
    fixed = [side for side in given if isinstance(side, int)]
    return len(fixed) <= 2 <= len(given) and (tuple(fixed) == size if len(fixed) == 2 else set(fixed) <= set(size))

"""Whoever is to be learned from: checkpoints of this family, any ONNX segmentation network, or maps that lie ready.

Notable choices:

- a teacher gives logits (N, 1, S, S) of one map, so that several teachers, and a picture with its mirror image, are
  averaged where averaging belongs, before the sigmoid;
- a network that is not of this family is described by a TOML file beside its `.onnx` (see `OnnxSettings`). It gets the
  picture at its own resolution: ISNet at 320 pixels is a far worse teacher than at 1,024;
- maps that lie ready are a folder of PNG or WebP files named as the pictures, or an `.npz` of `names`, `off`, `blob`.
"""

from __future__ import annotations

import io
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from u2net.errors import ConfigError, DataError
from u2net.files import sha256_bytes, sha256_file
from u2net.network.checkpoint import load_checkpoint
from u2net.network.model import U2Net
from u2net.preprocess import resize_bilinear, resize_for_network

from .forward import normalise_batch, prepare_teacher

__all__ = ["MapsTeacher", "NetworkTeacher", "OnnxSettings", "OnnxTeacher", "Teacher", "load_teacher", "mean_map"]

ByteArray = npt.NDArray[np.uint8]
LEAST, MOST = 1.0 / 1024, 1.0 - 1.0 / 1024  # of a probability whose logit is taken: maps in 8 bits know no more


class Teacher(Protocol):
    """`fingerprint` changes with whatever changes its answers."""

    fingerprint: str

    def logits(self, stems: Sequence[str], pictures: Sequence[ByteArray], size: int) -> Tensor:
        """Float32 (N, 1, size, size) of pictures uint8 (H, W, 3), which may be of any size each."""


class NetworkTeacher:
    """A U²-Net at `size` pixels and, averaged, at further `scales`. `fast` is bfloat16 where that is safe."""

    def __init__(self, model: U2Net, flip: bool = True, scales: Sequence[int] = (), fast: bool = False) -> None:
        tensors = sorted(model.state_dict().items())
        weights = sha256_bytes(b"".join(v.detach().cpu().numpy().tobytes() for _, v in tensors))
        self.fingerprint = f"{weights} flip={flip} scales={list(scales)} fast={fast}"
        self.model, self.flip, self.scales, self.fast = prepare_teacher(model, fast), flip, tuple(scales), fast

    @torch.inference_mode()
    def logits(self, stems: Sequence[str], pictures: Sequence[ByteArray], size: int) -> Tensor:
        found = []
        for side in (size, *self.scales):
            pixels = torch.from_numpy(np.stack([resize_for_network(p, side) for p in pictures])).permute(0, 3, 1, 2)
            x = normalise_batch(pixels)
            for mirrored in (False, True) if self.flip else (False,):
                with torch.autocast("cpu", torch.bfloat16, enabled=self.fast):
                    z = self.model.native_logits((x.flip(-1) if mirrored else x).contiguous())[0].float()
                z = F.interpolate(z, size=(size, size), mode="bilinear", align_corners=False)
                found.append(z.flip(-1) if mirrored else z)
        return torch.stack(found).mean(0)


@dataclass(frozen=True)
class OnnxSettings:
    """What an ONNX segmentation network wants and gives: the keys of `NAME.toml` beside `NAME.onnx`."""

    size: int = 1024  # side in pixels of its square input
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # of ImageNet, which most networks were trained with
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    divide: float = 255.0  # pixels are divided by it before the mean is taken off
    output: str = ""  # name of the output with the map (N, 1, h, w); the first one by default
    gives: str = "probability"  # or "logit": whether the last sigmoid is still to be done
    flip: bool = True  # averaged with the mirrored picture's map: a stronger teacher for one more pass

    def __post_init__(self) -> None:
        if self.size < 16 or self.divide <= 0 or len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ConfigError("a teacher's size, divide and std must be positive, mean and std three numbers each")
        if self.gives not in ("probability", "logit"):
            raise ConfigError(f'gives must be "probability" or "logit", not {self.gives!r}')

    @classmethod
    def read(cls, path: Path) -> OnnxSettings:
        """The settings in the TOML file at `path`; `ConfigError`, one line, where they cannot work."""
        try:
            values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
            known = {f.name for f in fields(cls)}
            if set(values) - known:
                raise ConfigError(
                    f"{path}: there is no setting {sorted(set(values) - known)[0]}; there are {sorted(known)}"
                )
            for name in ("mean", "std"):
                if name in values:
                    values[name] = tuple(float(v) for v in values[name])
            return cls(**values)
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{path} is not the description of a teacher ({error}); see docs/training.md for what it must have"
            ) from error


class OnnxTeacher:
    """Any ONNX segmentation network, run by onnxruntime on the CPU."""

    def __init__(self, path: Path, settings: OnnxSettings) -> None:
        from u2net.runtime import onnxruntime

        self.settings = settings
        self.fingerprint = f"{sha256_file(path)} {settings}"
        try:
            self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own types, one for each status
            raise ConfigError(f"{path} cannot be run: {' '.join(str(error).split())[:200]}") from error
        names = [output.name for output in self.session.get_outputs()]
        if settings.output and settings.output not in names:
            raise ConfigError(f"{path} has no output {settings.output}; there are {', '.join(names)}")
        self.output = settings.output or names[0]
        self.input = self.session.get_inputs()[0].name

    def _logit(self, picture: ByteArray, size: int) -> Tensor:
        s = self.settings
        pixels = resize_bilinear(picture, s.size, s.size).astype(np.float32) / s.divide
        x = (
            ((pixels - np.array(s.mean, np.float32)) / np.array(s.std, np.float32))
            .transpose(2, 0, 1)[None]
            .astype(np.float32)
        )
        found = torch.from_numpy(np.asarray(self.session.run([self.output], {self.input: x})[0], dtype=np.float32))
        if found.ndim != 4 or found.shape[:2] != (1, 1):
            raise DataError(
                f"the teacher's output {self.output} is of shape {tuple(found.shape)}, not 1×1×h×w; name another "
                "output in the .toml beside it"
            )
        if s.gives == "probability":
            found = found.clamp(LEAST, MOST).logit()
        return F.interpolate(found, size=(size, size), mode="bilinear", align_corners=False, antialias=True)

    def logits(self, stems: Sequence[str], pictures: Sequence[ByteArray], size: int) -> Tensor:
        found = [self._logit(picture, size) for picture in pictures]
        if self.settings.flip:
            mirrored = [self._logit(np.ascontiguousarray(p[:, ::-1]), size).flip(-1) for p in pictures]
            found = [(a + b) / 2 for a, b in zip(found, mirrored, strict=True)]
        return torch.cat(found)


class MapsTeacher:
    """Maps that lie ready, as greyscale pictures of 255 · probability."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: dict[str, Path] = {}
        self.parts: dict[str, bytes] = {}
        if path.is_dir():
            self.files = {p.stem: p for p in sorted(path.iterdir()) if p.suffix.lower() in (".png", ".webp")}
            self.fingerprint = f"{path.name}: {len(self.files)} maps"
        else:
            try:
                with np.load(path, allow_pickle=False) as stored:
                    names, offsets, blob = stored["names"], stored["off"], stored["blob"].tobytes()
                    self.parts = {str(n): blob[a:b] for n, a, b in zip(names, offsets[:-1], offsets[1:], strict=True)}
            except (OSError, KeyError, ValueError) as error:
                raise DataError(f"{path} holds no teacher's maps, which need names, off and blob: {error}") from error
            self.fingerprint = sha256_file(path)

    def logits(self, stems: Sequence[str], pictures: Sequence[ByteArray], size: int) -> Tensor:
        found = []
        for stem in stems:
            if stem not in self.parts and stem not in self.files:
                raise DataError(f"{self.path} has no map of {stem}; give one for each picture")
            source = io.BytesIO(self.parts[stem]) if stem in self.parts else self.files[stem]
            with Image.open(source) as image:
                grey = np.asarray(image.convert("L"), dtype=np.float32) / 255.0
            found.append(torch.from_numpy(resize_bilinear(grey, size, size)))
        return torch.stack(found)[:, None].clamp(LEAST, MOST).logit()


def load_teacher(path: Path, flip: bool = True, scales: Sequence[int] = (), fast: bool = False) -> Teacher:
    """The teacher at `path`: maps where it is a folder or `.npz`, any network where a TOML lies beside an `.onnx`, else
    a checkpoint of this family, for which alone the other arguments are."""
    if path.is_dir() or path.suffix == ".npz":
        return MapsTeacher(path)
    description = path.with_suffix(".toml")
    if path.suffix == ".onnx" and description.is_file():
        return OnnxTeacher(path, OnnxSettings.read(description))
    return NetworkTeacher(load_checkpoint(path), flip, scales, fast)


def mean_map(teachers: Sequence[Teacher], stems: Sequence[str], pictures: Sequence[ByteArray], size: int) -> Tensor:
    """The sigmoid of the mean of all teachers' logits, float32 (N, 1, size, size)."""
    return torch.sigmoid(torch.stack([t.logits(stems, pictures, size) for t in teachers]).mean(0))

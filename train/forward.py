"""How a network is fed and run in training: normalised pictures in, and a teacher that is fit for 16 bits."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from u2net.network.model import RSU, STAGE_NAMES, U2Net
from u2net.preprocess import MEAN, STD

__all__ = ["LARGE_BIAS", "memory_format", "normalise_batch", "prepare_teacher"]

LARGE_BIAS = 200.0  # small: stage2d has 228 and 1361, stage1d 113, every other stage is below 60


def memory_format(device: torch.device) -> torch.memory_format:
    """What training is fastest in: channels last on GPUs, and on CPUs whose instructions multiply matrices (AMX).

    On those a step of `small-fast` in bfloat16 takes 0.64 of the time so, and in float32 as long as before. On a CPU
    that has AVX2 alone it takes twice as long backward.
    """
    if device.type == "cuda":
        return torch.channels_last
    known: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of torch have none
    return torch.channels_last if known.get("amx_bf16") else torch.contiguous_format


def normalise_batch(pictures: Tensor) -> Tensor:
    """Steps 3 and 4 of `u2net.preprocess` for a batch: (N, 3, H, W) in any range from 0 up to normalised float32."""
    x = pictures.float()
    peak = x.amax((1, 2, 3), keepdim=True)
    x = x / torch.where(peak > 0, peak, torch.ones_like(peak))
    mean = torch.tensor(MEAN, device=x.device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=x.device).view(1, 3, 1, 1)
    return (x - mean) / std


def _keep_float32(stage: RSU) -> None:
    forward: Callable[[Tensor], Tensor] = stage.forward

    def in_float32(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return forward(x.float())

    stage.forward = in_float32  # type: ignore[method-assign]


def prepare_teacher(model: U2Net, fast: bool) -> U2Net:
    """A copy of `model` to ask for maps or features: in evaluation mode and, with `fast`, fit to be run in 16 bits.

    In bfloat16 the almost constant channels of the authors' small model lose their signal (mask IoU with float32
    0.954); with the stages of a folded bias above `LARGE_BIAS` left in float32 it is 0.997.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    if fast:
        for name in STAGE_NAMES:
            stage = model.get_submodule(name)
            largest = max(float(p.abs().max()) for n, p in stage.named_parameters() if n.endswith("bias"))
            if largest > LARGE_BIAS and isinstance(stage, RSU):
                _keep_float32(stage)
    return model

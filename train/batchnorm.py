"""True batch-norm statistics for networks that have none: published weights, folded exports, freshly pruned ones."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from u2net.network.model import U2Net

__all__ = ["is_folded", "norms", "rebase_batch_norm", "recalibrate"]


def norms(model: U2Net) -> dict[str, nn.BatchNorm2d]:
    """Every batch norm of `model` by its name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}


def is_folded(model: U2Net) -> bool:
    """Whether batch norm was folded into the convolutions: every mean is 0 and every variance 1, but for eps."""
    found = [(norm.running_mean, norm.running_var) for norm in norms(model).values()]
    return all(
        mean is None or variance is None or (not bool(mean.any()) and bool(((variance - 1).abs() < 1e-2).all()))
        for mean, variance in found
    )


class _Moments:
    """Mean and variance per channel of what enters a batch norm."""

    def __init__(self) -> None:
        self.count = 0
        self.total = torch.zeros(0)
        self.squares = torch.zeros(0)

    def __call__(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        # Against the first picture's mean: almost constant channels of a thousand lose their variance in float32.
        x = inputs[0].detach()
        if not self.count:
            self.shift = x[:1].mean((0, 2, 3), keepdim=True)
            self.total = self.squares = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
        x = x - self.shift
        self.count += x.numel() // x.shape[1]
        self.total = self.total + x.sum((0, 2, 3), dtype=torch.float64)
        self.squares = self.squares + x.square().sum((0, 2, 3), dtype=torch.float64)

    def result(self) -> tuple[Tensor, Tensor]:
        mean = self.total / self.count
        variance = (self.squares / self.count - mean * mean).clamp(min=0)
        return (mean + self.shift.flatten().double()).float(), variance.float()


def rebase_batch_norm(model: U2Net, batches: Iterable[Tensor]) -> None:
    """Give each batch norm the running statistics of normalised `batches` (N, 3, H, W), in place, same function.

    Checkpoints with folded batch norm hold identities; trained on, they would normalise by 1 in one mode and by the
    batch in the other. The scale and shift are adjusted so that the network's output does not change.
    """
    found = norms(model)
    moments = {name: _Moments() for name in found}
    handles = [norm.register_forward_pre_hook(moments[name]) for name, norm in found.items()]
    model.eval()
    with torch.no_grad():
        for x in batches:
            model.native_logits(x)
        for handle in handles:
            handle.remove()
        for name, norm in found.items():
            mean, variance = moments[name].result()
            assert norm.running_mean is not None and norm.running_var is not None
            slope = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            norm.bias.add_((mean - norm.running_mean) * slope)
            norm.weight.copy_(slope * torch.sqrt(variance + norm.eps))
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)


def recalibrate(model: U2Net, batches: Iterable[Tensor]) -> None:
    """Set every batch norm's running statistics to those of normalised `batches`, in place, as training mode sees them.

    For a network whose channels were just removed: what a missing constant shifted, the next batch norm takes back.
    """
    found = list(norms(model).values())
    kept = [norm.momentum for norm in found]
    for norm in found:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    model.train()
    with torch.no_grad():
        for x in batches:
            model.native_logits(x)
    for norm, momentum in zip(found, kept, strict=True):
        norm.momentum = momentum
    model.eval()

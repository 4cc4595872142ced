"""After pruning: what is left learns, in closed form, to give what it gave before.

A convolution that lost input channels is off by what they carried, and every layer after it adds to that. Here each
convolution in turn, in forward order, gets the weights and the bias that bring its output nearest to the whole
network's, by least squares over pixels of some pictures (He, Zhang & Sun, "Channel Pruning for Accelerating Very Deep
Neural Networks", ICCV 2017, section 3.2, over all layers as they propose for whole models). It reads what the pruned
network really feeds it, so errors of earlier layers are made good by later ones as far as these can. No gradient, no
rate, no steps: the result follows from the pictures.

Batch norm becomes a part of the convolutions; call `rebase_batch_norm` before training on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from u2net.network.model import REBNCONV, SIDE_STAGES, STAGES, U2Net, upsample_to

from .prune import convolution, producers

__all__ = ["reconstruct"]

PIXELS = 512  # of each picture, that a convolution is fitted to: neighbours say little new, other pictures do
RIDGE = 1e-3  # pull towards the weights that there were, of each input's own power: holds what the pixels do not show


class _Reached(Exception):
    """The convolution whose input is wanted."""


@dataclass(frozen=True)
class _Target:
    """What a convolution of the pruned network has to give of one picture, (places, outputs), and where."""

    places: Tensor
    values: Tensor


class _Half(dict[str, Tensor]):
    """What the stages give of one picture, kept in float16 and given back in float32: half of the memory."""

    def __setitem__(self, stage: str, value: Tensor) -> None:
        super().__setitem__(stage, value.half())

    def __getitem__(self, stage: str) -> Tensor:
        return super().__getitem__(stage).float()


def reconstruct(
    model: U2Net,
    whole: U2Net,
    kept: dict[str, Tensor],
    pictures: Sequence[Tensor],
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> None:
    """Fit `model`, pruned from `whole` to the channels `kept`, to give what `whole` gives on `pictures`, in place.

    `kept` is `prune.kept_channels`'s; `pictures` are normalised, float32 (1, 3, S, S), all of one size. What the pruned
    stages give for all of them is held in memory: 20 MB for a picture of 320 pixels where `small` has lost nothing.
    """
    pixels = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        targets = [_targets(whole, kept, x, pixels) for x in pictures]
        outputs: list[dict[str, Tensor]] = [_Half() for _ in pictures]
        for number, (stage, _, _) in enumerate(STAGES):
            for name, block in model.get_submodule(stage).named_children():
                if not isinstance(block, REBNCONV):
                    continue
                _fold(block)
                seen = (_input_of(model, stage, block, x, found) for x, found in zip(pictures, outputs, strict=True))
                _fit(block.conv_s1, seen, [target[f"{stage}.{name}"] for target in targets])
            for x, found in zip(pictures, outputs, strict=True):
                found[stage] = model.get_submodule(stage)(model.stage_input(stage, x, found))
            progress("fitting what is left", number + 1, len(STAGES))
        for index, stage in enumerate(SIDE_STAGES, 1):
            _fit(convolution(model, f"side{index}"), (o[stage] for o in outputs), [t[f"side{index}"] for t in targets])
        sides = (model.maps(found)[1:] for found in outputs)
        joined = (torch.cat([upsample_to(side, found[0]) for side in found], 1) for found in sides)
        _fit(model.outconv, joined, [target["outconv"] for target in targets])


def _targets(whole: U2Net, kept: dict[str, Tensor], x: Tensor, pixels: torch.Generator) -> dict[str, _Target]:
    """What `whole` gives of picture `x` in the channels that stay: of each block before its ReLU, and of each map."""
    found: dict[str, _Target] = {}
    channels: dict[str, Tensor | slice] = {producer.name: kept[producer.space] for producer in producers(whole.config)}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def take(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            count = output.shape[2] * output.shape[3]
            few = torch.randperm(count, generator=pixels)[:PIXELS] if count > PIXELS else torch.arange(count)
            values = output[0].flatten(1)[channels.get(name, slice(None))]
            found[name] = _Target(few, values[:, few].T.contiguous())

        return take

    watched = {producer: f"{producer}.bn_s1" for producer in channels}
    watched |= {name: name for name in (*(f"side{index}" for index in range(1, 7)), "outconv")}
    hooks = [whole.get_submodule(module).register_forward_hook(keep(name)) for name, module in watched.items()]
    try:
        whole.native_logits(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _input_of(model: U2Net, stage: str, block: REBNCONV, x: Tensor, outputs: dict[str, Tensor]) -> Tensor:
    """What a block of a stage gets to see, with what the stages before have given in `outputs`."""
    found: list[Tensor] = []

    def stop(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append(inputs[0])
        raise _Reached

    hook = block.register_forward_pre_hook(stop)
    try:
        model.get_submodule(stage)(model.stage_input(stage, x, outputs))
    except _Reached:
        pass
    finally:
        hook.remove()
    return found[0]


def _fold(block: REBNCONV) -> None:
    """Make the batch norm of `block` a part of its convolution, and an identity, in place."""
    conv, norm = block.conv_s1, block.bn_s1
    assert conv.bias is not None
    weight, bias = block.folded()
    conv.weight.copy_(weight)
    conv.bias.copy_(bias)
    norm.reset_running_stats()
    norm.weight.fill_((1 + norm.eps) ** 0.5)
    norm.bias.zero_()


def _windows(x: Tensor, conv: nn.Conv2d, places: Tensor) -> Tensor:
    """What `conv` sees of `x`, (1, C, H, W), at `places` of its output: float64 (places, C · k · k + 1), a 1 last."""
    k, d, p = int(conv.kernel_size[0]), int(conv.dilation[0]), int(conv.padding[0])
    padded = F.pad(x[0], (p, p, p, p))
    across = padded.shape[2]
    first = torch.div(places, x.shape[3], rounding_mode="floor") * across + places % x.shape[3]
    flat = padded.flatten(1)
    taps = [flat[:, first + d * (row * across + column)] for row in range(k) for column in range(k)]
    seen = torch.stack(taps, 1).flatten(0, 1).T.double()
    return torch.cat([seen, seen.new_ones(len(seen), 1)], 1)


def _fit(conv: nn.Conv2d, inputs: Iterable[Tensor], targets: Sequence[_Target]) -> None:
    """Give `conv` the weights with the least squares, in place; `inputs` are (1, C, H, W), one for each of `targets`.

    Minimises |X w − y|² + Σ λ |w − w₀|², w₀ the weights that there are and λ `RIDGE` of the input's own power, by the
    normal equations in float64.
    """
    assert conv.bias is not None
    before = torch.cat([conv.weight.flatten(1), conv.bias[:, None]], 1).T.double()
    square, product = before.new_zeros(len(before), len(before)), torch.zeros_like(before)
    for x, target in zip(inputs, targets, strict=True):
        seen = _windows(x, conv, target.places)
        square.addmm_(seen.T, seen)
        product.addmm_(seen.T, target.values.double())
    power = square.diagonal()
    pull = RIDGE * (power + 1e-3 * power.mean() + 1e-12)
    found = torch.linalg.solve(square + torch.diag(pull), product + pull[:, None] * before).T.float()
    conv.weight.copy_(found[:, :-1].reshape(conv.weight.shape))
    conv.bias.copy_(found[:, -1])

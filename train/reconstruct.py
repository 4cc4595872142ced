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

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from u2net.network.model import REBNCONV, SIDE_STAGES, STAGES, U2Net, upsample_to

from .prune import producers

__all__ = ["reconstruct"]

PIXELS = 1024  # of each picture, that a convolution is fitted to: more say little new, they lie close together
RIDGE = 1e-3  # pull towards the weights that there were, of each input's own power: holds what the pixels do not show


class _Reached(Exception):
    """The convolution whose input is wanted."""


def reconstruct(
    model: U2Net,
    whole: U2Net,
    kept: dict[str, Tensor],
    pictures: Sequence[Tensor],
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> None:
    """Fit `model`, pruned from `whole` to the channels `kept`, to give what `whole` gives on `pictures`, in place.

    `kept` is `prune.kept_channels`'s; `pictures` are normalised, float32 (1, 3, S, S), all of one size. What the stages
    give for all of them is held in memory: twice some 35 MB for a picture of 320 pixels and 64 channels.
    """
    spaces = {producer.name: producer.space for producer in producers(whole.config)}
    pixels = torch.Generator().manual_seed(0)
    given: list[dict[str, Tensor]] = [{} for _ in pictures]  # by the pruned network's stages
    wanted: list[dict[str, Tensor]] = [{} for _ in pictures]  # by the whole one's
    with torch.inference_mode():
        for number, (name, _, _) in enumerate(STAGES):
            stage = model.get_submodule(name)
            blocks = [block for block, module in stage.named_children() if isinstance(module, REBNCONV)]
            places: dict[str, list[Tensor]] = {block: [] for block in blocks}
            targets: dict[str, list[Tensor]] = {block: [] for block in blocks}
            for x, outputs in zip(pictures, wanted, strict=True):
                outputs[name], found = _watched(whole, name, whole.stage_input(name, x, outputs), blocks)
                for block in blocks:
                    values = found[block][0, kept[spaces[f"{name}.{block}"]]]
                    places[block].append(_some(values.shape[1] * values.shape[2], pixels))
                    targets[block].append(values.flatten(1)[:, places[block][-1]].T.contiguous())
            for block in blocks:
                module = stage.get_submodule(block)
                assert isinstance(module, REBNCONV)
                _fold(module)
                inputs = (_input_of(model, name, module, x, outs) for x, outs in zip(pictures, given, strict=True))
                _fit(module.conv_s1, zip(inputs, places[block], targets[block], strict=True))
            for x, outputs in zip(pictures, given, strict=True):
                outputs[name] = stage(model.stage_input(name, x, outputs))
            progress("fitting what is left", number + 1, len(STAGES))
        _fit_maps(model, whole, given, wanted, pixels)


def _watched(model: U2Net, stage: str, x: Tensor, blocks: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """What a stage gives for `x`, and what its blocks give before their ReLU."""
    found: dict[str, Tensor] = {}
    module = model.get_submodule(stage)

    def keep(block: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda _, inputs, output: found.__setitem__(block, output)

    hooks = [module.get_submodule(f"{block}.bn_s1").register_forward_hook(keep(block)) for block in blocks]
    try:
        return module(x), found
    finally:
        for hook in hooks:
            hook.remove()


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


def _some(count: int, generator: torch.Generator) -> Tensor:
    """Indices of up to `PIXELS` of `count` pixels."""
    return torch.arange(count) if count <= PIXELS else torch.randperm(count, generator=generator)[:PIXELS]


def _fold(block: REBNCONV) -> None:
    """Make the batch norm of `block` a part of its convolution, and an identity, in place."""
    conv, norm = block.conv_s1, block.bn_s1
    assert norm.running_mean is not None and norm.running_var is not None and conv.bias is not None
    slope = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    conv.weight.mul_(slope.reshape(-1, 1, 1, 1))
    conv.bias.copy_((conv.bias - norm.running_mean) * slope + norm.bias)
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


def _fit(conv: nn.Conv2d, samples: Iterator[tuple[Tensor, Tensor, Tensor]]) -> None:
    """Give `conv` the weights with the least squares over `samples`, in place.

    A sample is (input (1, C, H, W), places, target (places, outputs)). Minimises |X w − y|² + Σ λ |w − w₀|², w₀ the
    weights that there are and λ `RIDGE` of the input's own power, by the normal equations in float64.
    """
    assert conv.bias is not None
    before = torch.cat([conv.weight.flatten(1), conv.bias[:, None]], 1).T.double()
    square, product = before.new_zeros(len(before), len(before)), torch.zeros_like(before)
    for x, places, target in samples:
        seen = _windows(x, conv, places)
        square.addmm_(seen.T, seen)
        product.addmm_(seen.T, target.double())
    power = square.diagonal()
    pull = RIDGE * (power + 1e-3 * power.mean() + 1e-12)
    found = torch.linalg.solve(square + torch.diag(pull), product + pull[:, None] * before).T.float()
    conv.weight.copy_(found[:, :-1].reshape(conv.weight.shape))
    conv.bias.copy_(found[:, -1])


def _fit_maps(
    model: U2Net,
    whole: U2Net,
    given: list[dict[str, Tensor]],
    wanted: list[dict[str, Tensor]],
    pixels: torch.Generator,
) -> None:
    """Fit the six maps, then how they are fused, in place."""
    maps = [whole.maps(outputs) for outputs in wanted]
    for index, name in enumerate(SIDE_STAGES, 1):
        conv = model.get_submodule(f"side{index}")
        assert isinstance(conv, nn.Conv2d)
        _fit(conv, _at(((outputs[name], found[index]) for outputs, found in zip(given, maps, strict=True)), pixels))

    def sides(outputs: dict[str, Tensor]) -> Tensor:
        found = model.maps(outputs)[1:]
        return torch.cat([upsample_to(side, found[0]) for side in found], 1)

    fused = ((sides(outputs), found[0]) for outputs, found in zip(given, maps, strict=True))
    _fit(model.outconv, _at(fused, pixels))


def _at(pairs: Iterator[tuple[Tensor, Tensor]], pixels: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Samples of (input, output) pairs, for `_fit`."""
    for x, output in pairs:
        places = _some(output.shape[2] * output.shape[3], pixels)
        yield x, places, output[0].flatten(1)[:, places].T

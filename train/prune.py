"""Smaller networks out of trained ones: true batch norm, channels removed where they cost most, half-resolution stems.

What to remove is guided by latency in the browser, not by parameters. There, convolutions are nearly all of the time,
and 93 % of the multiplications of a U²-Net are in stages 1, 2, 2d and 1d, so a target gives widths per stage: thin
outside, wide inside where a channel is almost free. `macs` says what a configuration costs.

Channels are ranked by the first-order Taylor criterion on the batch-norm scale (Molchanov et al., "Importance
Estimation for Neural Network Pruning", CVPR 2019): Σ (γ · ∂L/∂γ)², summed over the producers that must keep the same
channels because a residual addition ties them.

Without `first_pool` a stem of 2 leaves every stage but 1 and 1d at the resolution where it was trained, so what is left
to learn is local: stage 1 must give at half resolution what the larger network's stage 1 gives after pooling.
`align_first_stage` teaches it that, which is far cheaper than training the whole network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from u2net.errors import ConfigError
from u2net.network.model import STAGES, U2Net, U2NetConfig, build_model

from .augment import Pictures, side_targets
from .batchnorm import rebase_batch_norm, recalibrate
from .cache import Cache
from .config import PruneSettings
from .forward import normalise_batch
from .losses import LossWeights, distillation_loss
from .validation import held_out, map_sides, validate

__all__ = [
    "absorb_constants",
    "align_first_stage",
    "convolution",
    "kept_channels",
    "macs",
    "make_start",
    "producers",
    "prune",
    "taylor",
    "to_stem",
]


@dataclass(frozen=True)
class Use:
    """Convolution `conv` reads a producer's channels from its input channel `offset` on."""

    conv: str
    offset: int


@dataclass(frozen=True)
class Producer:
    """One REBNCONV (`name`), the `space` whose channels it fills, and where they are read."""

    name: str
    space: str
    uses: tuple[Use, ...]


def _stage_uses(config: U2NetConfig) -> dict[str, tuple[Use, ...]]:
    uses: dict[str, list[Use]] = {name: [] for name, _, _ in STAGES}
    for index in range(1, 6):
        uses[f"stage{index}"].append(Use(f"stage{index + 1}.rebnconvin.conv_s1", 0))
    for index in range(5, 0, -1):
        above = "stage6" if index == 5 else f"stage{index + 1}d"
        join = f"stage{index}d.rebnconvin.conv_s1"
        uses[above].append(Use(join, 0))
        uses[f"stage{index}"].append(Use(join, config.stage(above).out))
        uses[f"stage{index}d"].append(Use(f"side{index}", 0))
    uses["stage6"].append(Use("side6", 0))
    return {name: tuple(found) for name, found in uses.items()}


def producers(config: U2NetConfig) -> list[Producer]:
    """Every REBNCONV of the network with the convolutions that read it, in forward order.

    Max-pooling, resizing and concatenation keep channels apart, so reading through them is reading the producer. A
    stage's input convolution and its last one are added, so they fill one space.
    """
    found = []
    for (stage, levels, _), outs in zip(STAGES, _stage_uses(config).values(), strict=True):
        mid = config.stage(stage).mid

        def conv(block: str, stage: str = stage) -> str:
            return f"{stage}.{block}.conv_s1"

        inner = (Use(conv("rebnconv1"), 0),)
        found.append(Producer(f"{stage}.rebnconvin", stage, inner + outs))
        for level in range(1, levels):
            both = (Use(conv(f"rebnconv{level + 1}"), 0), Use(conv(f"rebnconv{level}d"), mid))
            found.append(Producer(f"{stage}.rebnconv{level}", f"{stage}.{level}", both))
        last = (Use(conv(f"rebnconv{levels - 1}d"), 0),)
        found.append(Producer(f"{stage}.rebnconv{levels}", f"{stage}.{levels}", last))
        for level in range(levels - 1, 1, -1):
            uses = (Use(conv(f"rebnconv{level - 1}d"), 0),)
            found.append(Producer(f"{stage}.rebnconv{level}d", f"{stage}.{level}d", uses))
        found.append(Producer(f"{stage}.rebnconv1d", stage, outs))
    return found


def convolution(model: U2Net, name: str) -> nn.Conv2d:
    """The convolution of that name."""
    found = model.get_submodule(name)
    if not isinstance(found, nn.Conv2d):
        raise TypeError(f"{name} is not a convolution")
    return found


def _norm(model: U2Net, producer: Producer) -> nn.BatchNorm2d:
    found = model.get_submodule(f"{producer.name}.bn_s1")
    if not isinstance(found, nn.BatchNorm2d):
        raise TypeError(f"{producer.name} has no batch norm")
    return found


def macs(config: U2NetConfig, size: int | None = None) -> int:
    """Multiplications of one picture of side `size` (the configuration's own by default), convolutions only."""
    model = build_model(config)
    total = 0

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d)
        total += output[0].numel() * module.in_channels * module.kernel_size[0] * module.kernel_size[1]

    handles = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d)]
    side = size or config.size
    with torch.no_grad():
        model(torch.zeros(1, 3, side, side))
    for handle in handles:
        handle.remove()
    return total


def to_stem(model: U2Net, stem: int, name: str, first_pool: bool = True) -> U2Net:
    """`model` at 1/`stem` of the resolution, float-exactly what it computes on the picture box-reduced by `stem`.

    The first convolution reads the `stem`² pixels of a block as channels, each with 1/`stem`² of its weight; training
    then learns to use the detail between them. Without `first_pool` only stages 1 and 1d change their resolution, and
    the result is a start that needs training.
    """
    if model.config.stem != 1:
        raise ConfigError("only a network of stem 1 can be given another stem; give --weights of one")
    if not first_pool and stem != 2:
        raise ConfigError(
            f"a stem of 2 can stand for the first pooling, one of {stem} cannot; leave first_pool as it is"
        )
    result = build_model(replace(model.config, name=name, stem=stem, first_pool=first_pool, aliases=()))
    tensors = {k: v.clone() for k, v in model.state_dict().items()}
    first = "stage1.rebnconvin.conv_s1.weight"
    # pixel_unshuffle puts the block's pixels of one colour next to each other.
    tensors[first] = tensors[first].repeat_interleave(stem**2, 1) / stem**2
    result.load_state_dict(tensors)
    return result


def absorb_constants(model: U2Net, sigmas: float = 3.0) -> int:
    """Move the constant part of channels that never reach zero into the readers' biases, in place; how many channels.

    A channel whose batch norm says mean β and deviation γ with β > `sigmas`·γ passes the ReLU unchanged, so
    β − `sigmas`·γ of it can be added by the next convolutions' biases instead (bias absorption, Nagel et al., arXiv
    1906.04721): small numbers train and quantize well. Exact but for the zero padding at borders and for values more
    than `sigmas` deviations under the mean.
    Needs batch norm with true statistics (`rebase_batch_norm`).
    """
    changed = 0
    with torch.no_grad():
        for p in producers(model.config):
            bn = _norm(model, p)
            constant = (bn.bias - sigmas * bn.weight.abs()).clamp(min=0)
            changed += int((constant > 0).sum())
            bn.bias.sub_(constant)
            for use in p.uses:
                conv = convolution(model, use.conv)
                columns = conv.weight[:, use.offset : use.offset + len(constant)].sum((2, 3))
                assert conv.bias is not None
                conv.bias.add_(columns @ constant)
    return changed


def taylor(
    model: U2Net, batches: Iterable[tuple[Tensor, tuple[Tensor, ...]]], loss: Callable[..., Tensor]
) -> dict[str, Tensor]:
    """Importance (channels,) of every space: Σ over batches and producers of (γ · ∂L/∂γ)².

    `batches` are (normalised pictures, targets); `loss(logits, targets)` is a scalar.
    """
    found = producers(model.config)
    scores: dict[str, Tensor] = {}
    model.eval()
    for x, targets in batches:
        model.zero_grad()
        loss(model.native_logits(x), targets).backward()
        for p in found:
            bn = _norm(model, p)
            assert bn.weight.grad is not None
            score = (bn.weight.detach() * bn.weight.grad).square()
            scores[p.space] = scores[p.space] + score if p.space in scores else score
    model.zero_grad()
    return scores


def kept_channels(source: U2NetConfig, target: U2NetConfig, importance: dict[str, Tensor]) -> dict[str, Tensor]:
    """The most important channels of every space of `source` that fit `target`'s widths, as sorted indices.

    Raises `ConfigError` where `target` is wider anywhere.
    """
    for (stage, _, _), old, new in zip(STAGES, source.widths, target.widths, strict=True):
        if new.mid > old.mid or new.out > old.out:
            raise ConfigError(f"{stage} of {target.name} is wider than that of {source.name}")
    kept: dict[str, Tensor] = {}
    for p in producers(source):
        stage = p.space.partition(".")[0]
        widths = target.stage(stage)
        count = widths.out if p.space == stage else widths.mid
        kept[p.space] = importance[p.space].topk(count).indices.sort().values
    return kept


def prune(model: U2Net, target: U2NetConfig, kept: dict[str, Tensor]) -> U2Net:
    """`model` with only the channels `kept` (see `kept_channels`), of `target`'s widths; its resolutions stay.

    Raises `ConfigError` where `target` is of another stem, pooling or attention. Call `recalibrate` on the result.
    """
    source = model.config
    if (target.stem, target.first_pool, target.resql) != (source.stem, source.first_pool, source.resql):
        raise ConfigError(f"pruning keeps stem, pooling and attention: {source.name} and {target.name} differ in them")
    found = producers(source)
    inputs: dict[str, dict[int, Tensor]] = {}
    for p in found:
        for use in p.uses:
            inputs.setdefault(use.conv, {})[use.offset] = kept[p.space] + use.offset
    outputs = {f"{p.name}.conv_s1": kept[p.space] for p in found}
    tensors = {k: v.clone() for k, v in model.state_dict().items()}
    for name, places in inputs.items():
        columns = torch.cat([places[offset] for offset in sorted(places)])
        tensors[f"{name}.weight"] = tensors[f"{name}.weight"][:, columns]
    for name, rows in outputs.items():
        for tensor in ("weight", "bias"):
            tensors[f"{name}.{tensor}"] = tensors[f"{name}.{tensor}"][rows]
        norm = name.removesuffix("conv_s1") + "bn_s1"
        for tensor in ("weight", "bias", "running_mean", "running_var"):
            tensors[f"{norm}.{tensor}"] = tensors[f"{norm}.{tensor}"][rows]
    result = build_model(target)
    result.load_state_dict(tensors)
    return result


def _pictures(cache: Cache, rows: npt.NDArray[np.intp], batch: int) -> list[Tensor]:
    """Normalised pictures of `rows` as float32 batches (N, 3, S, S)."""
    found = []
    for start in range(0, len(rows), batch):
        pixels = cache.images[rows[start : start + batch]].transpose(0, 3, 1, 2)
        found.append(normalise_batch(torch.from_numpy(np.ascontiguousarray(pixels))))
    return found


def align_first_stage(
    model: U2Net, source: U2Net, kept: Tensor, batches: Iterable[Tensor], steps: int, lr: float = 2e-3
) -> tuple[float, float]:
    """Train stage 1 of `model`, of stem 2 without `first_pool`, to give what `source`'s gives after pooling, in place.

    `kept` are the channels of `source`'s stage 1 that `model` has; `batches` are normalised pictures (N, 3, H, W), at
    least `steps` of them. Returns the mean squared error relative to the channels' variance, at the start and the end
    (means of a tenth of the steps). Settings: Adam, rate falling to 0 as a cosine.
    """
    student, teacher = model.get_submodule("stage1").train(), source.get_submodule("stage1").eval()
    optimizer = torch.optim.Adam(student.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    errors: list[float] = []
    for x, _ in zip(batches, range(steps), strict=False):
        with torch.no_grad():
            wanted = F.max_pool2d(teacher(x)[:, kept], 2, stride=2, ceil_mode=True)
            variance = wanted.var((0, 2, 3), keepdim=True)
        error = ((student(F.pixel_unshuffle(x, 2)) - wanted).square() / (variance + 1e-3 * variance.mean())).mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        schedule.step()
        errors.append(float(error.detach()))
    model.eval()
    tenth = max(1, len(errors) // 10)
    return float(np.mean(errors[:tenth])), float(np.mean(errors[-tenth:]))


def _endless(cache: Cache, rows: npt.NDArray[np.intp], batch: int) -> Iterator[Tensor]:
    """Normalised pictures of `rows` in a new order each round, half of them mirrored."""
    rng = np.random.default_rng(1)
    while True:
        order = rng.permutation(rows)
        for start in range(0, max(1, len(order) - batch + 1), batch):
            (x,) = _pictures(cache, order[start : start + batch], batch)
            yield x.flip(-1) if rng.random() < 0.5 else x


def make_start(
    source: U2Net,
    target: U2NetConfig,
    cache: Cache,
    settings: PruneSettings,
    holdout: int,
    say: Callable[[str], None] = print,
) -> U2Net:
    """A network of `target`'s shape that knows as much of `source` as fits: batch norm, channels, stem, first stage.

    `source` is changed, not in what it computes. Reads pictures and maps of `cache`, none of those held out for
    validation.
    """
    training, validation = held_out(cache, holdout)
    rows = np.random.default_rng(0).permutation(training)[: settings.pictures]
    batches = _pictures(cache, rows, settings.batch)
    rebase_batch_norm(source, batches)
    if settings.absorb:
        count = absorb_constants(source, settings.absorb)
        say(f"{count} almost constant channels moved into biases")
        rebase_batch_norm(source, batches)
    model = source
    kept: dict[str, Tensor] = {}
    if source.config.widths != target.widths:
        data, sides = Pictures.of(cache, torch.device("cpu")), map_sides(source, cache.size)

        def labelled() -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
            for start in range(0, len(rows), settings.batch):
                batch = data.take(rows[start : start + settings.batch])
                yield normalise_batch(batch.pictures), side_targets(batch.maps, sides)

        say(f"ranking channels on {len(rows)} pictures")
        weights = LossWeights()
        ranked = taylor(source, labelled(), lambda z, t: distillation_loss(z, t, weights)["total"])
        kept = kept_channels(source.config, target, ranked)
        same = replace(target, stem=source.config.stem, first_pool=source.config.first_pool)
        model = prune(source, same, kept)
    if source.config.stem != target.stem:
        model = to_stem(model, target.stem, target.name, target.first_pool)
    result = build_model(target)
    result.load_state_dict(model.state_dict())
    if settings.align and not target.first_pool:
        channels = kept.get("stage1", torch.arange(source.config.stage("stage1").out))
        pictures = _endless(cache, training, settings.batch)
        first, last = align_first_stage(result, source, channels, pictures, settings.align)
        say(f"stage 1 gives the larger network's features to a relative error of {last:.3f}, from {first:.3f}")
    recalibrate(result, batches)
    say(f"start: {validate(result, cache, validation, torch.device('cpu'))}")
    return result

"""A network with a share of another's multiplications: channels out where they cost most, then healing.

Notable choices:

- **which channels**: every group of channels has an importance (`prune.taylor`) and a price, the multiplications at
  full resolution that go with it, which is what takes the time in a browser. The group that loses the least importance
  for its price goes first, until the share is reached: the outer stages, where a channel is dear, become thin. Widths
  stay multiples of `GROUP`: engines fill up to that;
- **whole channels only**: zeros scattered in the weights make no kernel faster (see docs/training.md for the figure);
- **healing** is distillation from the network itself on the given pictures, masks are not needed. Batch norm keeps its
  statistics, so batches may be small. The best average on pictures that are held out is kept, and the start counts;
- **little memory**: pictures wait as bytes; channels are ranked, and the network healed, on one at a time.
"""

from __future__ import annotations

import copy
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

import u2net.network
from datasets.calibration import calibration_split
from u2net.agreement import mask_iou
from u2net.artifact import asked, changed, read_sidecar, write_sidecar
from u2net.errors import ConfigError
from u2net.files import check_path, sha256_file
from u2net.network.checkpoint import load_checkpoint, save_checkpoint
from u2net.network.model import STAGES, StageWidths, U2Net, U2NetConfig
from u2net.network.shape import read_shape
from u2net.preprocess import resize_for_network

from .batchnorm import rebase_batch_norm, recalibrate
from .config import PruneSettings
from .forward import normalise_batch
from .losses import LossWeights, distillation_loss
from .prune import absorb_constants, kept_channels, macs, prune, taylor
from .shrink_settings import ShrinkSettings

__all__ = ["choose_widths", "convolution_macs", "shrink", "shrink_file"]

ByteArray = npt.NDArray[np.uint8]

GROUP = 4  # channels that go together: what the engine fills up to
SIZES = (0.6, 0.8, 1.0)  # of the taught side, that healing draws from: smaller ones are cheaper
STATISTICS = 8  # pictures that batch norm's are taken of: each has a hundred thousand pixels
VALIDATIONS = 4  # during healing
LIBRARIES = ("torch", "numpy", "Pillow")


def _sides(config: U2NetConfig, size: int) -> dict[str, int]:
    """The side in pixels at which each stage works."""
    side = size // config.stem
    sides = {"stage1": side, "stage1d": side}
    for index in range(2, 7):
        side = side if index == 2 and not config.first_pool else (side + 1) // 2
        sides[f"stage{index}"] = sides[f"stage{index}d"] = side
    return sides


def convolution_macs(config: U2NetConfig, size: int | None = None) -> int:
    """What `prune.macs` counts, reckoned from the widths: the 3×3 convolutions and the fusion, no channel attention."""
    sides = _sides(config, size or config.size)
    total = 0
    for stage, levels, dilated in STAGES:
        mid, out, side = config.stage(stage).mid, config.stage(stage).out, sides[stage]
        at = [side]
        for level in range(1, levels - 1):
            at.append(at[level - 1] if dilated else (at[level - 1] + 1) // 2)
        inner = sum(mid * mid * at[level] ** 2 for level in range(1, levels - 1)) + mid * mid * at[-1] ** 2
        up = sum(2 * mid * mid * at[level] ** 2 for level in range(1, levels - 1))
        total += 9 * ((config.in_channels(stage) * out + out * mid + 2 * mid * out) * side**2 + inner + up)
    for stage in ("stage1d", "stage2d", "stage3d", "stage4d", "stage5d", "stage6"):
        total += 9 * config.stage(stage).out * sides[stage] ** 2
    return total + 6 * sides["stage1"] ** 2


def choose_widths(config: U2NetConfig, importance: dict[str, Tensor], share: float, name: str) -> U2NetConfig:
    """The widths with at most `share` of `config`'s multiplications that lose the least importance for their price.

    `importance` is `taylor`'s. Raises `ConfigError` where even the thinnest network has more.
    """
    inside: dict[str, list[npt.NDArray[np.float64]]] = {stage: [] for stage, _, _ in STAGES}
    outside: dict[str, list[npt.NDArray[np.float64]]] = {stage: [] for stage, _, _ in STAGES}
    for space, scores in importance.items():
        stage = space.partition(".")[0]
        ordered = np.sort(scores.double().cpu().numpy())
        (outside if space == stage else inside)[stage].append(ordered)
    widths = {stage: config.stage(stage) for stage, _, _ in STAGES}

    def built(now: dict[str, StageWidths]) -> U2NetConfig:
        return replace(config, name=name, widths=tuple(now[stage] for stage, _, _ in STAGES), aliases=())

    whole = convolution_macs(config)
    cost = whole
    while cost > share * whole:
        best: tuple[float, int, dict[str, StageWidths]] | None = None
        for stage, _, _ in STAGES:
            for part, spaces in (("mid", inside[stage]), ("out", outside[stage])):
                width = getattr(widths[stage], part)
                fewer = (width - 1) // GROUP * GROUP
                if fewer < GROUP:
                    continue
                gone = slice(len(spaces[0]) - width, len(spaces[0]) - fewer)
                lost = sum(float(scores[gone].sum()) for scores in spaces)
                now = {**widths, stage: replace(widths[stage], **{part: fewer})}
                price = cost - convolution_macs(built(now))
                if best is None or lost / price < best[0]:
                    best = lost / price, cost - price, now
        if best is None:
            raise ConfigError(
                f"even {GROUP} channels everywhere are {cost / whole:.2f} of {config.name}'s multiplications; ask "
                "for a larger --share"
            )
        _, cost, widths = best
    return built(widths)


def _batches(pictures: Sequence[ByteArray], batch: int) -> Iterator[Tensor]:
    """Normalised float32 (N, 3, S, S) of pictures uint8 (S, S, 3), made as they are asked for."""
    for start in range(0, len(pictures), batch):
        yield normalise_batch(torch.from_numpy(np.stack(pictures[start : start + batch]).transpose(0, 3, 1, 2).copy()))


def _resized(batches: Iterable[Tensor], side: int) -> Iterator[Tensor]:
    for x in batches:
        yield F.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)


def _sizes(config: U2NetConfig, side: int) -> list[int]:
    """The parts `SIZES` of a side that the network can take."""
    unit = 32 * config.stem
    return [max(unit, int(side * part) // unit * unit) for part in SIZES]


def _targets(teacher: U2Net, x: Tensor) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return tuple(torch.sigmoid(logits) for logits in teacher.native_logits(x))


def _masks(model: U2Net, pictures: Sequence[ByteArray]) -> list[npt.NDArray[np.bool_]]:
    model.eval()
    with torch.no_grad():
        return [(model(x)[0][0, 0] > 0.5).numpy() for x in _batches(pictures, 1)]


def _agreement(model: U2Net, pictures: Sequence[ByteArray], reference: Sequence[npt.NDArray[np.bool_]]) -> float:
    """Mean IoU with the masks `reference`, pictures without a subject in either left out."""
    found = zip(_masks(model, pictures), reference, strict=True)
    shares = [mask_iou(ours, theirs) for ours, theirs in found if ours.any() or theirs.any()]
    return float(np.mean(shares)) if shares else 0.0


def shrink(
    source: U2Net,
    pictures: Sequence[ByteArray],
    held_out: Sequence[ByteArray],
    settings: ShrinkSettings,
    name: str,
    target: U2NetConfig | None = None,
    say: Callable[[str], None] = lambda text: None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> tuple[U2Net, dict[str, Any]]:
    """`source` pruned to `settings.share` of its multiplications, or to the shape `target`, and healed; the figures.

    Pictures are uint8 (S, S, 3) of the side that `source` was taught at. `source` is not changed.
    """
    teacher, whole = copy.deepcopy(source).eval().requires_grad_(False), copy.deepcopy(source).eval()
    reference = _masks(teacher, held_out)
    ranked = pictures[: settings.ranking]
    few = ranked[:STATISTICS]
    rebase_batch_norm(whole, _batches(few, 1))
    absorb_constants(whole, PruneSettings().absorb)
    rebase_batch_norm(whole, _batches(few, 1))
    weights = LossWeights()

    def labelled() -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
        for done, x in enumerate(_batches(ranked, 1), 1):
            # Against its own maps a network has no gradient; against its own masks it has, where it is unsure.
            yield x, tuple((target > 0.5).float() for target in _targets(teacher, x))
            progress("ranking channels", done, len(ranked))

    importance = taylor(whole, labelled(), lambda z, t: distillation_loss(z, t, weights)["total"])
    if target is None:
        target = choose_widths(source.config, importance, settings.share, name)
    model = prune(whole, replace(target, name=name), kept_channels(source.config, target, importance))
    recalibrate(model, _batches(ranked, settings.batch))
    before = _agreement(model, held_out, reference)
    say(f"pruned: mean IoU {before:.4f} with the whole network on {len(held_out)} held-out pictures")
    after = before
    if settings.steps:
        model, after = _heal(model, teacher, pictures, held_out, reference, before, settings, say, progress)
    full, left = macs(source.config), macs(target)
    figures = {
        "gmac_before": round(full / 1e9, 4),
        "gmac_after": round(left / 1e9, 4),
        "share": round(left / full, 4),
        "parameters_before": sum(p.numel() for p in source.parameters()),
        "parameters_after": sum(p.numel() for p in model.parameters()),
        "iou_pruned": round(before, 6),
        "iou_healed": round(after, 6),
        "pictures": len(pictures),
        "held_out": len(held_out),
        "widths": {stage: [target.stage(stage).mid, target.stage(stage).out] for stage, _, _ in STAGES},
    }
    return model, figures


def _heal(
    model: U2Net,
    teacher: U2Net,
    pictures: Sequence[ByteArray],
    held_out: Sequence[ByteArray],
    reference: Sequence[npt.NDArray[np.bool_]],
    start: float,
    settings: ShrinkSettings,
    say: Callable[[str], None],
    progress: Callable[[str, int, int], None],
) -> tuple[U2Net, float]:
    """The best of `model`'s states on `held_out` while it is taught `teacher`'s maps, and its mean IoU."""
    rng = np.random.default_rng(settings.seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.lr)
    sizes = _sizes(model.config, len(pictures[0]))
    weights = LossWeights()
    best, reached = copy.deepcopy(model), start
    every = max(1, settings.steps // VALIDATIONS)
    began = time.monotonic()
    for step in range(settings.steps):
        chosen = rng.choice(len(pictures), min(settings.batch, len(pictures)), replace=False)
        size = int(rng.choice(sizes))
        rate = settings.lr * min(1.0, (step + 1) / 10, (settings.steps - step) / (0.7 * settings.steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        model.eval()  # batch norm keeps its statistics
        optimizer.zero_grad()
        # One by one: batch norm is frozen, so the gradient is a batch's, and the memory that of one picture.
        for x in _resized(_batches([pictures[index] for index in chosen], 1), size):
            x = x.flip(-1) if rng.random() < 0.5 else x
            loss = distillation_loss(model.native_logits(x), _targets(teacher, x), weights)["total"]
            (loss / len(chosen)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        progress("healing", step + 1, settings.steps)
        if step == 2:
            minutes = (time.monotonic() - began) / 3 * settings.steps / 60
            say(
                f"healing: {settings.steps} steps, about {minutes:.1f} minutes here; --steps makes it longer or shorter"
            )
        if (step + 1) % every == 0 or step + 1 == settings.steps:
            found = _agreement(model, held_out, reference)
            if found > reached:
                best, reached = copy.deepcopy(model), found
    say(f"healed: mean IoU {reached:.4f}")
    return best.eval(), reached


def shrink_file(
    weights: str | os.PathLike[str],
    out: str | os.PathLike[str],
    data: str | os.PathLike[str] | None,
    settings: ShrinkSettings,
    *,
    widths: str | os.PathLike[str] | None = None,
    force: bool = False,
    say: Callable[[str], None] = lambda text: None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> dict[str, Any]:
    """Shrink the checkpoint `weights` to `out`, a `.safetensors`, and return the sidecar that lies beside it.

    `data` is a folder of pictures, None the procedural set; `widths` a TOML file of a shape, instead of a share. Where
    the sidecar already says what is asked for nothing is done, unless `force`.
    """
    target_file = check_path(out)
    if target_file.suffix != ".safetensors":
        raise ConfigError(
            f"the output is a .safetensors file, not {target_file.name}; say --out {target_file.stem}.safetensors"
        )
    split = calibration_split(data, settings.count, settings.check, settings.seed)
    inputs = {"weights": sha256_file(weights)} | ({"widths": sha256_file(widths)} if widths else {})
    pictures = {"pictures": split.calibration.identity(), "check": split.check.identity()}
    recorded = {key: value for key, value in asdict(settings).items() if key != "threads"}
    request = asked(recorded, inputs | pictures, LIBRARIES, (sys.modules[__package__], u2net.network))
    if not changed(target_file, request) and not force:
        say(f"{target_file.name}: up to date")
        return read_sidecar(target_file)
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    source = load_checkpoint(weights)
    side = source.config.size

    def prepared(images: Sequence[ByteArray]) -> list[ByteArray]:
        return [np.floor(resize_for_network(image, side) + np.float32(0.5)).astype(np.uint8) for image in images]

    shape = read_shape(widths) if widths else None
    name = shape.name if shape else f"{source.config.name}-{settings.share:g}"
    model, figures = shrink(
        source, prepared(split.calibration), prepared(split.check), settings, name, shape, say, progress
    )
    save_checkpoint(model, target_file)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform != "darwin" else 1 << 30)
    say(f"at most {memory:.1f} GB of memory")
    return write_sidecar(
        target_file,
        stage="prune",
        settings=recorded,
        inputs=inputs | {"pictures": split.calibration.sha256(), "check": split.check.sha256()},
        figures=figures,
        libraries=LIBRARIES,
        request=request,
    )

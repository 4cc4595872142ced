"""A network with a share of another's multiplications: channels out where they cost most, the rest fitted to stand in.

Notable choices:

- **which channels**: every group of channels has an importance (`prune.taylor`) and a price, the multiplications at
  full resolution that go with it, which is what takes the time in a browser. The group that loses the least importance
  for its price goes first, until the share is reached: the outer stages, where a channel is dear, become thin. Widths
  stay multiples of `GROUP`: engines fill up to that;
- **whole channels only**: zeros scattered in the weights make no kernel faster (see docs/training.md for the figure);
- **what stays takes over** in closed form (`reconstruct.py`): no masks, no steps, a minute. Half of `small-fast` has
  0.937 of the whole's masks on unseen photographs then, and 0.784 where batch norm is given new statistics alone;
- **healing** afterwards is the training loop (`loop.py`), taught the whole network's own maps of the given pictures,
  each computed once, one at a time in memory. Sixty steps on 72 pictures gave nothing, so it is done only when asked
  for. Where the end is no better than the start on held-out pictures, the start stays;
- **what is not in the folder may be forgotten**: channels and fit know its pictures alone. So the result is measured on
  procedural scenes too, and said where it is much worse there;
- **what it costs** is said before it begins, out of the time that ranking took.
"""

from __future__ import annotations

import copy
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import u2net.network
from datasets.calibration import CHECK_SEED, CalibrationImages, calibration_images, calibration_split, joined
from u2net.artifact import asked, changed, read_sidecar, write_sidecar
from u2net.errors import ConfigError, QualityError
from u2net.files import check_path, sha256_bytes, sha256_file
from u2net.network.checkpoint import load_checkpoint, save_checkpoint
from u2net.network.model import STAGES, StageWidths, U2Net, U2NetConfig
from u2net.network.shape import read_shape
from u2net.preprocess import resize_for_network

from .augment import PLAIN
from .batchnorm import rebase_batch_norm
from .cache import Cache
from .config import PruneSettings
from .forward import normalise_batch
from .loop import Ranks, TrainSettings, train
from .losses import LossWeights, distillation_loss
from .prune import absorb_constants, kept_channels, macs, prune, taylor
from .reconstruct import reconstruct
from .shrink_settings import ShrinkSettings
from .validation import held_out, validate

__all__ = ["choose_widths", "convolution_macs", "shrink", "shrink_file"]

ByteArray = npt.NDArray[np.uint8]

GROUP = 4  # channels that go together: what the engine fills up to
LEAST = 8  # channels that stay: quantize leaves thinner layers in float, and the engine has no such layers
SCENES = 12  # that the result is measured on beside the folder's own pictures
FORGOTTEN = 0.1  # of mean IoU: so much less there is worth a warning
FIT = 1.6  # what fitting to a picture takes, in the time of ranking with one
STATISTICS = 8  # pictures that batch norm's are taken of: each has a hundred thousand pixels
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
                if fewer < LEAST:
                    continue
                gone = slice(len(spaces[0]) - width, len(spaces[0]) - fewer)
                lost = sum(float(scores[gone].sum()) for scores in spaces)
                now = {**widths, stage: replace(widths[stage], **{part: fewer})}
                price = cost - convolution_macs(built(now))
                if best is None or lost / price < best[0]:
                    best = lost / price, cost - price, now
        if best is None:
            raise ConfigError(
                f"even {LEAST} channels everywhere are {cost / whole:.2f} of {config.name}'s multiplications; ask "
                "for a larger --share"
            )
        _, cost, widths = best
    return built(widths)


def _at_side(images: CalibrationImages, side: int, progress: Callable[[str, int, int], None]) -> ByteArray:
    """uint8 (N, side, side, 3): the images as the network gets them."""
    small = np.empty((len(images), side, side, 3), np.uint8)
    for row, image in enumerate(images):
        small[row] = np.floor(resize_for_network(image, side) + np.float32(0.5)).astype(np.uint8)
        progress("reading pictures", row + 1, len(images))
    return small


def _batches(pictures: ByteArray, batch: int) -> Iterator[Tensor]:
    """Normalised float32 (N, 3, S, S) of pictures uint8 (N, S, S, 3), made as they are asked for."""
    for start in range(0, len(pictures), batch):
        yield normalise_batch(torch.from_numpy(pictures[start : start + batch].transpose(0, 3, 1, 2).copy()))


def _own_maps(model: U2Net, names: Sequence[str], pictures: ByteArray) -> Cache:
    """`pictures` with the maps that `model` gives them, in memory: what training reads."""
    maps = np.empty(pictures.shape[:3], np.uint8)
    with torch.inference_mode():
        for row, x in enumerate(_batches(pictures, 1)):
            maps[row] = np.floor(model(x)[0][0, 0].numpy() * 255 + 0.5).astype(np.uint8)
    return Cache(Path(), tuple(names), pictures.shape[1], {}, pictures, maps, np.ones(len(pictures), bool))


def shrink(
    source: U2Net,
    names: Sequence[str],
    pictures: ByteArray,
    settings: ShrinkSettings,
    name: str,
    target: U2NetConfig | None = None,
    say: Callable[[str], None] = lambda text: None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> tuple[U2Net, dict[str, Any]]:
    """`source` pruned to `settings.share` of its multiplications, or to the shape `target`; the figures.

    Pictures are uint8 (N, S, S, 3) of the side that `source` was taught at, `names` say which. `source` is not changed.
    """
    whole = copy.deepcopy(source).eval()
    cache = _own_maps(whole, names, pictures)
    training, checked = held_out(cache, settings.check)
    ranked = pictures[training[: settings.ranking]]
    few = ranked[:STATISTICS]
    rebase_batch_norm(whole, _batches(few, 1))
    absorb_constants(whole, PruneSettings().absorb)
    rebase_batch_norm(whole, _batches(few, 1))
    weights, began = LossWeights(), time.monotonic()

    def labelled() -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
        for done, x in enumerate(_batches(ranked, 1), 1):
            # Against its own maps a network has no gradient; against its own masks it has, where it is unsure.
            with torch.no_grad():
                masks = tuple((logits > 0).float() for logits in source.native_logits(x))
            yield x, masks
            progress("ranking channels", done, len(ranked))

    importance = taylor(whole, labelled(), lambda z, t: distillation_loss(z, t, weights)["total"])
    seconds = (time.monotonic() - began) / len(ranked)  # forwards and backwards, one picture, the whole network
    if target is None:
        target = choose_widths(source.config, importance, settings.share, name)
    kept = kept_channels(source.config, target, importance)
    model = prune(whole, replace(target, name=name), kept)
    fitted = list(_batches(pictures[training[: settings.fitting]], 1))
    say(f"fitting what is left to {len(fitted)} pictures: about {FIT * seconds * len(fitted) / 60:.1f} minutes here")
    reconstruct(model, whole, kept, fitted, progress)
    rebase_batch_norm(model, _batches(few, 1))
    full, left = macs(source.config), macs(target)
    before = validate(model, cache, checked, torch.device("cpu"), 1)
    say(f"pruned: mean IoU {before['val_iou']:.4f} with the whole network on {len(checked)} held-out pictures")
    after = before
    if settings.steps or settings.minutes:
        model, after = _heal(model, cache, before, seconds * left / full, settings, say, progress)
    figures = {
        "gmac_before": round(full / 1e9, 4),
        "gmac_after": round(left / 1e9, 4),
        "share": round(left / full, 4),
        "parameters_before": sum(p.numel() for p in source.parameters()),
        "parameters_after": sum(p.numel() for p in model.parameters()),
        "iou_pruned": round(before["val_iou"], 6),
        "iou_healed": round(after["val_iou"], 6),
        "mae_pruned": round(before["val_mae"], 6),
        "mae_healed": round(after["val_mae"], 6),
        "pictures": len(training),
        "held_out": len(checked),
        "widths": {stage: [target.stage(stage).mid, target.stage(stage).out] for stage, _, _ in STAGES},
    }
    return model, figures


def _heal(
    model: U2Net,
    cache: Cache,
    start: dict[str, float],
    seconds: float,
    settings: ShrinkSettings,
    say: Callable[[str], None],
    progress: Callable[[str, int, int], None],
) -> tuple[U2Net, dict[str, float]]:
    """`model` taught the maps of `cache`, or as it was where that gave nothing, and what `validate` says of it.

    `seconds` is what a picture of full size takes, forwards and backwards.
    """
    minutes = settings.minutes or settings.steps * settings.batch * seconds / 60
    length = "" if settings.minutes else f"{settings.steps} steps of {settings.batch} pictures, "
    say(f"healing: {length}about {minutes:.1f} minutes here; --steps or --minutes make it longer or shorter")
    how = TrainSettings(
        steps=max(1, settings.steps),
        minutes=settings.minutes,
        batch=settings.batch,
        lr=settings.lr,
        warmup=10,
        decay=0.7,
        ema=0.95,  # of so few steps the last twenty
        seed=settings.seed,
        sizes=(cache.size,),
        precision="fp32",
        frozen=True,  # small batches say little of the statistics
        at_once=1,
        threads=settings.threads,
        holdout=settings.check,
        validate_every=max(1, settings.steps // 2),
        save_every=10**9,  # at its end
        augmentation=replace(PLAIN, flip=0.5, crop=0.3),
    )
    with tempfile.TemporaryDirectory(prefix="healing-") as folder:
        alone = Ranks(0, 1, torch.device("cpu"))
        try:
            taught = copy.deepcopy(model)
            found = train(
                taught, cache, Path(folder), how, alone, say, lambda d: progress("healing", int(1000 * d), 1000)
            )
        except QualityError as error:
            say(f"not healed, {str(error).partition(':')[0]}: the pruned network stays")
            return model.eval(), start
        healed = load_checkpoint(Path(folder) / "weights.safetensors")
    if (found["val_iou"], -found["val_mae"]) <= (start["val_iou"], -start["val_mae"]):
        say("healing gave nothing: the pruned network stays")
        return model.eval(), start
    say(f"healed: mean IoU {found['val_iou']:.4f}")
    return healed.eval(), found


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

    chosen = joined(split.calibration, split.check)
    small = _at_side(chosen, side, progress)
    shape = read_shape(widths) if widths else None
    name = shape.name if shape else f"{source.config.name}-{settings.share:g}"
    model, figures = shrink(source, chosen.names, small, settings, name, shape, say, progress)
    if data is not None:
        scenes = calibration_images(None, SCENES, settings.seed + CHECK_SEED)
        seen = _own_maps(source, scenes.names, _at_side(scenes, side, progress))
        found = validate(model, seen, np.arange(SCENES), torch.device("cpu"), 1)["val_iou"]
        figures["iou_on_scenes"] = round(found, 6)
        if figures["iou_healed"] - found > FORGOTTEN:
            say(
                f"warning: on {SCENES} procedural scenes the masks agree to {found:.4f} alone: what the folder does "
                "not show is forgotten. Give all kinds of pictures that will come, or a larger share"
            )
    save_checkpoint(model, target_file)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform != "darwin" else 1 << 30)
    say(f"at most {memory:.1f} GB of memory")
    return write_sidecar(
        target_file,
        stage="prune",
        settings=recorded,
        inputs=inputs | {"pictures": sha256_bytes(small.tobytes())},
        figures=figures,
        libraries=LIBRARIES,
        request=request,
    )

"""The command line of training. Under `torchrun` every command but `distill` and `finetune` runs in one process."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from datasets.masks import MASK_VALUES_HELP
from u2net.commandline import Application, progress, result, say
from u2net.errors import ConfigError
from u2net.zoo import own_weights

from .shrink_settings import ShrinkSettings

if TYPE_CHECKING:
    from u2net.network.model import U2Net

    from .cache import Cache
    from .config import RunSettings
    from .loop import Ranks

__all__ = ["application", "main"]

application = Application(
    "train", "Distil, prune and fine-tune U²-Nets; a killed run is continued by the same command."
)

Config = Annotated[Path, typer.Option(metavar="FILE.toml", help="settings of the run, as in train/configs/")]
CacheFolder = Annotated[Path, typer.Option("--cache", metavar="DIR", help="the teacher's maps")]
Steps = Annotated[int | None, typer.Option(metavar="N", help="instead of the configuration's; a run may be extended")]
MaskValues = Annotated[str | None, typer.Option(metavar="VALUES", help=MASK_VALUES_HELP)]
CACHE = Path("build/train/cache")


@application.command(examples="u2net train cache --config small-fast.toml --data photos --teacher u2netp.safetensors")
def cache(
    config: Config,
    data: Annotated[Path, typer.Option(metavar="DIR", help="pictures, or images/ and masks/")],
    teacher: Annotated[Path, typer.Option(metavar="FILE", help="the teacher's checkpoint")],
    cache: CacheFolder = CACHE,
    mask_values: MaskValues = None,
) -> None:
    """Decode pictures once and store the teacher's maps for them."""
    result(_cache(Namespace(**locals())))


@application.command(
    examples="""
u2net train shrink --weights mine.pth --share 0.5 --data photographs/ --out build/mine-0.5.safetensors
u2net train shrink --weights u2netp.safetensors --widths thin.toml --out thin.safetensors --steps 400
"""
)
def shrink(
    weights: Annotated[Path, typer.Option(metavar="FILE", help="a checkpoint of any shape of this family")],
    out: Annotated[Path, typer.Option(metavar="FILE.safetensors", help="where the smaller network goes")],
    settings: ShrinkSettings,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="pictures (the procedural set)")] = None,
    widths: Annotated[Path | None, typer.Option(metavar="FILE.toml", help="a shape, instead of --share")] = None,
    force: Annotated[bool, typer.Option("--force", help="again, even if nothing has changed")] = False,
) -> None:
    """Prune a network to a share of its multiplications and heal it against itself.

    Whole channels go, where they cost most time and least importance. No masks are needed. What was measured lies
    beside the result, which `u2net export --weights` takes.
    """
    from .shrink import shrink_file

    with progress() as report:
        made = shrink_file(weights, out, data, settings, widths=widths, force=force, say=say, progress=report)
    figures = made["figures"]
    result(
        made,
        f"{out}: {figures['gmac_before']:.2f} → {figures['gmac_after']:.2f} GMAC, {figures['parameters_before']:,} → "
        f"{figures['parameters_after']:,} parameters, mean IoU {figures['iou_healed']:.4f} with the whole network on "
        f"{figures['held_out']} held-out pictures",
    )


@application.command(
    examples="u2net train prune --config small-fast.toml --weights u2netp.safetensors --out start.safetensors"
)
def prune(
    config: Config,
    weights: Annotated[Path, typer.Option(metavar="FILE", help="checkpoint of a wider network")],
    out: Annotated[Path, typer.Option(metavar="FILE.safetensors", help="where the start goes")],
    cache: CacheFolder = CACHE,
) -> None:
    """Make a smaller start of the configured model out of larger weights."""
    result(_prune(Namespace(**locals())))


@application.command(
    examples="""
u2net train distill --config small-fast.toml --start start.safetensors --teacher u2netp.safetensors
torchrun --nproc-per-node 2 -m train distill --config lite.toml --start start.safetensors
"""
)
def distill(
    config: Config,
    start: Annotated[Path | None, typer.Option(metavar="FILE", help="weights to begin with (random)")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="folder of the run (build/train/MODEL)")] = None,
    steps: Steps = None,
    teacher: Annotated[
        Path | None, typer.Option(metavar="FILE", help="its checkpoint, where loss.features is set")
    ] = None,
    cache: CacheFolder = CACHE,
) -> None:
    """Train the configured model to give the teacher's maps.

    The folder of the run holds weights.safetensors (float16, the averaged weights), state.pt (to continue from),
    log.csv and curve.svg.
    """
    result(_distill(Namespace(**locals())))


@application.command(
    examples="u2net train finetune --config finetune.toml --data portraits --out build/train/portraits"
)
def finetune(
    config: Config,
    data: Annotated[Path, typer.Option(metavar="DIR", help="a folder with images/ and masks/")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="folder of the run")],
    start: Annotated[Path | None, typer.Option(metavar="FILE", help="weights to begin with (the model's own)")] = None,
    steps: Steps = None,
    teacher: Annotated[
        Path | None, typer.Option(metavar="FILE", help="mix in this checkpoint's maps, so that less is forgotten")
    ] = None,
    mask_values: MaskValues = None,
) -> None:
    """Train on your own pictures and masks: portraits, products, …"""
    result(_finetune(Namespace(**locals())))


@application.command(
    examples="u2net train temperature --config lite.toml --weights trained.safetensors --out lite.safetensors"
)
def temperature(
    config: Config,
    weights: Annotated[Path, typer.Option(metavar="FILE", help="checkpoint of a trained model")],
    out: Annotated[Path, typer.Option(metavar="FILE.safetensors", help="where the result goes")],
    cache: CacheFolder = CACHE,
) -> None:
    """Scale the fused map's logits to come nearest the teacher's held-out maps."""
    result(_temperature(Namespace(**locals())))


@application.command(examples="u2net train average first.safetensors second.safetensors --out mean.safetensors")
def average(
    weights: Annotated[list[Path], typer.Argument(metavar="FILE", help="checkpoints of one shape")],
    out: Annotated[Path, typer.Option(metavar="FILE.safetensors", help="where the mean goes")],
) -> None:
    """Write the mean of the weights of several runs from one start."""
    result(_average(Namespace(**locals())))


@application.command(examples="u2net train curve build/train/lite")
def curve(run: Annotated[Path, typer.Argument(metavar="DIR", help="folder of the run")]) -> None:
    """Draw the learning curve of a run again."""
    result(_curve(Namespace(**locals())))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    return application.run(argv)


def _settings(arguments: Namespace) -> RunSettings:
    from dataclasses import replace

    from .config import load_settings

    settings = load_settings(arguments.config)
    if getattr(arguments, "steps", None) is not None:
        settings = replace(settings, train=replace(settings.train, steps=arguments.steps))
    return settings


def _fill(
    settings: RunSettings, data: Path, teacher: U2Net | None, folder: Path, truth: float, mask_values: str | None
) -> Cache:
    from datasets.folder import ImageFolder, PairFolder

    from .cache import Cache, build_cache

    pictures = PairFolder(data, mask_values=mask_values) if (data / "masks").is_dir() else ImageFolder(data)
    with progress() as report:
        made = build_cache(
            pictures,
            teacher,
            folder,
            size=settings.train.sizes[0] if len(settings.train.sizes) == 1 else _model_size(settings),
            flip=settings.teacher.flip,
            scales=settings.teacher.scales,
            fast=settings.teacher.fast,
            truth=truth,
        )
        for done, total in made:
            report("teacher's maps" if teacher else "pictures", done, total)
    return Cache.open(folder)


def _model_size(settings: RunSettings) -> int:
    from u2net.network.model import CONFIGS

    return CONFIGS[settings.model].size


def _cache(arguments: Namespace) -> dict[str, Any]:
    from u2net.network.checkpoint import load_checkpoint

    settings = _settings(arguments)
    teacher = load_checkpoint(arguments.teacher)
    cache = _fill(settings, arguments.data, teacher, arguments.cache, settings.teacher.truth, arguments.mask_values)
    say(f"{arguments.cache}: {len(cache)} pictures of {cache.size}×{cache.size}, maps of {teacher.config.name}")
    return {"cache": str(arguments.cache), "pictures": len(cache), "size": cache.size}


def _prune(arguments: Namespace) -> dict[str, Any]:
    from u2net.network.checkpoint import load_checkpoint, save_checkpoint
    from u2net.network.model import CONFIGS

    from .cache import Cache
    from .prune import macs, make_start

    settings = _settings(arguments)
    source = load_checkpoint(arguments.weights)
    target = CONFIGS[settings.model]
    start = make_start(source, target, Cache.open(arguments.cache), settings.prune, settings.train.holdout, say)
    save_checkpoint(start, arguments.out)
    figures = {"gmac_before": macs(source.config) / 1e9, "gmac_after": macs(target) / 1e9}
    say(f"{arguments.out}: {figures['gmac_before']:.2f} → {figures['gmac_after']:.2f} GMAC")
    return {"out": str(arguments.out), "model": target.name, **figures}


def _distill(arguments: Namespace) -> dict[str, Any]:
    from u2net.network.checkpoint import load_checkpoint
    from u2net.network.model import CONFIGS, U2Net

    from .cache import Cache
    from .loop import ranks, seeded

    settings = _settings(arguments)
    out = arguments.out or Path("build/train") / settings.model
    cache = Cache.open(arguments.cache)
    config = CONFIGS[settings.model]
    if arguments.start is None:
        with seeded(settings.train.seed):
            model = U2Net(config)
    else:
        model = load_checkpoint(arguments.start)
        if not model.config.same_shape(config):
            raise ConfigError(f"{arguments.start} is not a {config.name} but a {model.config.name}")
    teacher = load_checkpoint(arguments.teacher) if arguments.teacher else None
    with ranks() as me:
        return _run(model, cache, out, settings, me, teacher)


def _finetune(arguments: Namespace) -> dict[str, Any]:
    from u2net.network.checkpoint import load_checkpoint

    from .cache import Cache
    from .loop import ranks

    settings = _settings(arguments)
    start = arguments.start or own_weights(settings.model)
    model = load_checkpoint(start)
    if not (arguments.data / "masks").is_dir():
        raise ConfigError(f"{arguments.data} has no folder masks/; fine-tuning needs images/ and masks/")
    teacher = load_checkpoint(arguments.teacher) if arguments.teacher else None
    with ranks() as me:
        if me.first:
            truth = settings.teacher.truth if teacher else 1.0
            _fill(settings, arguments.data, teacher, arguments.out / "cache", truth, arguments.mask_values)
        me.wait()
        return _run(model, Cache.open(arguments.out / "cache"), arguments.out, settings, me, teacher)


def _run(
    model: U2Net, cache: Cache, out: Path, settings: RunSettings, me: Ranks, teacher: U2Net | None = None
) -> dict[str, Any]:
    from .curve import draw_curve
    from .loop import train

    with progress() as report:

        def tick(step: int) -> None:
            if me.first:
                report("training", step, settings.train.steps)

        found = train(model, cache, out, settings.train, me, say, tick, teacher=teacher)
    if not me.first:
        return {}
    title = f"{settings.model}: {settings.train.steps} steps of {settings.train.batch} pictures"
    draw_curve(out / "log.csv", out / "curve.svg", title)
    say(f"{out / 'weights.safetensors'}: agreement {found.get('val_iou', float('nan')):.4f} mean IoU")
    return {"out": str(out), "settings": asdict(settings), **found}


def _temperature(arguments: Namespace) -> dict[str, Any]:
    import torch

    from u2net.network.checkpoint import load_checkpoint

    from .cache import Cache
    from .loop import save_half
    from .validation import fit_temperature, held_out, scale_logits

    settings = _settings(arguments)
    torch.set_num_threads(settings.train.threads)
    model = load_checkpoint(arguments.weights)
    cache = Cache.open(arguments.cache)
    _, rows = held_out(cache, settings.train.holdout)
    factor, errors = fit_temperature(model, cache, rows, torch.device("cpu"))
    scale_logits(model, factor)
    save_half(model, arguments.out)
    before = errors[1.0]
    say(f"{arguments.out}: logits times {factor:.2f}, held-out MAE {before:.4f} → {errors[factor]:.4f}")
    return {"out": str(arguments.out), "factor": factor, "mae_before": before, "mae_after": errors[factor]}


def _average(arguments: Namespace) -> dict[str, Any]:
    from u2net.network.checkpoint import load_checkpoint

    from .average import mean_of
    from .loop import save_half

    save_half(mean_of([load_checkpoint(path) for path in arguments.weights]), arguments.out)
    say(f"{arguments.out}: the mean of {len(arguments.weights)}")
    return {"out": str(arguments.out), "weights": [str(path) for path in arguments.weights]}


def _curve(arguments: Namespace) -> dict[str, Any]:
    from .curve import draw_curve

    picture = arguments.run / "curve.svg"
    draw_curve(arguments.run / "log.csv", picture, arguments.run.name)
    say(str(picture))
    return {"curve": str(picture)}

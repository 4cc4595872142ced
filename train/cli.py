"""The command line of training. Under `torchrun` every command but `distill` and `finetune` runs in one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from datasets.masks import MASK_VALUES_HELP
from u2net.commandline import Application, progress, result, say
from u2net.errors import ConfigError
from u2net.zoo import DEFAULT_MODEL, own_weights

from .shrink_settings import ShrinkSettings

if TYPE_CHECKING:
    from .cache import Cache
    from .config import RunSettings
    from .teachers import Teacher

__all__ = ["application", "main"]

CACHE = Path("build/train/cache")
CONFIGS = Path(__file__).parent / "configs"

application = Application("train", "Teach a smaller U²-Net what larger networks know, or any U²-Net your own pictures.")

Config = Annotated[Path, typer.Option(metavar="FILE.toml", help="settings of the run")]
Weights = Annotated[Path, typer.Option(metavar="FILE", help="a checkpoint")]
CacheFolder = Annotated[Path, typer.Option(metavar="DIR", help="pictures and the teachers' maps")]
Result = Annotated[Path, typer.Option(metavar="FILE.safetensors", help="where the result goes")]
Steps = Annotated[int | None, typer.Option(metavar="N", help="instead of the configuration's; a run may be extended")]
Minutes = Annotated[float | None, typer.Option(metavar="M", help="train by the clock instead of by steps")]
MaskValues = Annotated[str | None, typer.Option(metavar="VALUES", help=MASK_VALUES_HELP)]
Features = Annotated[Path | None, typer.Option(metavar="FILE", help="its checkpoint, where loss.features is set")]


def _fill(
    settings: RunSettings, size: int, data: Path, teachers: Sequence[Teacher], folder: Path, mask_values: str | None
) -> Cache:
    """The cache in `folder`, filled with pictures of `size`, or of the one size that the settings name."""
    from datasets.folder import ImageFolder, PairFolder

    from .cache import Cache, build_cache

    sizes = settings.train.sizes
    side = sizes[0] if len(sizes) == 1 else size
    pictures = PairFolder(data, mask_values=mask_values) if (data / "masks").is_dir() else ImageFolder(data)
    with progress() as report:
        for done, count in build_cache(pictures, teachers, folder, size=side, truth=settings.teacher.truth):
            report("teachers' maps" if teachers else "pictures", done, count)
    return Cache.open(folder)


def _train(work: Callable[..., dict[str, Any]], *arguments: Any, **options: Any) -> None:
    """Show how far `work` is, and its figures."""
    with progress() as report:
        found = work(*arguments, **options, say=say, tick=lambda done: report("training", int(1000 * done), 1000))
    if found:
        figures = f"{found['against']} {found['val_iou']:.4f} mean IoU on held-out pictures"
        result(found, f"{found['out']}/weights.safetensors: {figures}")


@application.command(
    examples="""
u2net train cache --config small-fast.toml --data photos --teacher u2netp.safetensors
u2net train cache --config small-fast.toml --data photos --teacher u2netp.safetensors --teacher isnet.onnx
u2net train cache --config small-fast.toml --data photos --teacher maps.npz
"""
)
def cache(
    config: Config,
    data: Annotated[Path, typer.Option(metavar="DIR", help="pictures, or images/ and masks/")],
    teacher: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE",
            help="a checkpoint, an .onnx with a .toml beside it, or ready maps (folder or .npz); several are averaged",
        ),
    ],
    cache: CacheFolder = CACHE,
    mask_values: MaskValues = None,
) -> None:
    """Decode pictures once and store the teachers' map for each."""
    from u2net.network.model import CONFIGS as SHAPES

    from .config import load_settings
    from .teachers import load_teacher

    settings = load_settings(config)
    how = settings.teacher
    teachers = [load_teacher(path, how.flip, how.scales, how.fast) for path in teacher]
    made = _fill(settings, SHAPES[settings.model].size, data, teachers, cache, mask_values)
    figures = {"cache": str(cache), "pictures": len(made), "size": made.size}
    result(
        figures, f"{cache}: {len(made)} pictures of {made.size}×{made.size} with the maps of {len(teachers)} teachers"
    )


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
    """Prune a network to a share of its multiplications and fit what is left to what it gave.

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
def prune(config: Config, weights: Weights, out: Result, cache: CacheFolder = CACHE) -> None:
    """Make a smaller start of the configured model out of larger weights."""
    from u2net.network.checkpoint import load_checkpoint, save_checkpoint
    from u2net.network.model import CONFIGS as SHAPES

    from .cache import Cache
    from .config import load_settings
    from .prune import macs, make_start

    settings = load_settings(config)
    source, target = load_checkpoint(weights), SHAPES[settings.model]
    before = macs(source.config) / 1e9
    start = make_start(source, target, Cache.open(cache), settings.prune, settings.train.holdout, say)
    save_checkpoint(start, out)
    figures = {"out": str(out), "model": target.name, "gmac_before": before, "gmac_after": macs(target) / 1e9}
    result(figures, f"{out}: {before:.2f} → {figures['gmac_after']:.2f} GMAC")


@application.command(
    examples="""
u2net train distill --config small-fast.toml --start start.safetensors --teacher u2netp.safetensors
u2net train distill --config small-fast.toml --start start.safetensors --minutes 10 --teacher u2netp.safetensors
torchrun --nproc-per-node 2 -m train distill --config lite.toml --start start.safetensors --teacher u2netp.safetensors
"""
)
def distill(
    config: Config,
    start: Annotated[Path | None, typer.Option(metavar="FILE", help="weights to begin with (default: random)")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="folder of the run (build/train/MODEL)")] = None,
    teacher: Features = None,
    cache: CacheFolder = CACHE,
    steps: Steps = None,
    minutes: Minutes = None,
    repeat: Annotated[
        Path | None, typer.Option(metavar="DIR", help="repeat the steps and rates of this run by the clock")
    ] = None,
) -> None:
    """Train the configured model to give the teachers' maps.

    A killed run is continued by the same command. The folder of the run holds weights.safetensors (the averaged weights
    in float16), state.pt (to continue from), log.csv and curve.svg.
    """
    from .config import load_settings
    from .run import run, with_length

    settings = with_length(load_settings(config), steps, minutes)
    _train(run, settings, cache, out or Path("build/train") / settings.model, start, teacher, repeat=repeat)


@application.command(
    examples="""
u2net train finetune --data portraits --out build/train/portraits
u2net train finetune --data products --start u2netp.safetensors --out build/train/products --minutes 20
"""
)
def finetune(
    data: Annotated[Path, typer.Option(metavar="DIR", help="a folder with images/ and masks/")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="folder of the run")],
    model: Annotated[str, typer.Option(metavar="NAME", help="whose weights to begin with")] = DEFAULT_MODEL,
    start: Annotated[Path | None, typer.Option(metavar="FILE", help="a checkpoint to begin with instead")] = None,
    config: Annotated[
        Path,
        typer.Option(metavar="FILE.toml", help="settings of the run", show_default="train/configs/finetune.toml"),
    ] = CONFIGS / "finetune.toml",
    teacher: Annotated[
        Path | None, typer.Option(metavar="FILE", help="mix in this network's maps, so that less is forgotten")
    ] = None,
    steps: Steps = None,
    minutes: Minutes = None,
    mask_values: MaskValues = None,
) -> None:
    """Train on your own pictures and masks: portraits, products, …

    Agreement is with your masks, on pictures that are kept out of training and copied to held-out/ in the folder of the
    run: judge there (u2net eval --data). A run that ends below its start fails.
    """
    from u2net.network.checkpoint import load_checkpoint

    from .config import load_settings
    from .loop import ranks
    from .run import run, with_length
    from .teachers import load_teacher
    from .validation import copy_held_out

    settings = with_length(load_settings(config), steps, minutes)
    weights = start or own_weights(model)
    if not (data / "masks").is_dir():
        raise ConfigError(f"{data} has no folder masks/; fine-tuning needs images/ and masks/")
    how = settings.teacher
    with ranks() as me:
        if me.first:
            teachers = [load_teacher(teacher, how.flip, how.scales, how.fast)] if teacher else []
            size = load_checkpoint(weights).config.size
            cache = _fill(settings, size, data, teachers, out / "cache", mask_values)
            copy_held_out(data, cache, settings.train.holdout, out / "held-out")
        me.wait()
    _train(run, settings, out / "cache", out, weights, teacher, any_shape=True)


@application.command(
    examples="u2net train temperature --config lite.toml --weights trained.safetensors --out lite.safetensors"
)
def temperature(config: Config, weights: Weights, out: Result, cache: CacheFolder = CACHE) -> None:
    """Scale the fused map's logits to come nearest the teachers' held-out maps."""
    import torch

    from u2net.network.checkpoint import load_checkpoint

    from .cache import Cache
    from .config import load_settings
    from .loop import save_weights
    from .validation import fit_temperature, held_out, scale_logits

    settings = load_settings(config)
    torch.set_num_threads(settings.train.threads)
    model, opened = load_checkpoint(weights), Cache.open(cache)
    _, rows = held_out(opened, settings.train.holdout)
    factor, errors = fit_temperature(model, opened, rows, torch.device("cpu"))
    scale_logits(model, factor)
    save_weights(model, out)
    figures = {"out": str(out), "factor": factor, "mae_before": errors[1.0], "mae_after": errors[factor]}
    result(figures, f"{out}: logits times {factor:.2f}, held-out MAE {errors[1.0]:.4f} → {errors[factor]:.4f}")


@application.command(examples="u2net train average a/weights.safetensors b/weights.safetensors --out mean.safetensors")
def average(
    weights: Annotated[list[Path], typer.Argument(metavar="FILE", help="checkpoints of one shape")], out: Result
) -> None:
    """Write the mean of the weights of several runs from one start."""
    from u2net.network.checkpoint import load_checkpoint

    from .average import mean_of
    from .loop import save_weights

    save_weights(mean_of([load_checkpoint(path) for path in weights]), out)
    result({"out": str(out), "weights": [str(path) for path in weights]}, f"{out}: the mean of {len(weights)}")


@application.command(examples="u2net train curve build/train/small-fast")
def curve(run: Annotated[Path, typer.Argument(metavar="DIR", help="folder of a run")]) -> None:
    """Draw the learning curve of a run again."""
    from .curve import draw_curve

    picture = run / "curve.svg"
    draw_curve(run / "log.csv", picture, run.name)
    result({"curve": str(picture)}, str(picture))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    return application.run(argv)

"""The command line of training. Under `torchrun` every command but `distill` and `finetune` runs in one process."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from u2net.errors import ConfigError, U2NetError

if TYPE_CHECKING:
    from rich.progress import Progress

    from u2net.network.model import U2Net

    from .cache import Cache
    from .config import RunSettings
    from .loop import Ranks

__all__ = ["main"]

EPILOG = """examples:
  cd train/configs, or give the whole path of a configuration:
  python -m train cache    --config small-fast.toml --data photos --teacher u2netp.safetensors
  python -m train prune    --config small-fast.toml --weights u2netp.safetensors --out start.safetensors
  python -m train distill  --config small-fast.toml --start start.safetensors --teacher u2netp.safetensors
  python -m train temperature --config small-fast.toml --weights trained.safetensors --out small-fast.safetensors
  python -m train finetune --config finetune.toml --data portraits --out build/train/portraits
  torchrun --nproc-per-node 2 -m train distill --config lite.toml --start start.safetensors --teacher u2netp.safetensors

A killed run is continued by the same command. --out (default build/train/MODEL) then holds weights.safetensors
(float16, the averaged weights), state.pt (to continue from), log.csv and curve.svg.
"""
CACHE = Path("build/train/cache")
WEIGHTS = Path(__file__).resolve().parent.parent / "u2net" / "weights"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train",
        description="Distil, prune and fine-tune U²-Nets.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--json", action="store_true", help="print the result as JSON")
        if name not in ("average", "curve"):
            command.add_argument("--config", metavar="FILE.toml", type=Path, required=True, help="settings of the run")
        return command

    def add_cache(command: argparse.ArgumentParser) -> None:
        command.add_argument("--cache", metavar="DIR", type=Path, default=CACHE, help=f"teacher's maps ({CACHE})")

    command = add("cache", "decode pictures once and store the teacher's maps for them")
    command.add_argument("--data", metavar="DIR", type=Path, required=True, help="pictures, or images/ and masks/")
    command.add_argument("--teacher", metavar="FILE", type=Path, required=True, help="the teacher's checkpoint")
    add_cache(command)

    command = add("prune", "make a smaller start of the configured model out of larger weights")
    command.add_argument("--weights", metavar="FILE", type=Path, required=True, help="checkpoint of a wider network")
    command.add_argument("--out", metavar="FILE.safetensors", type=Path, required=True, help="where the start goes")
    add_cache(command)

    command = add("distill", "train the configured model to give the teacher's maps")
    command.add_argument("--start", metavar="FILE", type=Path, help="weights to begin with (default: random)")
    command.add_argument("--out", metavar="DIR", type=Path, help="folder of the run (default build/train/MODEL)")
    command.add_argument("--steps", type=int, metavar="N", help="instead of the configuration's; a run may be extended")
    command.add_argument("--teacher", metavar="FILE", type=Path, help="its checkpoint, where loss.features is set")
    add_cache(command)

    command = add("finetune", "train on your own pictures and masks, for portraits, products, …")
    command.add_argument("--data", metavar="DIR", type=Path, required=True, help="a folder with images/ and masks/")
    command.add_argument("--start", metavar="FILE", type=Path, help="weights to begin with (default: the model's own)")
    command.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder of the run")
    command.add_argument("--steps", type=int, metavar="N", help="instead of the configuration's")
    command.add_argument(
        "--teacher", metavar="FILE", type=Path, help="mix in this checkpoint's maps, so that less is forgotten"
    )

    command = add("temperature", "scale the fused map's logits to come nearest the teacher's held-out maps")
    command.add_argument("--weights", metavar="FILE", type=Path, required=True, help="checkpoint of a trained model")
    command.add_argument("--out", metavar="FILE.safetensors", type=Path, required=True, help="where the result goes")
    add_cache(command)

    command = add("average", "write the mean of the weights of several runs from one start")
    command.add_argument("weights", metavar="FILE", type=Path, nargs="+", help="checkpoints of one shape")
    command.add_argument("--out", metavar="FILE.safetensors", type=Path, required=True, help="where the mean goes")

    command = add("curve", "draw the learning curve of a run again")
    command.add_argument("run", metavar="DIR", type=Path, help="folder of the run")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, 1 for what `U2NetError` reports, 2 for wrong usage."""
    arguments = build_parser().parse_args(argv)
    commands = {"cache": _cache, "prune": _prune, "distill": _distill, "finetune": _finetune}
    commands |= {"temperature": _temperature, "average": _average, "curve": _curve}
    try:
        result = commands[arguments.command](arguments)
    except U2NetError as error:
        print(f"train: {_one_line(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("train: interrupted; the same command continues", file=sys.stderr)
        return 130
    if arguments.json and result:
        print(json.dumps(result, indent=2, sort_keys=True))
    return 0


def _one_line(text: str) -> str:
    """`text` with control characters escaped: a file's name must not forge lines of a log."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _progress() -> Progress:
    """A bar on standard error with its lines above it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True, soft_wrap=True, highlight=False))


def _settings(arguments: argparse.Namespace) -> RunSettings:
    from dataclasses import replace

    from .config import load_settings

    settings = load_settings(arguments.config)
    if getattr(arguments, "steps", None) is not None:
        settings = replace(settings, train=replace(settings.train, steps=arguments.steps))
    return settings


def _fill(settings: RunSettings, data: Path, teacher: U2Net | None, folder: Path, truth: float) -> Cache:
    from datasets.folder import ImageFolder, PairFolder

    from .cache import Cache, build_cache

    pictures = PairFolder(data) if (data / "masks").is_dir() else ImageFolder(data)
    with _progress() as progress:
        task = progress.add_task("teacher's maps" if teacher else "pictures", total=len(pictures))
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
        for done, _ in made:
            progress.update(task, completed=done)
    return Cache.open(folder)


def _model_size(settings: RunSettings) -> int:
    from u2net.network.model import CONFIGS

    return CONFIGS[settings.model].size


def _cache(arguments: argparse.Namespace) -> dict[str, Any]:
    from u2net.network.checkpoint import load_checkpoint

    settings = _settings(arguments)
    teacher = load_checkpoint(arguments.teacher)
    cache = _fill(settings, arguments.data, teacher, arguments.cache, settings.teacher.truth)
    _say(f"{arguments.cache}: {len(cache)} pictures of {cache.size}×{cache.size}, maps of {teacher.config.name}")
    return {"cache": str(arguments.cache), "pictures": len(cache), "size": cache.size}


def _prune(arguments: argparse.Namespace) -> dict[str, Any]:
    from u2net.network.checkpoint import load_checkpoint, save_checkpoint
    from u2net.network.model import CONFIGS

    from .cache import Cache
    from .prune import macs, make_start

    settings = _settings(arguments)
    source = load_checkpoint(arguments.weights)
    target = CONFIGS[settings.model]
    start = make_start(source, target, Cache.open(arguments.cache), settings.prune, settings.train.holdout, _say)
    save_checkpoint(start, arguments.out)
    figures = {"gmac_before": macs(source.config) / 1e9, "gmac_after": macs(target) / 1e9}
    _say(f"{arguments.out}: {figures['gmac_before']:.2f} → {figures['gmac_after']:.2f} GMAC")
    return {"out": str(arguments.out), "model": target.name, **figures}


def _distill(arguments: argparse.Namespace) -> dict[str, Any]:
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


def _finetune(arguments: argparse.Namespace) -> dict[str, Any]:
    from u2net.network.checkpoint import load_checkpoint

    from .cache import Cache
    from .loop import ranks

    settings = _settings(arguments)
    start = arguments.start or WEIGHTS / f"{settings.model}.safetensors"
    model = load_checkpoint(start)
    if not (arguments.data / "masks").is_dir():
        raise ConfigError(f"{arguments.data} has no folder masks/; fine-tuning needs images/ and masks/")
    teacher = load_checkpoint(arguments.teacher) if arguments.teacher else None
    with ranks() as me:
        if me.first:
            truth = settings.teacher.truth if teacher else 1.0
            _fill(settings, arguments.data, teacher, arguments.out / "cache", truth)
        me.wait()
        return _run(model, Cache.open(arguments.out / "cache"), arguments.out, settings, me, teacher)


def _run(
    model: U2Net, cache: Cache, out: Path, settings: RunSettings, me: Ranks, teacher: U2Net | None = None
) -> dict[str, Any]:
    from .curve import draw_curve
    from .loop import train

    with _progress() as progress:
        task = progress.add_task("training", total=settings.train.steps, visible=me.first)
        say = progress.console.print

        def tick(step: int) -> None:
            progress.update(task, completed=step)

        result = train(model, cache, out, settings.train, me, say, tick, teacher=teacher)
    if not me.first:
        return {}
    title = f"{settings.model}: {settings.train.steps} steps of {settings.train.batch} pictures"
    draw_curve(out / "log.csv", out / "curve.svg", title)
    _say(f"{out / 'weights.safetensors'}: agreement {result.get('val_iou', float('nan')):.4f} mean IoU")
    return {"out": str(out), "settings": asdict(settings), **result}


def _temperature(arguments: argparse.Namespace) -> dict[str, Any]:
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
    _say(f"{arguments.out}: logits times {factor:.2f}, held-out MAE {before:.4f} → {errors[factor]:.4f}")
    return {"out": str(arguments.out), "factor": factor, "mae_before": before, "mae_after": errors[factor]}


def _average(arguments: argparse.Namespace) -> dict[str, Any]:
    from u2net.network.checkpoint import load_checkpoint

    from .average import mean_of
    from .loop import save_half

    save_half(mean_of([load_checkpoint(path) for path in arguments.weights]), arguments.out)
    _say(f"{arguments.out}: the mean of {len(arguments.weights)}")
    return {"out": str(arguments.out), "weights": [str(path) for path in arguments.weights]}


def _curve(arguments: argparse.Namespace) -> dict[str, Any]:
    from .curve import draw_curve

    picture = arguments.run / "curve.svg"
    draw_curve(arguments.run / "log.csv", picture, arguments.run.name)
    _say(str(picture))
    return {"curve": str(picture)}

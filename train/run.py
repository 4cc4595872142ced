"""One run from files to files. As `python -m train.run` it needs torch, numpy, Pillow and safetensors alone.

That is for a GPU machine without a package registry: copy the folders `train/`, `u2net/` and `datasets/`, a cache, the
start and the teacher there, and bring the folder of the run back.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from u2net.errors import ConfigError, U2NetError
from u2net.network.checkpoint import load_checkpoint
from u2net.network.model import CONFIGS, U2Net, U2NetConfig

from .cache import Cache
from .config import RunSettings, load_settings
from .curve import draw_curve
from .loop import ranks, seeded, train
from .state import steps_of

__all__ = ["main", "run", "with_length"]


def with_length(settings: RunSettings, steps: int | None, minutes: float | None) -> RunSettings:
    """`settings` with another length: that of a run may change between its parts."""
    if steps is not None:
        settings = replace(settings, train=replace(settings.train, steps=steps, minutes=0.0))
    if minutes is not None:
        settings = replace(settings, train=replace(settings.train, minutes=minutes))
    return settings


def _start(path: Path | None, config: U2NetConfig | None, seed: int) -> U2Net:
    if path is None:
        assert config is not None
        with seeded(seed):
            return U2Net(config)
    model = load_checkpoint(path)
    if config is not None:
        if not model.config.same_shape(config):
            raise ConfigError(f"{path} is not a {config.name} but a {model.config.name}")
        model.config = replace(model.config, size=config.size)
    return model


def run(
    settings: RunSettings,
    cache: Path,
    out: Path,
    start: Path | None,
    teacher: Path | None = None,
    any_shape: bool = False,
    repeat: Path | None = None,
    say: Callable[[str], None] = print,
    tick: Callable[[float], None] = lambda done: None,
) -> dict[str, Any]:
    """Train as `settings` say and draw the curve; figures of the last validation. Under `torchrun`, {} but in rank 0.

    `any_shape` takes `start` whatever its shape, else it must be `settings.model`'s.
    """
    model = _start(start, None if any_shape else CONFIGS[settings.model], settings.train.seed)
    features = load_checkpoint(teacher) if teacher else None
    done = steps_of(repeat) if repeat else None
    with ranks() as me:
        opened = Cache.open(cache)
        found = train(model, opened, out, settings.train, me, say, tick, teacher=features, repeat=done)
        if not me.first:
            return {}
    length = f"{settings.train.minutes:g} minutes" if settings.train.minutes else f"{settings.train.steps} steps"
    draw_curve(
        out / "log.csv", out / "curve.svg", f"{settings.model}: {length}, {settings.train.batch} pictures a step"
    )
    return {"out": str(out), "against": opened.against, "settings": asdict(settings), **found}


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m train.run`; the exit status is 0, or 1 for what `U2NetError` reports."""
    parser = argparse.ArgumentParser(prog="python -m train.run", description="Train on a cache, wherever torch is.")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE.toml", help="settings of the run")
    parser.add_argument("--cache", type=Path, required=True, metavar="DIR", help="pictures and the teacher's maps")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    parser.add_argument("--start", type=Path, metavar="FILE", help="weights to begin with (default: random)")
    parser.add_argument("--teacher", type=Path, metavar="FILE", help="its checkpoint, where loss.features is set")
    parser.add_argument("--steps", type=int, metavar="N", help="instead of the configuration's")
    parser.add_argument("--minutes", type=float, metavar="M", help="train by the clock instead")
    arguments = parser.parse_args(argv)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    try:
        settings = with_length(load_settings(arguments.config), arguments.steps, arguments.minutes)
        run(settings, arguments.cache, arguments.out, arguments.start, arguments.teacher, say=say)
    except U2NetError as error:
        say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The one training loop: distillation, fine-tuning and healing after pruning differ in their settings alone.

Notable choices:

- **exact resume**: batches are a function of (seed, step, rank), the state file holds weights, optimizer, average and
  step, so a killed run continues with the numbers that it would have had;
- **by steps or by the clock**: with `minutes` the rate follows the time that the run has had, which suits a rented GPU.
  The state keeps how far each step was, so such a run can be repeated step by step (`repeat`), to the same weights;
- **never below the start**: the start is validated first (step 0), a run that ends below it fails and leaves the start;
- **true batch norm**: a start whose batch norm was folded away gets real statistics before it is trained. With few
  pictures `frozen` keeps the statistics as they are: batches of eight portraits say little about the next picture;
- **warm-up, constant, decay**: the learning rate is constant until the last part of the run, so a run that is given
  more or fewer steps continues without a jump;
- **exponential average** of the weights is what is validated and shipped;
- **any launcher**: alone, or under `torchrun` with gloo on CPUs and nccl on GPUs; `batch` is all ranks' together;
- the teacher's maps come out of the cache; its features are too many to store, so a run that asks for them
  (`loss.features`) has the teacher compute them from the augmented pictures, its inner stages alone;
- a side map is compared where the network computes it, not after upsampling: cheaper, and coarse maps stay coarse.
"""

from __future__ import annotations

import copy
import csv
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from u2net.errors import ConfigError, QualityError
from u2net.files import atomic_path
from u2net.network.checkpoint import save_checkpoint
from u2net.network.model import U2Net

from .augment import Augmentation, Group, Pictures, batch_rows, make_batch, side_targets
from .batchnorm import is_folded, rebase_batch_norm
from .cache import Cache
from .features import FEATURE_STAGES, feature_loss
from .forward import memory_format, normalise_batch, prepare_teacher
from .losses import LossWeights, distillation_loss
from .state import State, read_state, save_state
from .validation import held_out, map_sides, validate

__all__ = [
    "Ranks",
    "TrainSettings",
    "ranks",
    "save_weights",
    "seeded",
    "train",
]

WORSE_BY = 0.005  # of IoU, that a run may end below its start: fresh batch-norm statistics alone move as much
LOG_COLUMNS = (
    "step",
    "seconds",
    "lr",
    "total",
    "fused",
    "iou",
    "sides",
    "features",
    "val_mae",
    "val_iou",
    "val_max_error",
)


@dataclass(frozen=True)
class TrainSettings:
    """One run. Two runs with equal settings and one number of ranks give the same weights on one kind of machine."""

    steps: int = 4000  # optimizer steps in all, where `minutes` is 0
    minutes: float = 0.0  # train so long instead; the last average is written before they are over
    batch: int = 16  # pictures per step, over all ranks: the least that keeps batch norm steady at these widths
    lr: float = 2e-3  # AdamW's peak
    warmup: int = 100  # steps from 0 to the peak: fresh batch-norm statistics settle
    decay: float = 0.35  # last part of the run in which the rate falls to 0
    weight_decay: float = 1e-4  # of convolution weights; batch norm and biases have none
    clip: float = 2.0  # largest gradient norm
    ema: float = 0.998  # average of weights; its memory is 500 steps
    seed: int = 0  # of the order of pictures and of every augmentation
    sizes: tuple[int, ...] = ()  # input sides in pixels, drawn per step; by default the network's own
    precision: str = "auto"  # "fp32", "bf16", "fp16" (older GPUs); auto is bf16 on GPUs that have it, else fp32
    frozen: bool = False  # batch norm keeps its statistics: for few pictures and small batches
    at_once: int = 0  # pictures of a batch in memory, where frozen; 0 is all: fewer suit a processor, all a GPU
    threads: int = 1  # per process; on a busy CPU two processes of one thread beat two threads that wait for each other
    holdout: int = 160  # pictures kept out of training to validate on, at most a quarter of all
    validate_every: int = 250  # steps
    save_every: int = 100  # steps between states that a killed run continues from
    share: dict[str, float] = field(
        default_factory=dict
    )  # of a set's pictures in an epoch, by set name; all by default
    augmentation: Augmentation = field(default_factory=Augmentation)
    loss: LossWeights = field(default_factory=LossWeights)

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or self.lr <= 0 or not 0 <= self.decay <= 1 or not 0 <= self.ema < 1:
            raise ConfigError("steps, batch and lr must be positive, decay in [0, 1] and ema in [0, 1)")
        if self.at_once < 0 or (self.at_once and not self.frozen):
            raise ConfigError("at_once must not be negative, and needs frozen = true: batch norm would see parts")
        if self.minutes < 0:
            raise ConfigError("minutes must not be negative")
        if self.precision not in ("auto", "fp32", "bf16", "fp16"):
            raise ConfigError(f"precision must be auto, fp32, bf16 or fp16, got {self.precision!r}")
        if any(s < 32 or s % 4 for s in self.sizes):
            raise ConfigError("sizes must be multiples of 4 from 32 up")
        if any(not 0 <= share <= 1 for share in self.share.values()):
            raise ConfigError("train.share must be between 0 and 1 for every set")
        if self.validate_every < 1 or self.save_every < 1 or self.holdout < 1:
            raise ConfigError("validate_every, save_every and holdout must be positive")


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes the files and speaks."""
        return self.rank == 0

    def wait(self) -> None:
        """Until every process is here."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the block torch draws from `seed`; afterwards from where it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def ranks() -> Iterator[Ranks]:
    """Join the process group that `torchrun` announces in the environment, or be alone."""
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if world > 1:
        dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Ranks(rank, world, device)
    finally:
        if world > 1:
            dist.destroy_process_group()


class Student(nn.Module):
    """The network as DistributedDataParallel needs it: `forward` is what is differentiated."""

    def __init__(self, network: U2Net) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        outputs = self.network.stage_outputs(x)
        return self.network.maps(outputs), outputs


def shares(cache: Cache, rows: npt.NDArray[np.intp], share: dict[str, float]) -> list[Group]:
    """`rows` by set name (what stands before the first underscore of a stem), with how many of each make an epoch."""
    names = np.array([cache.stems[row].split("_", 1)[0] for row in rows])
    unknown = sorted(set(share) - set(names))
    if unknown:
        raise ConfigError(f"train.share names {', '.join(unknown)}, but there are {', '.join(sorted(set(names)))}")
    if not share:
        return [Group(rows, len(rows))]
    found = [(rows[names == name], share.get(str(name), 1.0)) for name in sorted(set(names))]
    groups = [Group(members, round(len(members) * part)) for members, part in found]
    if not sum(group.count for group in groups):
        raise ConfigError("train.share leaves no pictures; give a set a larger share")
    return groups


def rate(settings: TrainSettings, step: int, done: float) -> float:
    """Learning rate of step `step` (from 0) of a run of which `done` (0 to 1) is over: linear warm-up, constant, then
    linear to 0 over the last `decay`."""
    up = min(1.0, (step + 1) / max(1, settings.warmup))
    left = (1.0 - done) / max(1e-9, settings.decay)
    return settings.lr * min(up, 1.0, max(0.0, left))


def _precision(settings: TrainSettings, device: torch.device) -> torch.dtype | None:
    """What autocast computes in; None is float32 throughout."""
    if settings.precision == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else None
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(settings.precision)


def save_weights(model: U2Net, path: Path) -> None:
    """Write `model` as safetensors, atomically: float16, or float32 where a value does not fit (folded constants)."""
    half = copy.deepcopy(model).half()
    fits = all(bool(torch.isfinite(value).all()) for value in half.state_dict().values())
    save_checkpoint(half if fits else model, path)


def _average(average: U2Net, model: U2Net, keep: float) -> None:
    with torch.no_grad():
        for a, m in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
            if a.is_floating_point():
                a.lerp_(m.to(a.dtype), 1.0 - keep)
            else:
                a.copy_(m)


def _optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.99))


def _fingerprint(settings: TrainSettings, model: U2Net, cache: Cache, world: int) -> dict[str, Any]:
    """What must be equal for a state to be continued; the number of steps may grow or shrink."""
    about = asdict(settings)
    for free in ("steps", "minutes", "decay", "threads", "validate_every", "save_every"):
        del about[free]
    widths = [(w.mid, w.out) for w in model.config.widths]
    return {
        "settings": about,
        "widths": widths,
        "stem": model.config.stem,
        "first_pool": model.config.first_pool,
        "world": world,
        "pictures": len(cache),
    }


class Log:
    """CSV, one row per `LOG_COLUMNS`; rows after the step that a run continues from are dropped."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.rows: list[dict[str, str]] = []
        if path.exists() and step:
            with path.open(newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        self._write()

    def _write(self) -> None:
        with atomic_path(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, LOG_COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows)

    def add(self, **values: float) -> None:
        """Append one row; a missing column stays empty."""
        row = {k: (str(v) if isinstance(v, int) else f"{v:.6g}") for k, v in values.items()}
        self.rows.append(row)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, LOG_COLUMNS).writerow(row)


def train(
    model: U2Net,
    cache: Cache,
    out: Path,
    settings: TrainSettings,
    me: Ranks,
    say: Callable[[str], None] = print,
    tick: Callable[[float], None] = lambda done: None,
    stop_after: int | None = None,
    teacher: U2Net | None = None,
    repeat: Sequence[float] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, float]:
    """Train `model` on `cache`; the last validation of the average. Files in `out`: `state.pt` (to continue from),
    `weights.safetensors` (the average in float16), `log.csv`.

    Continues from `state.pt` where there is one; raises `ConfigError` where it is of another run, and `QualityError`
    where the run ends below its start in IoU and MAE, which is then what `weights.safetensors` holds.
    `say` gets a line a validation, `tick` how much is done after every step; `stop_after` ends the work at that step as
    a kill would, for tests.
    `teacher` is needed where `settings.loss.features` is not 0, and unused elsewhere. `repeat` is `steps_of` a run by
    the clock, whose steps and rates are then repeated; `clock` gives seconds.
    """
    if not settings.loss.features:
        teacher = None
    elif teacher is None:
        raise ConfigError("loss.features needs the teacher's checkpoint (--teacher)")
    if settings.batch % me.world:
        raise ConfigError(
            f"a batch of {settings.batch} cannot be shared by {me.world} ranks; make train.batch a multiple of it"
        )
    if settings.threads:
        torch.set_num_threads(settings.threads)
    sizes = settings.sizes or (model.config.size,)
    if any(size % model.config.stem for size in sizes):
        raise ConfigError(f"sizes must be multiples of the stem, {model.config.stem}")
    began = clock()
    device, layout = me.device, memory_format(me.device)
    dtype = _precision(settings, device)
    data = Pictures.of(cache, device)
    rows, validation = held_out(cache, settings.holdout)
    groups = shares(cache, rows, settings.share)
    model = model.to(device).to(memory_format=layout).eval()  # type: ignore[call-overload]
    fingerprint = _fingerprint(settings, model, cache, me.world)
    state_path = out / "state.pt"
    start = copy.deepcopy(model)
    if is_folded(model) and not settings.frozen and not state_path.exists():
        some = np.random.default_rng(settings.seed).permutation(rows)[:64]
        rebase_batch_norm(model, [normalise_batch(data.take(some[i : i + 4]).pictures) for i in range(0, len(some), 4)])
    average = copy.deepcopy(model).requires_grad_(False)
    model.train(not settings.frozen)
    if teacher is not None:
        teacher = prepare_teacher(teacher, fast=dtype is not None).to(device).to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = _optimizer(model, settings)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16 and device.type == "cuda")
    step, seconds_before, done = 0, 0.0, list[float]()
    first: dict[str, float] = {}
    if state_path.exists():
        state = read_state(state_path, device)
        if state.fingerprint != fingerprint:
            raise ConfigError(f"{state_path} is the state of a run with other settings; give another folder")
        model.load_state_dict(state.model)
        average.load_state_dict(state.average)
        optimizer.load_state_dict(state.optimizer)
        scaler.load_state_dict(state.scaler)
        step, seconds_before, done, first = state.step, state.seconds, state.done, state.first
        if me.first:
            say(f"continuing at step {step}")
    student: nn.Module = Student(model)
    if me.world > 1:
        student = DistributedDataParallel(student, device_ids=[device.index] if device.type == "cuda" else None)
    if me.first:
        out.mkdir(parents=True, exist_ok=True)
    log = Log(out / "log.csv", step) if me.first else None
    share = settings.batch // me.world
    latest: dict[str, float] = {}

    def seconds() -> float:
        return seconds_before + clock() - began

    def progress() -> float:
        """How much of the run is over, 0 to 1, the same for all ranks."""
        if repeat is not None:
            return repeat[step] if step < len(repeat) else 1.0
        if not settings.minutes:
            return step / settings.steps
        part = torch.tensor(seconds() / (60 * settings.minutes), dtype=torch.float64)
        if me.world > 1:
            part = part.to(device)
            dist.broadcast(part, 0)
        return min(1.0, float(part))

    def save() -> None:
        weights = (model.state_dict(), average.state_dict(), optimizer.state_dict(), scaler.state_dict())
        save_state(State(fingerprint, step, seconds(), done, first, *weights), state_path)
        save_weights(average, out / "weights.safetensors")

    def check(**values: float) -> None:
        """Validate the average, write a row of the log and say so."""
        nonlocal latest
        latest = validate(average, cache, validation, device)
        if log:
            log.add(step=step, seconds=seconds(), **values, **latest)
        say(
            f"step {step}{'' if settings.minutes else f'/{settings.steps}'}  {seconds():.0f} s  "
            + (f"loss {values['total']:.4f}  " if "total" in values else "")
            + f"{cache.against} on held-out pictures: IoU {latest['val_iou']:.4f}, MAE {latest['val_mae']:.4f}"
        )

    if me.first and not step:
        check()
        first = latest
    running: dict[str, Tensor] = {}
    counted, lr = 0, 0.0
    while True:
        part = progress()
        judged = me.first and counted > 0 and (part >= 1 or step % settings.validate_every == 0)
        saved = me.first and counted > 0 and (part >= 1 or step % settings.save_every == 0)
        if (judged or saved) and not math.isfinite(float(running["total"])):
            raise QualityError(f"the loss is not finite before step {step}; make train.lr lower")
        if judged:
            check(lr=lr, **{name: float(value) / counted for name, value in running.items()})
        if saved:
            save()
        if judged:
            running, counted = {}, 0
        if part >= 1 or (stop_after is not None and step >= stop_after):
            break
        size = int(np.random.default_rng([settings.seed, 2, step]).choice(sizes))
        picked = batch_rows(groups, step, settings.batch, settings.seed)[me.rank * share : (me.rank + 1) * share]
        batch = make_batch(data, picked, size, settings.augmentation, (settings.seed, 3, step, me.rank))
        lr = rate(settings, step, part)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad(set_to_none=True)
        for start_at in range(0, share, settings.at_once or share):
            part_of = slice(start_at, start_at + (settings.at_once or share))
            x = normalise_batch(batch.pictures[part_of]).contiguous(memory_format=layout)
            with torch.autocast(device.type, dtype) if dtype else nullcontext():
                logits, outputs = student(x)
                with torch.no_grad():
                    wanted = teacher.stage_outputs(x, FEATURE_STAGES[-1]) if teacher is not None else {}
            targets = side_targets(batch.maps[part_of], map_sides(model, size))
            terms = distillation_loss(tuple(z.float() for z in logits), targets, settings.loss)
            if wanted:
                terms["features"] = feature_loss(outputs, wanted)
                terms["total"] = terms["total"] + settings.loss.features * terms["features"]
            weight = len(x) / share
            scaler.scale(terms["total"] * weight).backward()
            for name, value in terms.items():  # nothing waits for the device here
                running[name] = running.get(name, torch.zeros((), device=device)) + value.detach() * weight
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        scaler.step(optimizer)
        scaler.update()
        # Early on, the average must forget the start faster than its memory.
        _average(average, model, min(settings.ema, (step + 1) / (step + 10)))
        step, counted = step + 1, counted + 1
        done.append(part)
        tick(part)
    if me.first and not latest:  # a run that was over already
        latest = validate(average, cache, validation, device)
    if me.first and not (out / "weights.safetensors").exists():  # no time for a single step
        save()
    worse = me.first and latest["val_iou"] < first["val_iou"] - WORSE_BY and latest["val_mae"] > first["val_mae"]
    if part >= 1 and worse:
        save_weights(start, out / "weights.safetensors")
        raise QualityError(
            f"the run ended below its start (on held-out pictures IoU {first['val_iou']:.4f} → "
            f"{latest['val_iou']:.4f}, MAE {first['val_mae']:.4f} → {latest['val_mae']:.4f}): "
            f"{out / 'weights.safetensors'} is the start; lower train.lr, or train for longer"
        )
    return latest

"""Mask quality of models over a set of pictures with ground truth: one row per picture and model, and their means.

Each picture is decoded once and given to every model in the same worker process, so a second model costs its inference
alone. Rows go to a journal (one JSON line each, keyed by what the model's and the picture's bytes are) as they come, so
a run that was stopped goes on where it was, and a model that has changed is judged anew.

Agreement is with the first model, on the 8-bit masks at the picture's size: IoU at one half (`agreement_iou`), and the
mean absolute difference (raw: no stretching).

With `second_look` each picture is looked at again as the runner does (`u2net.second_look`), and both masks are scored.
"""

from __future__ import annotations

import base64
import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from u2net.agreement import agreement_iou
from u2net.errors import ConfigError, DataError, ModelError, OutputError, U2NetError
from u2net.preprocess import resize_bilinear, sides, to_tensor
from u2net.sampling import to_alpha
from u2net.second_look import Seen, look_twice

from .metrics import Aggregate, Scores, Truth, score
from .models import Candidate

__all__ = ["FolderSamples", "ProceduralSamples", "QualitySettings", "Sample", "judge", "open_samples"]

ByteArray = npt.NDArray[np.uint8]
Progress = Callable[[int, int], None]
JOURNAL_VERSION = 3  # rows of another version are judged anew
NOTICED = 0.05  # of IoU: a change that is seen in the picture
DEFAULT_PROCEDURAL = 64  # scenes: enough for each kind of subject to come up several times


@dataclass(frozen=True)
class QualitySettings:
    """How quality is judged."""

    stretch: bool = False  # users get unstretched masks; True compares with published tables
    workers: int = 0  # 0: one per core; each holds every model
    limit: int = 0  # 0: all pictures; else that many, evenly spread, for a quick look
    second_look: bool = False  # also as the runner looks; takes three times as long

    def __post_init__(self) -> None:
        if self.workers < 0 or self.limit < 0:
            raise ConfigError("--workers and --limit cannot be negative; leave them out for all")


class Sample(Protocol):
    """One picture with its truth. Picklable and small: pixels are loaded in the worker."""

    @property
    def stem(self) -> str:
        """Unique name."""
        ...

    @property
    def set_name(self) -> str:
        """The set it belongs to."""
        ...

    def load(self) -> tuple[ByteArray, Truth]:
        """uint8 (H, W, 3) and the truth. Raises `U2NetError`."""
        ...

    def digest(self) -> str:
        """Changes when the picture or its truth does."""
        ...


@dataclass(frozen=True)
class FolderSample:
    """A pair of files."""

    record: Any

    @property
    def stem(self) -> str:
        return str(self.record.stem)

    @property
    def set_name(self) -> str:
        return str(self.record.set_name)

    def load(self) -> tuple[ByteArray, Truth]:
        grey = np.rint(self.record.alpha() * np.float32(255)).astype(np.uint8)
        return self.record.image(), Truth.of_bytes(grey)

    def digest(self) -> str:
        try:
            both = self.record.image_path.read_bytes() + b"\0" + self.record.mask_path.read_bytes()
        except OSError as error:
            raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error
        return hashlib.sha256(both).hexdigest()


@dataclass(frozen=True)
class ProceduralSample:
    """A scene of the procedural set."""

    seed: int
    index: int

    @property
    def stem(self) -> str:
        return f"procedural_{self.seed}-{self.index:05d}"

    @property
    def set_name(self) -> str:
        return "procedural"

    def load(self) -> tuple[ByteArray, Truth]:
        from datasets.synthetic import SyntheticSet

        scene = SyntheticSet(self.index + 1, self.seed)[self.index]
        grey = np.rint(scene.alpha * np.float32(255)).astype(np.uint8)
        return scene.rgb, Truth.of_bytes(grey, matte=True)

    def digest(self) -> str:
        rgb, truth = self.load()
        assert truth.alpha is not None
        return hashlib.sha256(rgb.tobytes() + truth.alpha.tobytes()).hexdigest()


class FolderSamples(list[FolderSample]):
    """All pairs of a folder with `images/` and `masks/`.

    Raises `DataError` where it is empty or does not fit, or a mask can be read in two ways and `mask_values` does not
    say which (`datasets.masks`).
    """

    def __init__(self, path: str | os.PathLike[str], mask_values: str | None = None) -> None:
        from datasets.folder import PairFolder

        pairs = PairFolder(path, mask_values=mask_values)
        pairs.check_masks()
        super().__init__(FolderSample(record) for record in pairs)
        self.source = Path(path).resolve().name


class ProceduralSamples(list[ProceduralSample]):
    """`count` scenes of the procedural set: no calibration uses seed 1000."""

    def __init__(self, count: int = DEFAULT_PROCEDURAL, seed: int = 1000) -> None:
        super().__init__(ProceduralSample(seed, index) for index in range(count))
        self.source = "procedural"


def open_samples(
    data: str | os.PathLike[str] | None, mask_values: str | None = None
) -> FolderSamples | ProceduralSamples:
    """The pairs of the folder `data`, or the procedural set where it is None."""
    return ProceduralSamples() if data is None else FolderSamples(data, mask_values)


class Predictor:
    """A model of any kind: picture in, 8-bit mask at the picture's size out. One thread, so that workers scale."""

    def __init__(self, candidate: Candidate) -> None:
        self.name = candidate.name
        self._saliency: Callable[[ByteArray, bool], npt.NDArray[np.float32]]
        if not (candidate.is_packed or candidate.is_checkpoint):
            from u2net.infer import Session

            self._saliency = Session(candidate.path, threads=1).saliency
            return
        if candidate.is_packed:
            from engine.runtime import EngineSession

            engine = EngineSession(candidate.path)
            size, run = engine.input_size, engine.run
        else:
            import torch

            from u2net.network.checkpoint import load_checkpoint

            torch.set_num_threads(1)
            model = load_checkpoint(candidate.path)
            size = sides(model.config.size)

            def run(tensor: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
                with torch.inference_mode():
                    fused = model(torch.from_numpy(tensor))[0]
                return np.asarray(fused[0, 0].numpy(), np.float32)

        def saliency(rgb: ByteArray, mirrored: bool) -> npt.NDArray[np.float32]:
            tensor = to_tensor(rgb, size)
            return run(np.ascontiguousarray(tensor[..., ::-1]))[:, ::-1] if mirrored else run(tensor)

        self._saliency = saliency

    def mask(self, rgb: ByteArray) -> ByteArray:
        """uint8 (H, W, 3) to uint8 (H, W). Raises `ModelError`."""
        return self.masks(rgb, False)[0]

    def masks(self, rgb: ByteArray, twice: bool) -> tuple[ByteArray, tuple[ByteArray, Seen] | None]:
        """The mask, uint8 (H, W), and where `twice` that of a second look and how it came about.

        Raises `ModelError`, where `twice` also for a model that sees pictures that are not square.
        """
        first = self._look(rgb)
        size, width = first.shape
        mask = to_alpha(resize_bilinear(first, *rgb.shape[:2]))
        if not twice:
            return mask, None
        if size != width:
            raise ModelError(f"{self.name} sees pictures of {width} × {size}; only square ones are looked at twice")

        def look(part: ByteArray, mirrored: bool) -> npt.NDArray[np.float32]:
            return first if part.shape == rgb.shape and not mirrored else self._look(part, mirrored)

        seen = look_twice(rgb, look, size)
        return mask, (to_alpha(resize_bilinear(seen.saliency, *rgb.shape[:2])), seen)

    def _look(self, rgb: ByteArray, mirrored: bool = False) -> npt.NDArray[np.float32]:
        saliency = self._saliency(rgb, mirrored)
        if not np.isfinite(saliency).all():
            raise ModelError(
                f"{self.name} gave values that are not finite numbers; export it again with `u2net export`"
            )
        return saliency


_predictors: list[Predictor] = []


def _start_worker(models: list[Candidate]) -> None:
    _predictors[:] = [Predictor(model) for model in models]


@dataclass(frozen=True)
class _Task:
    sample: Sample
    wanted: tuple[int, ...]  # models whose row is missing
    stretch: bool
    second_look: bool


def _judge_one(task: _Task) -> list[dict[str, Any]] | U2NetError:
    """Rows of one picture. Errors come back as values: an exception class with arguments may not unpickle."""
    try:
        rgb, truth = task.sample.load()
        made = {
            index: _predictors[index].masks(rgb, task.second_look and index in task.wanted)
            for index in sorted({0, *task.wanted})
        }
        reference = made[0][0]
        rows = []
        for index in task.wanted:
            mask, again = made[index]
            row = _row(score(mask, truth, task.stretch))
            row["agreement"] = {
                "iou": agreement_iou(mask > 127, reference > 127),
                "mae": float(np.abs(mask.astype(np.int16) - reference).mean() / 255),
            }
            if again is not None:
                second, seen = again
                how = {"looks": seen.looks, "used": seen.box is not None}
                row["second_look"] = _row(score(second, truth, task.stretch)) | how
            rows.append(row)
        return rows
    except U2NetError as error:
        return error
    except Exception as error:
        return DataError(f"{task.sample.stem}: {error or type(error).__name__}")


def _row(scores: Scores) -> dict[str, Any]:
    return {
        "values": scores.values,
        "matte": scores.matte,
        "constant": scores.constant,
        "curves": base64.b64encode(scores.curves.astype("<f4").tobytes()).decode(),
    }


def _scores(row: dict[str, Any]) -> Scores:
    curves = np.frombuffer(base64.b64decode(row["curves"]), "<f4").reshape(3, 256).astype(np.float64)
    return Scores(row["values"], row["matte"], curves, row["constant"])


class _Journal:
    """Rows by (model's sha256, reference's sha256, picture's digest), appended to a file as they come."""

    def __init__(self, path: Path | None, settings: QualitySettings) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self._path, self._head = path, f"{JOURNAL_VERSION}{'s' * settings.stretch}{'l' * settings.second_look}"
        if path is None or not path.exists():
            return
        try:
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                    self.rows[entry["key"]] = entry["row"]
                except (ValueError, KeyError, TypeError):
                    continue  # the line that was being written when the run was stopped
        except OSError as error:
            raise OutputError(f"{path} cannot be read: {error.strerror}") from error

    def key(self, model: Candidate, reference: Candidate, digest: str) -> str:
        return f"{self._head}:{model.sha256[:24]}:{reference.sha256[:24]}:{digest[:24]}"

    def add(self, entries: list[tuple[str, dict[str, Any]]]) -> None:
        self.rows.update(entries)
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write("".join(f"\n{json.dumps({'key': key, 'row': row})}" for key, row in entries))
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror}") from error


def judge(
    models: Sequence[Candidate],
    samples: Sequence[Sample],
    settings: QualitySettings | None = None,
    *,
    journal: Path | None = None,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Judge `models` (the first is the reference) on `samples`; the result is the report's `quality`.

    Rows already in the file `journal` are not judged again; new ones are appended to it. Raises `DataError`,
    `ModelError`; what was judged until then stays in the journal.
    """
    settings = settings or QualitySettings()
    if not models or not samples:
        raise ConfigError("quality needs at least one model and one picture; give pairs with --data DIR")
    source = getattr(samples, "source", "given")
    samples = _spread(samples, settings.limit)
    for model in models:
        Predictor(model)  # a model that cannot run is told here, in one line, and not by a dying worker
    known = _Journal(journal, settings)
    keys = [[known.key(model, models[0], digest) for model in models] for digest in (s.digest() for s in samples)]
    tasks = {
        i: _Task(sample, wanted, settings.stretch, settings.second_look)
        for i, sample in enumerate(samples)
        if (wanted := tuple(m for m in range(len(models)) if keys[i][m] not in known.rows))
    }
    done = len(samples) - len(tasks)
    progress(done, len(samples))
    with _pool(models, settings.workers, len(tasks)) as pool:
        futures: dict[Future[list[dict[str, Any]] | U2NetError], int] = {
            pool.submit(_judge_one, task): i for i, task in tasks.items()
        }
        failure: U2NetError | None = None
        try:
            for future in as_completed(futures):
                if future.cancelled():
                    continue
                rows, i = future.result(), futures[future]
                if isinstance(rows, U2NetError):
                    failure = failure or rows
                    for other in futures:
                        other.cancel()  # what is already being judged is still kept
                    continue
                known.add([(keys[i][m], row) for m, row in zip(tasks[i].wanted, rows, strict=True)])
                done += 1
                progress(done, len(samples))
        except BrokenProcessPool:
            kept = f"; {done} of {len(samples)} pictures are kept, run it again to go on" if journal else ""
            raise ModelError(f"a worker process died, perhaps for want of memory{kept}; try fewer --workers") from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failure is not None:
        raise failure
    return _result(models, samples, source, settings, [[known.rows[key] for key in row] for row in keys])


def _spread(samples: Sequence[Sample], limit: int) -> list[Sample]:
    if not limit or limit >= len(samples):
        return list(samples)
    return [samples[(2 * i + 1) * len(samples) // (2 * limit)] for i in range(limit)]


def _pool(models: Sequence[Candidate], workers: int, tasks: int) -> ProcessPoolExecutor:
    from u2net.cores import available_cores

    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # inherited by the workers, each of which is to use one core
    return ProcessPoolExecutor(
        max_workers=max(1, min(workers or available_cores(), tasks)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=([Candidate(model.name, model.path) for model in models],),
    )


def _result(
    models: Sequence[Candidate],
    samples: Sequence[Sample],
    source: str,
    settings: QualitySettings,
    rows: list[list[dict[str, Any]]],
) -> dict[str, Any]:
    sets = sorted({sample.set_name for sample in samples})
    result: dict[str, Any] = {
        "source": source,
        "pictures": len(samples),
        "sets": {name: sum(sample.set_name == name for sample in samples) for name in sets},
        "stretch": settings.stretch,
        "reference": models[0].name,
        "models": {},
    }
    for m, model in enumerate(models):
        mine = [row[m] for row in rows]
        overall = Aggregate(map(_scores, mine))
        by_set = _by_set(sets, samples, mine)
        result["models"][model.name] = {
            "overall": overall.results(),
            "sets": by_set,
            "curves": overall.curves(),
            "agreement": {
                "iou": float(np.mean([row["agreement"]["iou"] for row in mine])),
                "iou_p5": float(np.percentile([row["agreement"]["iou"] for row in mine], 5)),
                "iou_worst": float(min(row["agreement"]["iou"] for row in mine)),
                "mae": float(np.mean([row["agreement"]["mae"] for row in mine])),
            },
            "pictures": [
                {
                    "stem": sample.stem,
                    "set": sample.set_name,
                    **{name: round(value, 6) for name, value in row["values"].items()},
                    **({"matte": row["matte"]} if row["matte"] else {}),
                    "constant": row["constant"],
                    "agreement_iou": round(row["agreement"]["iou"], 6),
                    "agreement_mae": round(row["agreement"]["mae"], 6),
                }
                for sample, row in zip(samples, mine, strict=True)
            ],
        }
        if settings.second_look:
            result["models"][model.name]["second_look"] = _second_look(sets, samples, mine)
    return result


def _by_set(sets: Sequence[str], samples: Sequence[Sample], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        name: Aggregate(_scores(row) for s, row in zip(samples, rows, strict=True) if s.set_name == name).results()
        for name in sets
    }


def _second_look(sets: Sequence[str], samples: Sequence[Sample], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a second look changes: the report's `SecondLook`."""
    again = [row["second_look"] for row in rows]
    change = np.array([new["values"]["iou"] - row["values"]["iou"] for row, new in zip(rows, again, strict=True)])
    return {
        "overall": Aggregate(map(_scores, again)).results(),
        "sets": _by_set(sets, samples, again),
        "gained": int((change > NOTICED).sum()),
        "lost": int((change < -NOTICED).sum()),
        "worst": float(min(0.0, change.min())),
        "used": sum(row["used"] for row in again),
        "looks": float(np.mean([row["looks"] for row in again])),
    }

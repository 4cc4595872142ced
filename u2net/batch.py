"""Many pictures: what to do (`find_pictures`, `plan`), doing one of them (`Worker`), doing them all (`run`, `watch`).

- Outputs are encoded in memory and placed whole, so whatever the moment of a kill, a file is there complete or not at
  all.
- A **journal** in the output folder makes runs repeatable. Before a worker places its files it appends one line: the
  key of the work (SHA-256 over the input's bytes, the model's bytes and every setting) and the SHA-256 of each file it
  is about to place. A later run does a picture again unless its newest line has the same key and the files on disk are
  the ones it speaks of; so a killed run is resumed without writing anything twice, and a picture or a setting that
  changed is done again.
- With several jobs each worker is a process with one inference session; cores are divided among them. A worker that
  dies (a crash in a codec, the kernel's memory killer) costs the picture that killed it, not the batch.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from glob import glob
from pathlib import Path
from typing import Any, Literal

from .composite import parse_colour
from .cores import available_cores, inference_threads
from .decode import SUFFIXES, UNREAD_SUFFIXES, read_source
from .encode import OutputFormat, format_of, place
from .errors import ConfigError, ImageError, OutputError, U2NetError
from .files import check_path, sha256_bytes, sha256_file
from .produce import Part, Producer, Product, ProductSettings

__all__ = [
    "JOURNAL_NAME",
    "BatchSettings",
    "Result",
    "Task",
    "Worker",
    "die_with_parent",
    "find_pictures",
    "plan",
    "read_journal",
    "run",
    "run_ray",
    "watch",
]

JOURNAL_NAME = ".u2net-journal.jsonl"
_KEY_VERSION = 3  # raise it when the same settings begin to give other pixels


@dataclass(frozen=True)
class BatchSettings(ProductSettings):
    """What is made of each picture, and where the journal is."""

    journal: str | None = None  # path of the journal; None: nothing is skipped or noted
    force: bool = False  # do again what the journal says is done


@dataclass(frozen=True)
class Task:
    """One picture: where it is and where its results go. `previous` is the journal's newest line for them."""

    input: str
    output: str | None
    mask: str | None = None
    previous: dict[str, Any] | None = None


@dataclass(frozen=True)
class Result:
    """What became of a task. `error` is one readable line."""

    input: str
    output: str | None
    mask: str | None
    status: Literal["done", "skipped", "failed"]
    error: str | None = None
    width: int | None = None
    height: int | None = None
    notes: tuple[str, ...] = ()
    input_sha256: str | None = None
    seconds: float = 0.0
    subject: dict[str, Any] | None = None  # see `subject.Subject`
    timings: dict[str, float] = field(default_factory=dict)  # milliseconds of each step

    def of(self, product: Product, status: Literal["done", "failed"] = "done") -> Result:
        """This, with what was made."""
        return replace(
            self,
            status=status,
            error=product.error,
            width=product.width,
            height=product.height,
            notes=product.notes,
            subject=product.subject.as_json(),
            timings=product.timings,
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values, for the log."""
        timings = {step: round(value, 2) for step, value in self.timings.items()}
        return asdict(self) | {"notes": list(self.notes), "seconds": round(self.seconds, 4), "timings": timings}


# What to do


def find_pictures(
    inputs: Iterable[str], *, recursive: bool = False, exclude: str | None = None
) -> tuple[list[tuple[Path, Path]], list[Result]]:
    """(picture, the folder that its place is counted from) for every input, and a failed `Result` for each bad one.

    An input is a file (taken whatever its suffix), a folder (its pictures by suffix, those that cannot be read among
    them, so that nobody misses one in silence; in order of name; hidden ones and
    the folder `exclude` left out; folders inside only if `recursive`, symbolic links to folders never), or a pattern
    (`*`, `?`, `[…]`, `**`).
    """
    found: dict[Path, Path] = {}
    failed: list[Result] = []
    shut = Path(exclude).resolve() if exclude is not None else None
    for text in inputs:
        try:
            path = check_path(text)
            if path.is_dir():
                names = list(_pictures_in(path, path, recursive, shut))
            elif path.exists():
                names = [(path, path.parent)]
            elif any(c in text for c in "*?["):
                # `**` walks through links to folders, loops among them: each file once.
                matches = {os.path.realpath(p): Path(p) for p in sorted(glob(text, recursive=True), reverse=True)}
                names = [(path, path.parent) for path in reversed(matches.values()) if path.is_file()]
            else:
                raise ImageError(f"{text}: no such file or folder")
            if not names:
                raise ImageError(f"{text}: no pictures there")
        except (U2NetError, OSError, ValueError) as error:
            failed.append(Result(text, None, None, "failed", str(error)))
            continue
        for name, root in names:
            found.setdefault(name, root)
    return list(found.items()), failed


def _pictures_in(folder: Path, root: Path, recursive: bool, shut: Path | None) -> Iterator[tuple[Path, Path]]:
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith("."):
            continue
        path = Path(entry.path)
        if entry.is_dir():
            if recursive and not entry.is_symlink() and path.resolve() != shut:
                yield from _pictures_in(path, root, recursive, shut)
        elif path.suffix.lower() in SUFFIXES | UNREAD_SUFFIXES:
            yield path, root


def plan(
    pictures: Sequence[tuple[Path, Path]],
    *,
    output: str | None,
    mask: str | None,
    suffix: str = ".png",
    keep_structure: bool = False,
    keep_suffix: bool = False,
    journal: str | None = None,
) -> list[Task]:
    """Tasks that write `output/<name><suffix>` and `mask/<name>.png`, both folders, for each picture.

    With `keep_structure` the folders under the input are kept, with `keep_suffix` the picture's own suffix.
    Raises `ConfigError` where two pictures would be written to the same file or a picture would be overwritten.
    """
    done = read_journal(journal) if journal else {}
    taken: dict[str, Path] = {}
    tasks = []
    for path, root in pictures:
        name = path.relative_to(root) if keep_structure else Path(path.name)
        stem = name.name if keep_suffix else name.stem
        targets: list[str | None] = []
        for folder, end in ((output, suffix), (mask, ".png")):
            targets.append(None if folder is None else str(Path(folder) / name.parent / (stem + end)))
        if targets[0] is not None and targets[0] == targets[1]:
            raise ConfigError("the cut-outs and the masks need different folders")
        for target in targets:
            if target is None:
                continue
            if target in taken:
                raise ConfigError(
                    f"{taken[target]} and {path} would both be written to {target}; "
                    "see --keep-structure and --keep-suffix"
                )
            taken[target] = path
        tasks.append(Task(str(path), targets[0], targets[1], done.get(_journal_name(targets, journal))))
    inputs = {os.path.realpath(path) for path, _ in pictures}
    for target in taken:
        if os.path.realpath(target) in inputs:
            raise ConfigError(f"{target} is one of the inputs; choose another output folder")
    return tasks


def _journal_name(targets: Sequence[str | None], journal: str | None) -> str:
    """What the journal calls a task: its first target, counted from the journal's folder so that it can be moved."""
    first = next(target for target in targets if target is not None)
    return os.path.relpath(first, Path(journal).parent) if journal else first


def read_journal(path: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """Newest line of each output. A line that a kill cut short is passed over."""
    lines: dict[str, dict[str, Any]] = {}
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise OutputError(f"cannot read the journal {path}: not a regular file")
        text = Path(path).read_bytes()
    except FileNotFoundError:
        return lines
    except OSError as error:
        raise OutputError(f"cannot read the journal {path}: {error.strerror or error}") from error
    for line in text.split(b"\n"):
        try:
            value = json.loads(line)
            if isinstance(value["key"], str) and isinstance(value["files"], dict):
                lines[value["output"]] = value
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return lines


# Doing one


class Worker:
    """Does tasks, one call each. Built once per process; never raises for what a picture can cause."""

    def __init__(self, settings: BatchSettings) -> None:
        self.settings = settings
        self.produce = Producer(settings)
        self._base = self._settings_key()

    def __call__(self, task: Task) -> Result:
        start = time.perf_counter()
        result = Result(task.input, task.output, task.mask, "failed")
        try:
            result = self._do(task, result)
        except U2NetError as error:
            result = replace(result, error=str(error))
        except MemoryError:
            result = replace(result, error=f"{task.input}: not enough memory")
        return replace(result, seconds=time.perf_counter() - start)

    def _settings_key(self) -> bytes:
        settings = self.settings
        background = self.produce.background
        picture = background.picture if background is not None else None
        value = {
            "version": _KEY_VERSION,
            "model": sha256_file(settings.model),
            "refinement": asdict(settings.refinement),
            "stretch": settings.stretch,
            "background": settings.background if picture is None else sha256_bytes(picture.tobytes()),
            "encoding": asdict(settings.encoding),
            "keep_metadata": settings.keep_metadata,
            "crop": asdict(settings.crop),
            "shadow": asdict(settings.shadow),
        }
        return json.dumps(value, sort_keys=True).encode()

    def _do(self, task: Task, result: Result) -> Result:
        try:
            data = read_source(task.input, self.settings.limits)
        except ImageError as error:
            raise ImageError(f"{task.input}: {error}") from error
        except OSError as error:
            raise ImageError(f"{task.input}: {error.strerror or error}") from error
        result = replace(result, input_sha256=sha256_bytes(data))
        wanted: dict[Part, str | None] = {"cutout": task.output, "mask": task.mask}
        forms: dict[Part, OutputFormat] = {part: format_of(path) for part, path in wanted.items() if path is not None}
        targets = [path for path in wanted.values() if path is not None]
        key = hashlib.sha256(b"\0".join((data, self._base, ",".join(forms.values()).encode()))).hexdigest()
        if self._is_done(task, targets, key):
            return replace(result, status="skipped")
        product = self.produce(data, task.input, forms)
        if product.error is not None:
            return result.of(product, "failed")
        files = dict(zip(targets, product.files.values(), strict=True))
        digests = {target: sha256_bytes(content) for target, content in files.items()}
        self._note(targets, key, digests)
        for target, content in files.items():
            # A run that was killed between two files, or another one at work on the same folder, may have placed it.
            if self.settings.journal is None or self.settings.force or not _is_file(target, digests[target]):
                place(target, content)
        return result.of(product)

    def _is_done(self, task: Task, targets: Sequence[str], key: str) -> bool:
        previous = task.previous
        if previous is None or self.settings.force or self.settings.journal is None or previous.get("key") != key:
            return False
        files = previous["files"]
        return all(_is_file(target, files.get(_journal_name([target], self.settings.journal))) for target in targets)

    def _note(self, targets: Sequence[str], key: str, digests: dict[str, str]) -> None:
        journal = self.settings.journal
        if journal is None:
            return
        files = {_journal_name([target], journal): digest for target, digest in digests.items()}
        line = {"output": _journal_name(targets, journal), "key": key, "files": files}
        # The leading newline ends a line that a kill cut short. One write with O_APPEND is not torn by other writers.
        text = b"\n" + json.dumps(line, sort_keys=True).encode() + b"\n"
        try:
            Path(journal).parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            descriptor = os.open(journal, flags, 0o666)
            try:
                if os.write(descriptor, text) != len(text):
                    raise OSError("the disk is full")
            finally:
                os.close(descriptor)
        except OSError as error:
            raise OutputError(f"cannot write {journal}: {error.strerror or error}") from error


def _is_file(path: str, digest: object) -> bool:
    """Whether `path` is a regular file (no link) with that SHA-256."""
    try:
        return not Path(path).is_symlink() and sha256_file(path) == digest
    except OSError:
        return False


# Doing them all

_worker: Worker | None = None


def _start_worker(settings: BatchSettings) -> None:
    global _worker
    die_with_parent()
    _worker = Worker(settings)


def die_with_parent() -> None:
    """End this process when its parent is gone: a killed batch must not go on writing behind its successor's back."""
    from multiprocessing import connection, parent_process

    parent = parent_process()
    if parent is None:
        return

    def watch_parent() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch_parent, daemon=True).start()


def _work(task: Task) -> Result:
    assert _worker is not None
    return _worker(task)


def run(tasks: Sequence[Task], settings: BatchSettings, jobs: int | None = None) -> Iterator[Result]:
    """Do all tasks and yield their results as they come; with one job in the order of the tasks.

    `jobs` is a number of processes, never more than this process may use cores; each takes one core, unless the
    settings name its threads. By default they are as many as the cores, which they share, where there are tasks enough.
    One job runs in this process. Raises `ModelError` and `ConfigError` before the first result where the settings
    cannot work.
    """
    cores = available_cores()
    if jobs is not None and jobs < 1:
        raise ConfigError(f"jobs must be at least 1, got {jobs}")
    count = min(cores, len(tasks), jobs or (cores if len(tasks) >= 4 else 1))
    shared = 1 if jobs is not None else min(inference_threads(), max(1, cores // max(1, count)))
    settings = replace(settings, threads=settings.threads or shared)
    if count <= 1:
        worker = Worker(settings)
        for task in tasks:
            yield worker(task)
        return
    yield from _run_pool(tasks, settings, count)


def _pool(settings: BatchSettings, count: int) -> ProcessPoolExecutor:
    from multiprocessing import get_context

    return ProcessPoolExecutor(count, get_context("spawn"), _start_worker, (settings,))


def _run_pool(tasks: Sequence[Task], settings: BatchSettings, count: int) -> Iterator[Result]:
    # Said here, before a pool of processes would say it less clearly.
    Producer(replace(settings, threads=1))
    waiting = list(reversed(tasks))
    suspects: list[Task] = []
    while waiting:
        pool = _pool(settings, count)
        under_way: dict[Future[Result], Task] = {}
        try:
            while waiting or under_way:
                while waiting and len(under_way) < 2 * count:  # a short queue: memory stays flat for a million tasks
                    task = waiting.pop()
                    under_way[pool.submit(_work, task)] = task
                finished, _ = wait(under_way, return_when=FIRST_COMPLETED)
                for future in finished:
                    result = future.result()
                    del under_way[future]
                    yield result
        except BrokenProcessPool:
            suspects.extend(under_way.values())  # one of these killed its worker
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        for task in suspects:
            yield _alone(task, settings)
        suspects = []


def _alone(task: Task, settings: BatchSettings) -> Result:
    """Do a task in a process of its own: what kills that process is this very picture."""
    with _pool(settings, 1) as pool:
        try:
            return pool.submit(_work, task).result()
        except BrokenProcessPool:
            error = f"{task.input}: the process that worked on it died (out of memory, or a crash in a codec)"
            return Result(task.input, task.output, task.mask, "failed", error)


def watch(
    make_tasks: Callable[[], Sequence[Task]], settings: BatchSettings, jobs: int | None = None, interval_s: float = 1.0
) -> Iterator[Result]:
    """Do tasks as they turn up, for ever: every `interval_s` seconds those of `make_tasks()` whose input is new.

    An input counts as new when its size and time of change are not those last seen, and is taken once both have stood
    still for one interval, so that a file still being copied is left alone.
    """
    seen: dict[str, tuple[int, int]] = {}
    done: dict[str, tuple[int, int]] = {}
    while True:
        ready = []
        for task in make_tasks():
            try:
                status = Path(task.input).stat()
            except OSError:
                continue
            state = (status.st_size, status.st_mtime_ns)
            if done.get(task.input) != state and seen.get(task.input) == state:
                ready.append(task)
                done[task.input] = state
            seen[task.input] = state
        if ready:
            yield from run(ready, settings, jobs)
        time.sleep(interval_s)


def run_ray(tasks: Sequence[Task], settings: BatchSettings, jobs: int | None = None) -> Iterator[Result]:
    """`run` as a Ray Data pipeline, on the cluster that Ray finds (or starts, on this machine alone).

    Inputs, outputs and the model must lie on storage that every machine sees under the same path. `jobs` is the number
    of workers, by default as many as the cluster has cores; each takes one core. Raises `ConfigError` where Ray is not
    installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nightly builds of Ray report unless they are told not to
    try:
        import ray
        import ray.data
    except ImportError:
        raise ConfigError("--ray needs Ray: pip install 'u2net-remover[ray]'") from None
    if not tasks:
        return
    settings = replace(settings, threads=1)
    Producer(settings)
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False, configure_logging=False)
    workers = jobs or max(1, int(ray.cluster_resources().get("CPU", 1)))
    settings = replace(settings, model=str(Path(settings.model).absolute()), journal=_absolute(settings.journal))
    if settings.background != "transparent" and parse_colour(settings.background) is None:
        settings = replace(settings, background=_absolute(settings.background) or "")
    rows = []
    for index, task in enumerate(tasks):
        paths = {name: _absolute(getattr(task, name)) for name in ("input", "output", "mask")}
        rows.append({"index": index, "task": json.dumps(asdict(task) | paths)})
    data = ray.data.from_items(rows, override_num_blocks=min(len(rows), 4 * workers))
    done = data.map(
        _RayWorker,  # type: ignore[arg-type]  # Ray takes classes whose instances are callable
        fn_constructor_args=(settings,),
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(tasks))),
        num_cpus=1,
    )
    for row in done.iter_rows():
        value, task = json.loads(row["result"]), tasks[row["index"]]
        value |= {"notes": tuple(value["notes"]), "input": task.input, "output": task.output, "mask": task.mask}
        yield Result(**value)


def _absolute(path: str | None) -> str | None:
    return None if path is None else str(Path(path).absolute())


class _RayWorker:
    """`Worker` for rows of Ray Data; built on the machine that runs it."""

    def __init__(self, settings: BatchSettings) -> None:
        self.worker = Worker(settings)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"index": row["index"], "result": json.dumps(self.worker(Task(**json.loads(row["task"]))).as_json())}

"""Latency of models where they will run: onnxruntime-web in a real headless Chromium, and beside it Node and native.

Notable choices:

- **real pictures**: the time of an int8 model depends on its data, and zeros lie by a tenth;
- **interleaved rounds**: every round runs every model once, in alternating order, on the same picture, so that a slow
  minute of the machine hits all alike; a ratio is the median over rounds of one model's time to the baseline model's
  *in the same round*, with the distribution-free confidence interval of that median (order statistics);
- **rounds until it is settled**: from `rounds` on, measuring stops once every ratio's interval is narrower than
  ±`precision`, and at `max_rounds` in any case; the interval is part of the result;
- **what really ran**: threads, workers, cross-origin isolation and the execution provider are read back from the engine
  and compared with what was asked for; a silent fallback is an error, not a slow measurement;
- **what was computed**: each engine gives back its masks, which are compared with native onnxruntime's.
"""

from __future__ import annotations

import argparse
import base64
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from u2net.errors import ConfigError, ImageError, ModelError, U2NetError
from u2net.files import canonical_json, write_bytes, write_json
from u2net.preprocess import resize_bilinear

from .engines import BACKENDS, Backend, Engine, EngineDied, EngineError
from .models import Candidate, candidates, transfer_sizes
from .server import BenchServer

__all__ = ["LatencySettings", "Picture", "faults", "load_pictures", "measure_latency", "ratio_of_medians"]

MaskArray = npt.NDArray[np.float32]
Progress = Callable[[str, float], None]
Save = Callable[[dict[str, Any]], None]
BROWSER_BACKENDS = ("wasm", "wasm-threads", "webgpu")


@dataclass(frozen=True)
class LatencySettings:
    """How latency is measured. Raises `ConfigError` on values that cannot work."""

    backends: tuple[str, ...] = ()  # empty: all browser backends that this machine has, and native
    rounds: int = 12  # the least for a 95 % interval that leaves out two outliers on either side
    max_rounds: int = 36  # a noisy machine stops here, with a wider interval
    precision: float = 0.02  # ±2 %: well inside the 5 % within which two runs are to agree
    warmup: int = 2  # the first run tiers up the wasm, the second fills the caches
    cold_starts: int = 3  # a median of three leaves out one hiccup
    threads: int = field(default_factory=lambda: min(4, max(2, os.cpu_count() or 2)))  # engine's own cap is 4
    port: int = 0  # any free one
    software_gpu: bool = False  # software WebGPU computes the right mask in absurd time: for tests of the path only

    def __post_init__(self) -> None:
        unknown = [name for name in self.backends if name not in BACKENDS]
        if unknown:
            raise ConfigError(f"unknown backend {unknown[0]}; there are {', '.join(BACKENDS)}")
        if self.rounds < 1 or self.warmup < 0 or self.cold_starts < 1 or self.threads < 2:
            raise ConfigError("latency needs rounds ≥ 1, warmup ≥ 0, cold_starts ≥ 1 and threads ≥ 2")
        if not 0 <= self.port < 65536:
            raise ConfigError(f"there is no port {self.port}")


@dataclass(frozen=True, eq=False)
class Picture:
    """A test picture: uint8 (H, W, 3) sRGB, and its ground truth bool (H, W) where there is one."""

    name: str
    rgb: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.bool_] | None = None


def load_pictures(image: str | None, data: str | None, count: int = 3) -> list[Picture]:
    """The test pictures: the one at `image`, else `count` pairs spread over the folder `data`, else procedural ones."""
    if image is not None:
        try:
            with Image.open(image) as opened:
                return [Picture(Path(image).stem, np.asarray(opened.convert("RGB")))]
        except Exception as error:
            raise ImageError(f"{image} cannot be read as a picture: {error}") from error
    if data is not None:
        from datasets.folder import PairFolder

        pairs = PairFolder(data)
        chosen = [pairs[(2 * i + 1) * len(pairs) // (2 * count)] for i in range(min(count, len(pairs)))]
        return [Picture(pair.stem, pair.image(), pair.mask()) for pair in chosen]
    from datasets.synthetic import SyntheticSet

    return [Picture(f"procedural-{s.index}", s.rgb, s.alpha > 0.5) for s in SyntheticSet(count)]


def ratio_of_medians(model_ms: Sequence[float], baseline_ms: Sequence[float]) -> dict[str, Any]:
    """The median of `model_ms[i] / baseline_ms[i]`, and the 95 % confidence interval of that median.

    The interval is between two order statistics (no assumption on the distribution); below 6 rounds it is the range.
    """
    from scipy.stats import binom

    pairs = np.sort(np.asarray(model_ms, float) / np.asarray(baseline_ms, float))
    cut = max(int(binom.ppf(0.025, len(pairs), 0.5)) - 1, 0)
    return {
        "median": float(np.median(pairs)),
        "low": float(pairs[cut]),
        "high": float(pairs[len(pairs) - 1 - cut]),
        "pairs": len(pairs),
    }


class _Prepared:
    """Models and pictures as every engine takes them."""

    def __init__(self, models: Sequence[Candidate], pictures: Sequence[Picture]) -> None:
        self.models, self.pictures = models, pictures
        self.feeds = [[model.feed(picture.rgb) for picture in pictures] for model in models]
        self.identity = _identity_model()

    def model_bytes(self, key: str) -> bytes:
        return self.identity if key == "identity" else self.models[int(key)].path.read_bytes()

    def feed_bytes(self, index: int, picture: int) -> bytes:
        return self.feeds[index][picture].tobytes()

    def question(self, index: int, picture: int, mask: bool = False) -> dict[str, Any]:
        feed, graph = self.feeds[index][picture], self.models[index].graph
        described = {
            "name": graph.input_name,
            "output": graph.output_name,
            "type": feed.dtype.name,
            "dims": list(feed.shape),
        }
        return {"index": index, "picture": picture, "input": described, "mask": mask}


def _identity_model() -> bytes:
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", values[:1], values[1:])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    return bytes(model.SerializeToString())


def measure_latency(
    models: Sequence[Candidate],
    pictures: Sequence[Picture],
    settings: LatencySettings | None = None,
    *,
    progress: Progress = lambda message, done: None,
    save: Save = lambda partial: None,
    masks_folder: Path | None = None,
) -> dict[str, Any]:
    """Measure `models` (the first is the baseline) on every backend; the result is the report's `latency`.

    A backend ends as `measured`, `partial` (it died on the way: what was measured is kept), `failed` or `skipped`, the
    last three with a `reason`. `save` gets the result so far after every round. With `masks_folder` the masks of the
    first picture are written there as `<backend>/<model>.png`. Raises `ModelError` where a file is not a U²-Net.
    """
    settings = settings or LatencySettings()
    if not models or not pictures:
        raise ConfigError("latency needs at least one model and one picture")
    for model in models:
        if model.is_checkpoint:
            raise ModelError(f"{model.path} is a checkpoint; only ONNX models run in a browser (make export)")
    prepared = _Prepared(models, pictures)
    result: dict[str, Any] = {
        "baseline": models[0].name,
        "machine": machine(),
        "settings": {**asdict(settings), "pictures": [picture.name for picture in pictures]},
        "backends": {},
    }
    asked = settings.backends or (*BROWSER_BACKENDS, "native")
    started = time.monotonic()
    with BenchServer(prepared.model_bytes, prepared.feed_bytes, settings.port) as server:
        reference = _reference_masks(prepared, server.origin, progress)
        queue = list(asked)
        while queue:
            name = queue.pop(0)
            record: dict[str, Any] = {"title": BACKENDS[name].title, "models": {}}
            record |= {"status": "partial", "reason": "it was stopped"}  # what stays true where nothing follows
            result["backends"][name] = record
            run = _BackendRun(BACKENDS[name], prepared, server.origin, settings, reference, record, result, save)
            try:
                run.measure(progress, masks_folder)
            except _Unavailable as error:
                record |= {"status": "failed" if settings.backends else "skipped", "reason": str(error)}
                if not settings.backends and name == "wasm" and "node" not in asked:
                    queue.insert(0, "node")  # no browser here: Node runs the same wasm
            except EngineDied as error:
                record |= {"status": "partial" if run.rounds_done else "failed", "reason": str(error)}
            except EngineError as error:
                record |= {"status": "failed", "reason": str(error)}
            run.summarise()
            save(result)
    result["measured_for_s"] = round(time.monotonic() - started, 1)
    result["machine"]["load_1m_at_end"] = _load()
    return result


class _Unavailable(U2NetError):
    """This machine does not have the backend."""


def machine() -> dict[str, Any]:
    """What the figures were measured on: no host name, nothing that says whose it is."""
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    except OSError:
        pass
    return {"cpu": cpu, "cores": os.cpu_count(), "system": platform.system(), "load_1m_at_start": _load()}


def _load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _decode(answer: dict[str, Any]) -> MaskArray:
    """The mask of an answer as float32 (s, s) in [0, 1]."""
    raw = np.frombuffer(base64.b64decode(answer["mask"]), np.dtype(answer["type"]))
    mask = raw.reshape(answer["dims"]).squeeze().astype(np.float32)
    return mask / np.float32(255) if answer["type"] == "uint8" else mask


def _reference_masks(prepared: _Prepared, origin: str, progress: Progress) -> list[list[MaskArray]]:
    """Native onnxruntime's masks, per model and picture."""
    progress("native reference masks", 0.0)
    engine = BACKENDS["native"].open(origin)
    try:
        engine.call("start", {"provider": "cpu", "threads": 1})
        masks = []
        for index, model in enumerate(prepared.models):
            try:
                engine.call("load", {"index": index})
                answers = [
                    engine.call("run", prepared.question(index, p, mask=True)) for p in range(len(prepared.pictures))
                ]
            except EngineError as error:
                raise ModelError(f"{model.path} does not run in onnxruntime: {error}") from error
            masks.append([_decode(answer) for answer in answers])
        return masks
    finally:
        engine.close()


class _BackendRun:
    """One backend's measurement, filling `record` as it goes."""

    def __init__(
        self,
        backend: Backend,
        prepared: _Prepared,
        origin: str,
        settings: LatencySettings,
        reference: list[list[MaskArray]],
        record: dict[str, Any],
        result: dict[str, Any],
        save: Save,
    ) -> None:
        self.backend, self.prepared, self.origin, self.settings = backend, prepared, origin, settings
        self.reference, self.record, self.result, self.save = reference, record, result, save
        self.threads = backend.threads(settings.threads)
        self.running: list[int] = []
        self.times: dict[int, list[float]] = {}

    @property
    def rounds_done(self) -> int:
        return min((len(self.times[index]) for index in self.running), default=0)

    def measure(self, progress: Progress, masks_folder: Path | None) -> None:
        """Cold starts of each model alone, then interleaved rounds of all together."""
        models = self.prepared.models
        for index, model in enumerate(models):
            progress(f"{self.backend.title}: {model.name} cold", index / (2 * len(models)))
            entry: dict[str, Any] = {"status": "measured"}
            self.record["models"][model.name] = entry
            try:
                entry |= self._cold(index)
                self.running.append(index)
            except EngineDied:
                raise
            except _Refused as error:
                entry |= {"status": "failed", "reason": str(error)}
        if not self.running:
            raise EngineError("no model runs here: " + self.record["models"][models[0].name]["reason"])
        self.times = {index: [] for index in self.running}
        engine = self._open()
        try:
            for index in self.running:
                engine.call("load", {"index": index})
            self._masks(engine, masks_folder)
            for warmup in range(self.settings.warmup):
                for index in self.running:
                    engine.call("run", self.prepared.question(index, warmup % len(self.prepared.pictures)))
            self._rounds(engine, progress)
            self._check(engine)
            self.record["status"] = "measured"
            self.record.pop("reason", None)
            failed = [n for n, m in self.record["models"].items() if m["status"] != "measured"]
            if failed:
                self.record |= {"status": "partial", "reason": f"{', '.join(failed)} does not run here"}
        finally:
            engine.close()

    def _open(self) -> Engine:
        try:
            engine = self.backend.open(self.origin, self.settings.software_gpu)
        except EngineDied:
            raise
        except EngineError as error:
            raise _Unavailable(str(error)) from error
        try:
            if self.backend.provider == "webgpu":
                adapter = engine.call("adapter")
                if adapter is None:
                    raise _Unavailable("this browser has no WebGPU adapter")
                if adapter["software"] and not self.settings.software_gpu:
                    raise _Unavailable("the only WebGPU adapter is a software one, whose times mean nothing")
                self.record["adapter"] = adapter
            self.engine_start_ms = engine.call("start", {"provider": self.backend.provider, "threads": self.threads})[
                "engine_start_ms"
            ]
            self._check(engine)
        except BaseException:
            engine.close()
            raise
        return engine

    def _check(self, engine: Engine) -> dict[str, Any]:
        """Compare what really runs with what was asked for; raises `EngineError` on a silent fallback."""
        facts = engine.call("facts")
        faults = []
        if facts["threads"] != self.threads:
            faults.append(f"asked for {self.threads} threads, the engine runs on {facts['threads']}")
        if self.backend.kind == "page" and not facts["cross_origin_isolated"]:
            faults.append("the page is not cross-origin isolated, so threads are off")
        if self.backend.kind == "page" and facts["workers"] < self.threads - 1:
            faults.append(f"{self.threads} threads need {self.threads - 1} workers, {facts['workers']} were started")
        if self.backend.kind == "native" and set(facts["providers"]) - {"CPUExecutionProvider"}:
            faults.append(f"the session runs on {', '.join(facts['providers'])}")
        if faults:
            raise EngineError("silent fallback: " + "; ".join(faults))
        self.record["really"] = {
            **{
                key: facts[key]
                for key in ("engine", "browser", "node", "threads", "cross_origin_isolated")
                if key in facts
            },
            "provider": self.backend.provider,
        }
        return facts

    def _cold(self, index: int) -> dict[str, Any]:
        """Start an engine of its own for model `index`, several times."""
        starts = []
        for _ in range(self.settings.cold_starts):
            engine = self._open()
            try:
                try:
                    session_ms = engine.call("load", {"index": index})["session_ms"]
                    first_run_ms = engine.call("run", self.prepared.question(index, 0))["ms"]
                except EngineDied:
                    raise
                except EngineError as error:
                    raise _Refused(str(error)) from error
                heap = self._check(engine)["heap_bytes"]
                starts.append((self.engine_start_ms, session_ms, first_run_ms, heap or 0))
            finally:
                engine.close()
        start, session, first, heap = np.median(np.array(starts, float), axis=0)
        return {
            "engine_start_ms": round(float(start), 1),
            "session_ms": round(float(session), 1),
            "first_run_ms": round(float(first), 1),
            "memory_bytes": int(heap) or None,
        }

    def _masks(self, engine: Engine, folder: Path | None) -> None:
        """Compare this engine's masks with native onnxruntime's, and with the truth."""
        for index in self.running:
            name = self.prepared.models[index].name
            rows = []
            for p, picture in enumerate(self.prepared.pictures):
                mask = _decode(engine.call("run", self.prepared.question(index, p, mask=True)))
                native = self.reference[index][p]
                difference = np.abs(mask - native)
                row = {
                    "picture": picture.name,
                    "max_difference": float(difference.max()),
                    "mean_difference": float(difference.mean()),
                    "iou_with_native": _iou(mask > 0.5, native > 0.5),
                }
                if picture.truth is not None:
                    row["iou_with_truth"] = _truth_iou(mask, picture.truth)
                    row["native_iou_with_truth"] = _truth_iou(native, picture.truth)
                rows.append(row)
                if folder is not None and p == 0:
                    _write_mask(folder / self.backend.name / f"{name.replace('/', '-')}.png", mask)
            self.record["models"][name]["masks"] = rows

    def _rounds(self, engine: Engine, progress: Progress) -> None:
        """Interleaved rounds until every ratio has settled."""
        settings, title = self.settings, self.backend.title
        for number in range(max(settings.rounds, settings.max_rounds)):
            progress(f"{title}: round {number + 1}", 0.5 + 0.49 * min(1.0, number / settings.rounds))
            order = self.running if number % 2 == 0 else self.running[::-1]
            timed = {
                index: engine.call("run", self.prepared.question(index, number % len(self.prepared.pictures)))["ms"]
                for index in order
            }
            for index, ms in timed.items():
                self.times[index].append(ms)
            self.summarise()
            self.save(self.result)
            if number + 1 >= settings.rounds and self._settled():
                break

    def _settled(self) -> bool:
        """Whether every ratio's interval is narrow enough."""
        ratios = [m["ratio"] for m in self.record["models"].values() if "ratio" in m]
        return all((r["high"] - r["low"]) / 2 <= self.settings.precision * r["median"] for r in ratios)

    def summarise(self) -> None:
        """Bring the record up to date with the rounds so far."""
        baseline = self.times.get(0)
        self.record["rounds"] = self.rounds_done
        for index in self.running:
            times = self.times.get(index)
            if not times:
                continue
            low, median, high = np.percentile(times, [25, 50, 75])
            entry = self.record["models"][self.prepared.models[index].name]
            entry |= {
                "median_ms": round(float(median), 2),
                "min_ms": round(min(times), 2),
                "spread": round(float((high - low) / median), 4),
                "rounds_ms": [round(ms, 2) for ms in times],
            }
            if baseline and len(baseline) == len(times):
                entry["ratio"] = {key: round(value, 4) for key, value in ratio_of_medians(times, baseline).items()}


class _Refused(EngineError):
    """The engine runs, but not this model."""


def _iou(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    union = np.count_nonzero(a | b)
    return float(np.count_nonzero(a & b) / union) if union else 1.0


def _truth_iou(mask: MaskArray, truth: npt.NDArray[np.bool_]) -> float:
    return _iou(resize_bilinear(mask, *truth.shape) > 0.5, truth)


def _write_mask(path: Path, mask: MaskArray) -> None:
    import io

    buffer = io.BytesIO()
    Image.fromarray(np.floor(mask * 255 + 0.5).clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    write_bytes(path, buffer.getvalue())


def faults(result: dict[str, Any]) -> list[str]:
    """What went wrong, one line each: backends that failed, and those that ended early."""
    return [
        f"{name} {record['status']}: {record['reason']}"
        for name, record in result["backends"].items()
        if record["status"] in ("failed", "partial")
    ]


def add_arguments(parser: argparse._ActionsContainer) -> None:
    """The options that say how latency is measured."""
    default = LatencySettings()
    parser.add_argument(
        "--backends",
        metavar="LIST",
        help=f"comma-separated, of {', '.join(BACKENDS)}; one that is named and cannot run is an error."
        " Without it: every browser backend that this machine has (Node where there is no browser), and native",
    )
    parser.add_argument("--rounds", type=int, default=default.rounds, help="least rounds (default %(default)s)")
    parser.add_argument(
        "--max-rounds",
        type=int,
        help=f"most rounds, while ratios are not within ±{100 * default.precision:.0f} %% (default 3 × --rounds)",
    )
    parser.add_argument(
        "--cold-starts", type=int, default=default.cold_starts, help="fresh starts per model (default %(default)s)"
    )
    parser.add_argument(
        "--threads", type=int, default=default.threads, help="threads of wasm-threads (default %(default)s)"
    )
    parser.add_argument("--port", type=int, default=0, help="port of the loopback server (default: any free one)")
    parser.add_argument(
        "--software-webgpu", action="store_true", help="accept a software WebGPU adapter (slow; right masks)"
    )


def settings_from(arguments: argparse.Namespace) -> LatencySettings:
    """The settings that `add_arguments`' options say."""
    return LatencySettings(
        backends=tuple(filter(None, (arguments.backends or "").split(","))),
        rounds=arguments.rounds,
        max_rounds=arguments.max_rounds if arguments.max_rounds is not None else 3 * arguments.rounds,
        cold_starts=arguments.cold_starts,
        threads=arguments.threads,
        port=arguments.port,
        software_gpu=arguments.software_webgpu,
    )


def print_latency(result: dict[str, Any], console: Any) -> None:
    """One table per backend on a rich console."""
    from rich.table import Table

    for record in result["backends"].values():
        really = record.get("really", {})
        title = f"{record['title']} · {record['status']}"
        table = Table(title=title, title_justify="left", caption_justify="left", header_style="bold")
        table.caption = " · ".join(
            [*(str(really[k]) for k in ("browser", "node", "engine") if k in really)]
            + ([f"{really['threads']} threads"] if really.get("threads", 1) > 1 else [])
            + ([f"{record['rounds']} rounds"] if record.get("rounds") else [])
            + ([record["reason"]] if "reason" in record else [])
        )
        for column in (
            "model",
            "median ms",
            "spread",
            "ratio",
            "95 %",
            "start",
            "session",
            "first run",
            "memory",
            "mask Δ",
        ):
            table.add_column(column, justify="left" if column == "model" else "right", no_wrap=column != "model")
        for name, m in record["models"].items():
            ratio = m.get("ratio")
            table.add_row(
                name,
                f"{m['median_ms']:.1f}" if "median_ms" in m else m.get("reason", "–"),
                f"{m['spread']:.1%}" if "spread" in m else "–",
                f"{ratio['median']:.3f}" if ratio else "–",
                f"{ratio['low']:.3f}–{ratio['high']:.3f}" if ratio else "–",
                *(f"{m[k]:.0f} ms" if k in m else "–" for k in ("engine_start_ms", "session_ms", "first_run_ms")),
                f"{m['memory_bytes'] / 2**20:.0f} MiB" if m.get("memory_bytes") else "–",
                f"{max(row['mean_difference'] for row in m['masks']):.1e}" if m.get("masks") else "–",
            )
        console.print(table)


def run(arguments: argparse.Namespace) -> int:
    """`python -m eval latency`."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    models = candidates(arguments.models)
    pictures = load_pictures(arguments.image, arguments.data)
    settings = settings_from(arguments)
    save: Save = (lambda partial: write_json(arguments.out, partial)) if arguments.out else (lambda partial: None)
    console = Console(stderr=True)
    with Bar(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console, transient=True
    ) as bar:
        task = bar.add_task("starting", total=1.0)
        result = measure_latency(
            models, pictures, settings, save=save, progress=lambda m, f: bar.update(task, description=m, completed=f)
        )
    for model in models:
        result.setdefault("sizes", {})[model.name] = asdict(transfer_sizes(model.path))
    save(result)
    if arguments.json:
        sys.stdout.write(canonical_json(result).decode())
    else:
        output = Console(width=None if sys.stdout.isatty() else 120)
        print_latency(result, output)
        for name, size in result["sizes"].items():
            kb = {key: f"{size[key] / 1e3:,.0f} kB" for key in ("raw_bytes", "gzip_bytes", "brotli_bytes")}
            output.print(f"{name}: {kb['raw_bytes']} raw, {kb['gzip_bytes']} gzip, {kb['brotli_bytes']} brotli")
    found = faults(result)
    for fault in found:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if found else 0


def build_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The options of `python -m eval latency`."""
    parser.description = "Measure ONNX models side by side in a real headless Chromium; the first is the baseline."
    parser.add_argument("models", nargs="+", metavar="MODEL.onnx", help="models; ratios are to the first")
    parser.add_argument("--image", metavar="FILE", help="test picture (default: from --data, else procedural)")
    parser.add_argument("--data", metavar="DIR", help="folder with images/ and masks/ to take test pictures from")
    add_arguments(parser)
    parser.add_argument("--out", metavar="FILE.json", help="write the result there, after every round")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m eval.latency`."""
    parser = build_parser(argparse.ArgumentParser(prog="python -m eval.latency"))
    try:
        return run(parser.parse_args(argv))
    except U2NetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

"""One backend's measurement: cold starts of each model alone, then interleaved rounds of all together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from u2net.commandline import Progress
from u2net.errors import U2NetError

from .engines import Backend, Engine, EngineDied, EngineError
from .masks import MaskArray, compare, decode, write_mask
from .prepared import Prepared
from .processor import ProcessorClock
from .settings import LatencySettings
from .statistics import processor_summary, summary_of_rounds

__all__ = ["BackendRun", "Save", "Unavailable"]

Save = Callable[[dict[str, Any]], None]


class Unavailable(U2NetError):
    """This machine does not have the backend."""


class Refused(EngineError):
    """The engine runs, but not this model."""


class BackendRun:
    """One backend's measurement, filling `record` as it goes."""

    def __init__(
        self,
        backend: Backend,
        prepared: Prepared,
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
        self.processor: dict[int, list[float]] = {}

    @property
    def rounds_done(self) -> int:
        return min((len(self.times[index]) for index in self.running), default=0)

    def measure(self, progress: Progress, masks_folder: Path | None) -> None:
        """Cold starts of each model alone, then interleaved rounds of all together."""
        models = self.prepared.models
        for index, model in enumerate(models):
            if not self.backend.runs(model.is_packed):
                continue
            progress(self.backend.title, index, len(models) + self.settings.rounds)
            entry: dict[str, Any] = {"status": "measured"}
            self.record["models"][model.name] = entry
            try:
                entry |= self._cold(index)
                self.running.append(index)
            except EngineDied:
                raise
            except Refused as error:
                entry |= {"status": "failed", "reason": str(error)}
        if not self.running:
            reasons = [entry["reason"] for entry in self.record["models"].values()]
            raise EngineError("no model runs here: " + (reasons or ["it runs none of this kind"])[0])
        self.times = {index: [] for index in self.running}
        self.processor = {index: [] for index in self.running}
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
            engine = self.backend.open(self.origin, self.settings.software_webgpu)
        except EngineDied:
            raise
        except EngineError as error:
            raise Unavailable(str(error)) from error
        try:
            if self.backend.provider == "webgpu":
                adapter = engine.call("adapter")
                if adapter is None:
                    raise Unavailable("this browser has no WebGPU adapter")
                if adapter["software"] and not self.settings.software_webgpu:
                    raise Unavailable("the only WebGPU adapter is a software one, whose times mean nothing")
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
                    loaded = engine.call("load", {"index": index})
                    first_run_ms = engine.call("run", self.prepared.question(index, 0))["ms"]
                except EngineDied:
                    raise
                except EngineError as error:
                    raise Refused(str(error)) from error
                heap = loaded.get("heap_bytes") or self._check(engine)["heap_bytes"]
                start_ms = loaded.get("engine_start_ms", self.engine_start_ms)
                starts.append((start_ms, loaded["session_ms"], first_run_ms, heap or 0))
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
                mask = decode(engine.call("run", self.prepared.question(index, p, mask=True)))
                rows.append(compare(mask, self.reference[index][p], picture))
                if folder is not None and p == 0:
                    write_mask(folder / self.backend.name / f"{name.replace('/', '-')}.png", mask)
            self.record["models"][name]["masks"] = rows

    def _rounds(self, engine: Engine, progress: Progress) -> None:
        """Interleaved rounds until every ratio has settled."""
        settings, cold = self.settings, len(self.prepared.models)
        for number in range(settings.most_rounds):
            progress(self.backend.title, cold + min(number, settings.rounds - 1), cold + settings.rounds)
            order = self.running if number % 2 == 0 else self.running[::-1]
            timed = {index: self._timed(engine, index, number % len(self.prepared.pictures)) for index in order}
            for index, (ms, processor_ms) in timed.items():
                self.times[index].append(ms)
                if processor_ms is not None:
                    self.processor[index].append(processor_ms)
            self.summarise()
            self.save(self.result)
            if number + 1 >= settings.rounds and self._settled():
                break

    def _timed(self, engine: Engine, index: int, picture: int) -> tuple[float, float | None]:
        """Milliseconds of one run: on the clock, and of the processor where one thread does the work."""
        question = self.prepared.question(index, picture)
        if self.threads > 1 or self.backend.provider == "webgpu":
            return engine.call("run", question)["ms"], None
        clock = ProcessorClock()
        ms = engine.call("run", question)["ms"]
        return ms, clock.busiest_ms()

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
            entry = self.record["models"][self.prepared.models[index].name]
            entry |= summary_of_rounds(times, baseline)
            if self.processor[index]:
                entry |= processor_summary(self.processor[index], self.processor.get(0))

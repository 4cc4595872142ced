"""Where a model can run: pages of real browsers, Node, native onnxruntime. All answer the same few questions.

`start`, `load`, `run` and `facts` are described in `eval/browser/bench.mjs`. An `Engine` that says no raises
`EngineError`; one that is gone (a browser that died, a process that was killed, an answer that never comes) raises
`EngineDied`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from u2net.errors import U2NetError

from .server import BROWSER_FOLDER, ENGINE_FOLDER

__all__ = ["BACKENDS", "Backend", "Engine", "EngineDied", "EngineError", "find_chromium", "install_engine"]

#: A run takes seconds; what has not answered after this many is not going to.
CALL_TIMEOUT_S = 300.0
START_TIMEOUT_S = 120.0
SYSTEM_CHROMIUMS = ("/usr/bin/chromium", "chromium", "chromium-browser", "google-chrome", "chrome")
NO_CHROMIUM = (
    "no Chromium found: run `python -m playwright install chromium`, install your system's chromium package,"
    " or point CHROME_PATH at one"
)
T = TypeVar("T")


class EngineError(U2NetError):
    """An engine that is missing, or says no."""


class EngineDied(EngineError):
    """An engine that was there and is gone."""


class Engine(Protocol):
    """A running engine."""

    def call(self, method: str, argument: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask one question. Raises `EngineError` or `EngineDied`."""
        ...

    def close(self) -> None:
        """End it, whatever state it is in."""
        ...


@dataclass(frozen=True)
class Backend:
    """A place to run: `kind` is "page" (Chromium), "firefox", "webkit", "node" or "native", `provider` what runs it."""

    name: str
    kind: str
    provider: str
    threaded: bool
    title: str

    def runs(self, packed: bool) -> bool:
        """Whether it runs models of that kind: packed ones need the project's own engine, here of one thread."""
        return not packed or (self.provider == "wasm" and not self.threaded)

    def threads(self, wanted: int) -> int:
        """How many threads it is to use where `wanted` are to be had."""
        return wanted if self.threaded else 1

    def open(self, origin: str, software_gpu: bool = False) -> Engine:
        """Start the engine, which fetches models and pictures from `origin`."""
        if self.kind == "native":
            return PipeEngine([sys.executable, "-m", f"{__package__}.native", origin], cwd=Path(__file__).parents[2])
        install_engine()
        if self.kind == "node":
            node = shutil.which("node")
            if node is None:
                raise EngineError("no Node.js found: install Node 20 or later, or leave out the backend `node`")
            return PipeEngine([node, str(BROWSER_FOLDER / "node.mjs"), origin])
        if self.kind in ("firefox", "webkit"):
            from .opened import OpenedEngine

            return OpenedEngine(origin, self.kind)
        return PageEngine(origin, gpu=self.provider == "webgpu", software_gpu=software_gpu)


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("wasm", "page", "wasm", False, "Chromium, wasm, 1 thread"),
        Backend("wasm-threads", "page", "wasm", True, "Chromium, wasm, threads"),
        Backend("webgpu", "page", "webgpu", False, "Chromium, WebGPU"),
        Backend("firefox", "firefox", "wasm", False, "Firefox, wasm, 1 thread"),
        Backend("webkit", "webkit", "wasm", False, "WebKitGTK, wasm, 1 thread"),
        Backend("node", "node", "wasm", False, "Node, wasm, 1 thread"),
        Backend("native", "native", "cpu", False, "native onnxruntime, 1 thread"),
    )
}


def install_engine() -> None:
    """Install the locked onnxruntime-web into `eval/browser/node_modules` unless that very version is there."""
    lock = json.loads((BROWSER_FOLDER / "package-lock.json").read_bytes())
    wanted = lock["packages"]["node_modules/onnxruntime-web"]["version"]
    with contextlib.suppress(OSError, ValueError):
        if json.loads((ENGINE_FOLDER.parent / "package.json").read_bytes())["version"] == wanted:
            return
    npm = shutil.which("npm")
    if npm is None:
        raise EngineError("no npm found: install Node 20 or later, or measure with --backends native")
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(command, cwd=BROWSER_FOLDER, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EngineError(
            f"`npm ci` in eval/browser failed ({_last_line(done.stderr)}); run it there, or measure with --backends "
            "native"
        )


def find_chromium(playwright_path: str | None = None) -> str:
    """The Chromium to use: CHROME_PATH, else Playwright's own, else the system's. Raises `EngineError`."""
    asked = os.environ.get("CHROME_PATH")
    if asked:
        found = shutil.which(asked)
        if found is None:
            raise EngineError(
                f"CHROME_PATH is {asked}, which is not a program; unset it, or give the path of a Chromium"
            )
        return found
    for name in (playwright_path, *SYSTEM_CHROMIUMS):
        if name and (found := shutil.which(name)):
            return found
    raise EngineError(NO_CHROMIUM)


class PageEngine:
    """The bench in a page of a headless Chromium of its own."""

    def __init__(self, origin: str, gpu: bool = False, software_gpu: bool = False) -> None:
        try:
            from playwright.async_api import Error, async_playwright
        except ImportError:
            raise EngineError("Playwright is not installed: pip install playwright") from None
        self._error = Error
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda loop, context: None)  # of a browser that is gone; `call` reports it
        self._driver: Any = None
        self._browser: Any = None
        switches = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
        switches += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]  # no other host can be looked up
        if gpu:
            switches += ["--enable-unsafe-webgpu", "--enable-features=Vulkan"]
        if gpu and software_gpu:
            switches += ["--use-webgpu-adapter=swiftshader"]

        async def open_page() -> Any:
            self._driver = await async_playwright().start()
            path = find_chromium(self._driver.chromium.executable_path)
            self._browser = await self._driver.chromium.launch(
                executable_path=path, headless=True, args=switches, handle_sigint=False
            )
            page = await self._browser.new_page()
            await page.goto(origin, wait_until="load")
            await page.wait_for_function("window.bench !== undefined")
            return page

        try:
            self._page = self._wait(open_page(), START_TIMEOUT_S, "did not start")
        except BaseException:
            self.close()
            raise

    def call(self, method: str, argument: dict[str, Any] | None = None) -> dict[str, Any]:
        """See `Engine`."""
        script = "([method, argument]) => window.bench[method](argument)"
        answer = self._wait(
            self._page.evaluate(script, [method, argument]), CALL_TIMEOUT_S, f"gave no answer to {method}"
        )
        if method == "facts":
            answer["browser"] = f"Chromium {self._browser.version}"
        return answer

    def _wait(self, work: Coroutine[Any, Any, T], timeout_s: float, failure: str) -> T:
        task = self._loop.create_task(asyncio.wait_for(work, timeout_s))
        try:
            return self._loop.run_until_complete(task)
        except KeyboardInterrupt:
            task.cancel()
            self._loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
            raise
        except TimeoutError:
            raise EngineDied(f"the browser {failure} within {timeout_s:.0f} s") from None
        except self._error as error:
            message = _first_line(error.message)
            gone = "crash" in message.lower() or "closed" in message.lower() or not self._alive()
            if gone:
                raise EngineDied(f"the browser died ({message})") from None
            raise EngineError(message) from None

    def _alive(self) -> bool:
        return self._browser is not None and bool(self._browser.is_connected())

    def close(self) -> None:
        """End the browser."""

        async def stop() -> None:
            for thing, method in ((self._browser, "close"), (self._driver, "stop")):
                if thing is not None:
                    with contextlib.suppress(Exception):
                        await asyncio.wait_for(getattr(thing, method)(), 20)
            left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

        if not self._loop.is_closed():
            self._loop.run_until_complete(stop())
            self._loop.close()


class PipeEngine:
    """The bench in a child process, one line of JSON each way."""

    def __init__(self, command: list[str], cwd: Path | None = None) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        self._process = subprocess.Popen(
            command, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )

    def call(self, method: str, argument: dict[str, Any] | None = None) -> dict[str, Any]:
        """See `Engine`."""
        assert self._process.stdin is not None and self._process.stdout is not None
        watchdog = threading.Timer(CALL_TIMEOUT_S, self._process.kill)
        watchdog.start()
        try:
            self._process.stdin.write(json.dumps({"method": method, "argument": argument}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
            answer = json.loads(line)
        except (OSError, ValueError):
            self._process.kill()
            code = self._process.wait()
            self._errors.seek(0)
            last = _last_line(self._errors.read().decode(errors="replace"))
            raise EngineDied(f"the engine's process died with {code}{': ' + last if last else ''}") from None
        finally:
            watchdog.cancel()
        if "error" in answer:
            raise EngineError(_first_line(answer["error"]))
        return dict(answer["value"])

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[0].removeprefix("Page.evaluate: ").removeprefix("Error: ")[:300] if lines else "no message"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""

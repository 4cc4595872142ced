"""Browsers that are opened with a page and driven by nobody: Firefox and WebKitGTK, as Debian has them.

The page fetches its questions from the bench's server and posts the answers there (`eval/browser/page.mjs`).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
import uuid
from pathlib import Path
from typing import Any

from .engines import CALL_TIMEOUT_S, START_TIMEOUT_S, EngineDied, EngineError

__all__ = ["OpenedEngine", "browser_command", "browser_environment"]


def browser_command(browser: str, url: str, profile: Path) -> list[str] | None:
    """What opens `url` in `browser`, "firefox" or "webkit"; None where that is not installed."""
    if browser == "firefox":
        firefox = shutil.which("firefox-esr") or shutil.which("firefox")
        return [firefox, "--headless", "--no-remote", "--profile", str(profile), url] if firefox else None
    mini_browser = next(Path("/usr/lib").glob("*/webkit2gtk-4.1/MiniBrowser"), None)
    if mini_browser and shutil.which("xvfb-run") and shutil.which("dbus-run-session"):
        return ["xvfb-run", "-a", "dbus-run-session", "--", str(mini_browser), url]
    return None


def browser_environment(home: Path) -> dict[str, str]:
    """The environment to open it in, `home` being a folder of its own."""
    return {
        **os.environ,
        "HOME": str(home),
        "WEBKIT_DISABLE_COMPOSITING_MODE": "1",
        "WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS": "1",  # it wants user namespaces, which containers lack
    }


class OpenedEngine:
    """The bench in a page of such a browser."""

    def __init__(self, origin: str, browser: str) -> None:
        self._box = f"{origin}/box/{uuid.uuid4().hex}"
        self._http = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        profile = Path(self._home.name) / "profile"
        profile.mkdir()
        command = browser_command(browser, f"{origin}/?{self._box}", profile)
        if command is None:
            self._home.cleanup()
            raise EngineError(f"{browser} is not installed (`make browsers`)")
        self._process = subprocess.Popen(
            command,
            env=browser_environment(Path(self._home.name)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._answer("ready", START_TIMEOUT_S)
        except BaseException:
            self.close()
            raise

    def call(self, method: str, argument: dict[str, Any] | None = None) -> dict[str, Any]:
        """See `Engine`."""
        question = json.dumps({"method": method, "argument": argument}).encode()
        self._http.open(f"{self._box}-question", question, timeout=CALL_TIMEOUT_S).close()
        answer = self._answer(method, CALL_TIMEOUT_S)
        if "error" in answer:
            raise EngineError(str(answer["error"])[:300])
        return dict(answer["value"])

    def _answer(self, method: str, timeout_s: float) -> dict[str, Any]:
        end = time.monotonic() + timeout_s
        while time.monotonic() < end and self._process.poll() is None:
            with self._http.open(f"{self._box}-answer", timeout=timeout_s) as response:
                if response.status == 200:
                    return dict(json.load(response))
        raise EngineDied(f"the browser gave no answer to {method}")

    def close(self) -> None:
        """End the browser, and what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._home.cleanup()

"""The page, the engine's files, the models and the pictures, served on loopback with cross-origin isolation.

Without `Cross-Origin-Opener-Policy` and `Cross-Origin-Embedder-Policy` a page has no `SharedArrayBuffer`, and
onnxruntime-web then silently drops to one thread.
"""

from __future__ import annotations

import queue
import threading
from collections import defaultdict
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from u2net.errors import U2NetError

from .browser_folder import browser_folder

__all__ = ["BenchServer", "ServerError"]

BROWSER_FOLDER = browser_folder(Path(__file__).parent.parent / "browser")
ENGINE_FOLDER = BROWSER_FOLDER / "node_modules" / "onnxruntime-web" / "dist"
OWN_ENGINE = Path(__file__).parent.parent.parent / "build" / "engine" / "engine.wasm"
#: How long a request for a letter is held open before it is answered with "none yet", in seconds.
BOX_WAIT_S = 10.0
CONTENT_TYPES = {".html": "text/html; charset=utf-8", ".mjs": "text/javascript", ".wasm": "application/wasm"}


class ServerError(U2NetError):
    """The loopback server cannot start."""


class BenchServer:
    """Serves until closed. `origin` is `http://127.0.0.1:port`; port 0 takes any free one.

    `/` is the page, `/bench/` its scripts, `/ort/` and `/own/` the engines, `/models/<i>` and `/inputs/<i>/<picture>`
    what `model` and `feed` return. What is posted to `/box/<name>` is got there, once and in order; 204 says that
    nothing came for a while. Raises `ServerError` where the port is in use.
    """

    def __init__(
        self, model: Callable[[str], bytes], feed: Callable[[int, int], bytes], port: int = 0, isolated: bool = True
    ) -> None:
        boxes: defaultdict[str, queue.Queue[bytes]] = defaultdict(queue.Queue)

        def respond(path: str) -> tuple[bytes, str] | None:
            match path.strip("/").split("/"):
                case [""]:
                    return (BROWSER_FOLDER / "index.html").read_bytes(), CONTENT_TYPES[".html"]
                case ["bench", name] if name in ("page.mjs", "bench.mjs"):
                    return (BROWSER_FOLDER / name).read_bytes(), CONTENT_TYPES[".mjs"]
                case ["ort", name] if Path(name).suffix in (".mjs", ".wasm") and (ENGINE_FOLDER / name).is_file():
                    return (ENGINE_FOLDER / name).read_bytes(), CONTENT_TYPES[Path(name).suffix]
                case ["own", OWN_ENGINE.name]:
                    return OWN_ENGINE.read_bytes(), CONTENT_TYPES[".wasm"]
                case ["models", key]:
                    return model(key), "application/octet-stream"
                case ["inputs", index, picture]:
                    return feed(int(index), int(picture)), "application/octet-stream"
            return None

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                posted = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                found = self.path.startswith("/box/")
                if found:
                    boxes[self.path].put(posted)
                self._answer(204 if found else 404, b"", "text/plain")

            def do_GET(self) -> None:
                if self.path.startswith("/box/"):
                    try:
                        self._answer(200, boxes[self.path].get(timeout=BOX_WAIT_S), "application/json")
                    except queue.Empty:
                        self._answer(204, b"", "application/json")
                    return
                try:
                    found = respond(self.path.split("?")[0])
                except (OSError, LookupError, ValueError):
                    found = None
                body, content_type = found if found else (b"not found", "text/plain")
                self._answer(200 if found else 404, body, content_type)

            def _answer(self, status: int, body: bytes, content_type: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                if status != 204:
                    self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", "no-store")
                if isolated:
                    self.send_header("Cross-Origin-Opener-Policy", "same-origin")
                    self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
                    self.send_header("Cross-Origin-Resource-Policy", "same-origin")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a browser that goes away in the middle of an answer is reported by the driver

        try:
            self._server = Server(("127.0.0.1", port), Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ServerError(f"cannot serve on 127.0.0.1:{port}: {reason}; choose another --port, or 0") from error
        self.origin = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> BenchServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

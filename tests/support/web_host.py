"""A static host on loopback for browser tests, which can misbehave on request: alter bytes, cut connections, stop."""

from __future__ import annotations

import mimetypes
import queue
import re
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

mimetypes.add_type("text/javascript", ".js")
mimetypes.add_type("application/wasm", ".wasm")
mimetypes.add_type("application/manifest+json", ".webmanifest")

ISOLATION = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}
SIBLINGS = {"br": ".br", "gzip": ".gz"}


@dataclass
class WebHost:
    """Serves `mounts` (URL prefix → folder, longest first). Use as a context manager."""

    mounts: dict[str, Path]
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    pages: dict[str, str] = field(default_factory=dict)  # URL path → HTML made by the test
    altered: set[str] = field(default_factory=set)  # file names whose middle byte is flipped on the way
    cut_once: dict[str, int] = field(default_factory=dict)  # file name → bytes after which the connection drops, once
    held: dict[str, int] = field(default_factory=dict)  # file name → bytes after which nothing more comes
    compression: str | None = None  # "br" or "gzip": sends the `.br` or `.gz` siblings where there are some
    sent_bytes: int = 0  # of bodies
    requests: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, Range
    answered: queue.Queue[bytes] = field(default_factory=queue.Queue)  # what pages have posted to /answer
    port: int = 0
    _connections: list[socket.socket] = field(default_factory=list)

    def __enter__(self) -> WebHost:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        host = self

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, request: object, client_address: object) -> None:
                """Browsers drop connections; that is no event."""

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                host._connections.append(self.connection)

            def log_message(self, *arguments: object) -> None:
                pass

            def do_GET(self) -> None:
                host._answer(self)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.path == "/answer":
                    host.answered.put(body)
                host._answer(self)

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        """Stop listening and drop what is open, kept-alive connections too; `start` comes back on the same port."""
        self._server.shutdown()
        self._server.server_close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._connections.clear()

    def _find(self, path: str) -> Path | None:
        for prefix in sorted(self.mounts, key=len, reverse=True):
            if path.startswith(prefix):
                file = self.mounts[prefix] / path[len(prefix) :]
                file = file / "index.html" if file.is_dir() else file
                return file if file.is_file() and ".." not in path else None
        return None

    def fetched(self) -> list[Path]:
        """The files that have been asked for, one entry for each request."""
        return [file for _, path, _ in self.requests if (file := self._find(path)) is not None]

    def _sibling(self, handler: BaseHTTPRequestHandler, file: Path) -> Path | None:
        """The compressed copy that is sent instead."""
        if self.compression is None or self.compression not in handler.headers.get("Accept-Encoding", ""):
            return None
        sibling = file.with_name(file.name + SIBLINGS[self.compression])
        return sibling if sibling.is_file() else None

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0]
        wanted = handler.headers.get("Range", "")
        self.requests.append((handler.command, path, wanted))
        file = self._find(path)
        if path in self.pages:
            data, kind = self.pages[path].encode(), "text/html"
        elif file is not None:
            data, kind = file.read_bytes(), mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        else:
            handler.send_response(404)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        name = path.rsplit("/", 1)[-1]
        if name in self.altered:
            middle = len(data) // 2
            data = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        match = re.fullmatch(r"bytes=(\d+)-", wanted)
        start = int(match[1]) if match and self.ranges else 0
        sibling = self._sibling(handler, file) if file is not None and not wanted else None
        if sibling is not None:
            data = sibling.read_bytes()
        self.sent_bytes += len(data) - start
        handler.send_response(206 if start else 200)
        if sibling is not None:
            handler.send_header("Content-Encoding", str(self.compression))
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(data) - start))
        handler.send_header("Cache-Control", "no-cache")
        for header, value in self.headers.items():
            handler.send_header(header, value)
        handler.end_headers()
        cut = self.cut_once.pop(name, None)
        try:
            if name in self.held:
                handler.wfile.write(data[start : start + self.held[name]])
                handler.wfile.flush()
                handler.rfile.read(1)  # until the browser hangs up
                handler.close_connection = True
                return
            handler.wfile.write(data[start : start + cut] if cut is not None else data[start:])
            if cut is not None:
                handler.wfile.flush()
                time.sleep(2)  # a stream that breaks drops what the page has not read yet
                handler.close_connection = True
                handler.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            handler.close_connection = True

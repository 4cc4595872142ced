"""Processes that each work on one picture at a time, and are replaced where one dies or takes too long."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from u2net.batch import die_with_parent
from u2net.encode import OutputFormat
from u2net.errors import ConfigError, ImageError, ModelError, U2NetError
from u2net.infer import Session
from u2net.produce import Producer, ProductSettings

from .options import read_options

__all__ = ["Answer", "Worker", "error"]

MEDIA_TYPES: dict[OutputFormat, str] = {
    "png": "image/png",
    "webp": "image/webp",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "apng": "image/apng",
}


@dataclass(frozen=True)
class Answer:
    """What a client gets."""

    status: int
    body: bytes
    media_type: str
    headers: dict[str, str] = field(default_factory=dict)


def error(status: int, text: str, **headers: str) -> Answer:
    """One line of JSON that says what went wrong."""
    body = json.dumps({"error": text}).encode() + b"\n"
    return Answer(status, body, "application/json", {k.replace("_", "-"): v for k, v in headers.items()})


class Worker:
    """One process. Raises `ModelError` where it cannot load the model. Not for several threads at once."""

    def __init__(self, settings: ProductSettings) -> None:
        self._settings = settings
        self._closed = False
        self._start()
        self.wait_until_ready()

    def _start(self) -> None:
        context = get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, self._settings), daemon=True)
        self._process.start()
        theirs.close()
        self._ready = False

    def wait_until_ready(self) -> None:
        """Until the model is loaded."""
        if self._ready:
            return
        try:
            problem = json.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            problem = "the process that loads the model died"
        if problem is not None:
            self.close()
            raise ModelError(problem)
        self._ready = True

    def ask(self, data: bytes, query: Sequence[tuple[str, str]], seconds: float) -> Answer:
        """The answer to a request within `seconds`, else one that says why there is none. Never raises."""
        try:
            self.wait_until_ready()
            self._connection.send_bytes(json.dumps(list(query)).encode())
            self._connection.send_bytes(data)
            if not self._connection.poll(seconds):
                self._replace()
                return error(504, f"the picture takes longer than {seconds:g} s")
            status, media_type, headers = json.loads(self._connection.recv_bytes())
            return Answer(status, self._connection.recv_bytes(), media_type, headers)
        except (EOFError, OSError, ModelError):
            self._replace()
            return error(500, "the process that worked on it died (out of memory, or a crash in a codec)")

    def _replace(self) -> None:
        self._end()
        if not self._closed:
            self._start()  # it loads the model while the answer goes out

    def close(self) -> None:
        """End the process, for good."""
        self._closed = True
        self._end()

    def _end(self) -> None:
        self._connection.close()
        self._process.kill()
        self._process.join()


def _work(connection: Connection, settings: ProductSettings) -> None:
    """The process: answers requests until the other end is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the server ends this one
    die_with_parent()
    try:
        session = Session(settings.model, settings.threads)
        Producer(settings, session)
    except U2NetError as problem:
        connection.send_bytes(json.dumps(str(problem)).encode())
        return
    connection.send_bytes(b"null")
    with suppress(EOFError, OSError):
        while True:
            query = json.loads(connection.recv_bytes())
            answer = _answer(connection.recv_bytes(), query, settings, session)
            connection.send_bytes(json.dumps([answer.status, answer.media_type, answer.headers]).encode())
            connection.send_bytes(answer.body)


def _answer(data: bytes, query: Any, settings: ProductSettings, session: Session) -> Answer:
    try:
        wanted = read_options([(name, value) for name, value in query], settings)
        producer = Producer(wanted.settings, session)
        product = producer(data, "picture", {wanted.part: wanted.format})
    except ConfigError as problem:
        return error(400, str(problem))
    except ImageError as problem:
        return error(422, str(problem))
    except U2NetError as problem:
        return error(500, str(problem))
    except MemoryError:
        return error(500, "not enough memory")
    if product.error is not None:
        return error(422, product.error)
    found = {
        "width": product.width,
        "height": product.height,
        "subject": asdict(product.subject),
        "notes": product.notes,
    }
    timing = ", ".join(f"{step.removesuffix('_ms')};dur={value:.1f}" for step, value in product.timings.items())
    headers = {"X-U2Net": json.dumps(found), "Server-Timing": timing}
    return Answer(200, bytes(product.files[wanted.part]), MEDIA_TYPES[wanted.format], headers)

"""The HTTP side: a Starlette application, run by uvicorn. What it promises is said in the package."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import metadata

from u2net.commandline import DISTRIBUTION, result, say
from u2net.cores import available_cores, inference_threads
from u2net.decode import DecodeLimits
from u2net.errors import ConfigError
from u2net.postprocess import PRESETS
from u2net.produce import ProductSettings
from u2net.remover import default_model, resolve_model

from .cli import ServeSettings
from .options import read_options
from .workers import Answer, Worker, error

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import Response
    from starlette.routing import Route
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError as missing:
    raise ConfigError(f"serve needs {missing.name}: pip install 'u2net-remover[serve]'") from None

__all__ = ["Service", "run"]

HEADERS_S = 10.0  # that a request's headers may take: one packet holds them
LINGER_S = 2.0  # that a refused upload is still read, so that its sender comes to read why
_NOBODY = Response(status_code=499)  # to a client that has gone
MOST_CONNECTIONS = 256  # open at a time: each may hold 64 kB before its request is let in


def run(service: ServeSettings, model: str | None, preset: str) -> int:
    """Serve until interrupted; 0. Raises `ConfigError` and `ModelError` where the service cannot start."""
    cores = available_cores()
    jobs = service.jobs or cores
    settings = ProductSettings(
        model=str(resolve_model(model) if model else default_model()),
        refinement=PRESETS[preset],
        limits=DecodeLimits(max_pixels=int(service.max_pixels * 1e6), max_bytes=int(service.max_mb * 1e6)),
        threads=min(inference_threads(), max(1, cores // jobs)),
    )
    with _listen(service) as listener:
        workers = [Worker(settings) for _ in range(jobs)]
        host, port = listener.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        result({"url": address, "jobs": jobs, "model": settings.model})
        say(f"listening on {address}; POST a picture to {address}/cutout")
        for name in ("uvicorn.error", "uvicorn.access", "uvicorn.asgi"):  # they would print tracebacks and requests
            logging.getLogger(name).disabled = True
        config = uvicorn.Config(
            Service(service, settings, workers).application(),
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
        )
        try:
            # uvicorn catches SIGTERM and Ctrl-C, lets what is under way finish, and raises them again when it is done.
            with suppress(KeyboardInterrupt):
                uvicorn.Server(config).run(sockets=[listener])
        finally:
            for worker in workers:
                worker.close()
    return 0


def _listen(service: ServeSettings) -> socket.socket:
    try:
        family = socket.getaddrinfo(service.host, service.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((service.host, service.port), family=family, backlog=MOST_CONNECTIONS)
    except (OSError, UnicodeError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise ConfigError(f"cannot listen on {service.host} port {service.port}: {reason}") from problem


class Service:
    """Lets requests in and hands them to the workers."""

    def __init__(self, service: ServeSettings, settings: ProductSettings, workers: list[Worker]) -> None:
        self._service, self._settings = service, settings
        self._threads = ThreadPoolExecutor(len(workers), "worker")
        self._jobs = len(workers)
        self._free: asyncio.Queue[Worker] = asyncio.Queue()
        for worker in workers:
            self._free.put_nowait(worker)
        self._inside = 0  # requests that were let in and have no answer yet

    def application(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/cutout", self._cutout, methods=["POST", "PUT"]),
                Route("/health", self._health, methods=["GET"]),
            ],
            exception_handlers={HTTPException: _refused, Exception: _failed},  # type: ignore[dict-item]
        )

    async def _health(self, request: Request) -> Response:
        body = {
            "status": "ok",
            "version": metadata.version(DISTRIBUTION),
            "model": self._settings.model.rpartition("/")[2],
            "jobs": self._jobs,
            "busy": self._jobs - self._free.qsize(),
            "waiting": max(0, self._inside - self._jobs),
        }
        return Response(json.dumps(body) + "\n", media_type="application/json")

    async def _cutout(self, request: Request) -> Response:
        if self._inside >= self._jobs + self._service.waiting:
            return await _turned_away(request, error(503, "too many pictures at once; try again", Retry_After="1"))
        self._inside += 1
        try:
            return await self._admitted(request)
        except ClientDisconnect:
            return _NOBODY
        finally:
            self._inside -= 1

    async def _admitted(self, request: Request) -> Response:
        query = request.query_params.multi_items()
        try:
            read_options(query, self._settings)  # before the upload; the worker reads them again
        except ConfigError as problem:
            return await _turned_away(request, error(400, str(problem)))
        if request.headers.get("content-type", "").lower().startswith("multipart/"):
            text = "send the picture's file as the body, not a form (curl --data-binary @photo.jpg)"
            return await _turned_away(request, error(415, text))
        data = await self._read(request)
        if isinstance(data, Answer):
            return await _turned_away(request, data)
        worker = await self._free.get()
        try:
            if await request.is_disconnected():
                return _NOBODY
            loop = asyncio.get_running_loop()
            work = loop.run_in_executor(self._threads, worker.ask, data, query, self._service.work_s)
            del data
            answer = await asyncio.shield(work)
        finally:
            self._free.put_nowait(worker)
        return _response(answer)

    async def _read(self, request: Request) -> bytes | Answer:
        """The whole body, or what to answer where it is too large or too slow."""
        most = self._settings.limits.max_bytes
        too_large = error(413, f"larger than {most:,} bytes")
        stated = request.headers.get("content-length", "")
        if stated.isdecimal() and int(stated) > most:
            return too_large
        data = bytearray()
        try:
            async with asyncio.timeout(self._service.upload_s):
                async for chunk in request.stream():
                    data += chunk
                    if len(data) > most:
                        return too_large
        except TimeoutError:
            return error(408, f"the upload takes longer than {self._service.upload_s:g} s")
        return bytes(data)


async def _turned_away(request: Request, answer: Answer) -> Response:
    """`answer` to a request whose body is not wanted. The connection is closed, for the body would come all the same.

    Who sends without waiting for leave gets some time to do so: many programs read no answer before they have sent.
    """
    if "expect" not in request.headers and answer.status != 408:
        with suppress(TimeoutError, ClientDisconnect, RuntimeError):  # the body may have been read in part
            async with asyncio.timeout(LINGER_S):
                while (await request.receive()).get("more_body"):
                    pass
    return _response(answer, close=True)


def _response(answer: Answer, close: bool = False) -> Response:
    headers = answer.headers | {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
    if close:
        headers["Connection"] = "close"
    return Response(answer.body, answer.status, headers, answer.media_type)


async def _refused(request: Request, problem: HTTPException) -> Response:
    text = {404: "there are POST /cutout and GET /health", 405: f"{request.method} is not for this path"}
    answer = error(problem.status_code, text.get(problem.status_code, problem.detail))
    response = await _turned_away(request, answer)
    response.headers.update(problem.headers or {})
    return response


async def _failed(request: Request, problem: Exception) -> Response:
    return _response(error(500, "the service failed"), close=True)


class _Protocol(H11Protocol):
    """uvicorn's, with an end to connections that are too many or bring no request, and errors of ours."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
        else:
            self._patience = self.loop.call_later(HEADERS_S, self._give_up)

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:  # a request has come
            self._stop_waiting()
        elif self._patience is None and (self.cycle is None or self.cycle.response_complete):
            self._patience = self.loop.call_later(HEADERS_S, self._give_up)  # the next one has begun

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        self._patience = None
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        answer = error(400, "not a request of HTTP/1.1")
        head = (
            "HTTP/1.1 400 Bad Request",
            f"Content-Type: {answer.media_type}",
            f"Content-Length: {len(answer.body)}",
            "Connection: close",
        )
        self.transport.write("\r\n".join((*head, "", "")).encode() + answer.body)
        self.transport.close()

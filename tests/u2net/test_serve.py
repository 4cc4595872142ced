"""The HTTP service, by a real client: what it gives, what it refuses and how, and what it bounds."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.paths import ROOT
from tests.support.runner_models import red_detector
from u2net.cli import main
from u2net.serve.cli import ServeSettings


def picture(height: int = 60, width: int = 80, form: str = "PNG", **options: Any) -> bytes:
    rgb = np.full((height, width, 3), (30, 60, 90), np.uint8)
    rgb[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = (250, 20, 20)
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, form, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return red_detector(tmp_path_factory.mktemp("model") / "red.onnx")


@contextmanager
def serving(model: Path, *arguments: object) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """(port, process) of a service."""
    command = [sys.executable, "-m", "u2net", "serve", "--port", "0", "--model", str(model), *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
            found = re.search(r"listening on http://127\.0\.0\.1:(\d+)", said)
            assert found, said
            yield int(found.group(1)), process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def port(model: Path) -> Iterator[int]:
    """One service for all tests that leave it as it is."""
    limits = ("--jobs", 1, "--waiting", 2, "--max-mb", 0.2, "--max-pixels", 1, "--upload-s", 1)
    with serving(model, *limits) as (number, process):
        yield number
        assert process.poll() is None, "it outlives everything that was asked of it"


def ask(port: int, path: str, body: Any = None, method: str = "POST", **headers: str) -> tuple[int, bytes, Any]:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        response = connection.getresponse()
        return response.status, response.read(), response.headers
    finally:
        connection.close()


def refusal(answer: tuple[int, bytes, Any]) -> tuple[int, str]:
    """Status and error of an answer that is one line of JSON."""
    status, body, headers = answer
    assert headers["content-type"] == "application/json" and body.count(b"\n") == 1 and body.endswith(b"\n")
    value = json.loads(body)
    assert list(value) == ["error"]
    return status, value["error"]


def test_the_same_file_as_the_command(port: int, model: Path, tmp_path: Path) -> None:
    (tmp_path / "in.png").write_bytes(picture())
    arguments = ["--crop", "--margin", "0.1", "--shadow", "--background", "#ff8800"]
    assert (
        main([str(tmp_path / "in.png"), "-o", str(tmp_path / "out.webp"), "--model", str(model), "-q", *arguments]) == 0
    )
    query = "/cutout?format=webp&crop=true&margin=0.1&shadow=1&background=%23ff8800"
    status, body, headers = ask(port, query, picture())
    assert status == 200 and headers["content-type"] == "image/webp"
    assert body == (tmp_path / "out.webp").read_bytes()
    found = json.loads(headers["x-u2net"])
    assert found["width"] == 80 and found["subject"]["found"] and abs(found["subject"]["box"]["x"] - 20) <= 3
    assert "first_look;dur=" in headers["server-timing"]


def test_masks_presets_and_animations(port: int) -> None:
    status, body, _ = ask(port, "/cutout?part=mask&preset=fast", picture(form="JPEG"))
    mask = np.asarray(Image.open(io.BytesIO(body)))
    assert status == 200 and mask.shape == (60, 80) and mask[30, 40] > 250
    frames = [Image.open(io.BytesIO(picture(height))).resize((80, 60)) for height in (60, 90)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=[50, 90], loop=0)
    status, body, headers = ask(port, "/cutout?format=apng", file.getvalue())
    assert status == 200 and headers["content-type"] == "image/apng"
    assert Image.open(io.BytesIO(body)).n_frames <= 2  # type: ignore[attr-defined]


def test_health(port: int) -> None:
    status, body, _ = ask(port, "/health", method="GET")
    value = json.loads(body)
    assert status == 200 and value["status"] == "ok" and value["jobs"] == 1 and value["busy"] == 0


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("nonsense=1", "nonsense"),
        ("format=bmp", "png, webp"),
        ("background=/etc/passwd", "background"),
        ("background=README.md", "background"),
        ("background=..%2F..%2Fetc%2Fpasswd", "background"),
        ("model=/etc/passwd", "model"),
        ("margin=wide", "a number"),
        ("margin=7", "margin"),
        ("margin=nan", "margin"),
        ("crop=perhaps", "true or false"),
        ("crop=1&crop=0", "twice"),
        ("format=jpeg", "opaque"),
        ("quality=1000", "quality"),
    ],
)
def test_options_that_make_no_sense(port: int, query: str, said: str) -> None:
    status, error = refusal(ask(port, f"/cutout?{query}", picture()))
    assert status == 400 and said in error


def hostile() -> dict[str, bytes]:
    png, gif = picture(), io.BytesIO()
    Image.new("P", (900, 900)).save(gif, "GIF", save_all=True, append_images=[Image.new("P", (900, 900), 3)])
    return {
        "nothing": b"",
        "text": b"<html><script>alert(1)</script></html>",
        "cut short": png[: len(png) // 2],
        "a bomb": png[:16] + (60000).to_bytes(4, "big") * 2 + png[24:],
        "larger than is taken": picture(1200, 1200),
        "frames larger than are taken": gif.getvalue(),
        "a program": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "a vector picture": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    }


@pytest.mark.parametrize("name", list(hostile()))
def test_hostile_uploads(port: int, name: str) -> None:
    status, error = refusal(ask(port, "/cutout?format=webp", hostile()[name]))
    assert status == 422 and error.startswith("picture: "), error
    assert ask(port, "/cutout", picture())[0] == 200


def test_other_paths_methods_and_forms(port: int) -> None:
    for path in ("/", "/cutout/../../etc/passwd", "/docs"):
        assert refusal(ask(port, path, method="GET"))[0] == 404
    status, body, headers = ask(port, "/cutout", method="GET")
    assert refusal((status, body, headers))[0] == 405 and "POST" in headers["allow"]
    form = refusal(ask(port, "/cutout", b"--x\r\n", Content_Type="multipart/form-data; boundary=x"))
    assert form[0] == 415 and "--data-binary" in form[1]


def test_oversize_bodies(port: int) -> None:
    """Stated, streamed, and sent without waiting for leave; all read why."""
    assert refusal(ask(port, "/cutout", bytes(300_000)))[0] == 413
    chunks = (bytes(10_000) for _ in range(30))  # of a length that is not said
    assert refusal(ask(port, "/cutout", chunks))[0] == 413
    before = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:  # says so much and sends nothing
        client.sendall(
            b"POST /cutout HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n"
        )
        assert client.recv(4096).startswith(b"HTTP/1.1 413 ")
        assert time.perf_counter() - before < 1.5


def test_what_is_no_http(port: int) -> None:
    for request in (b"\x16\x03\x01\x02\0nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nX\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(request)
            response = HTTPResponse(client)
            response.begin()
            assert refusal((response.status, response.read(), response.headers))[0] == 400
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:  # headers without end
        with suppress(ConnectionError):
            for _ in range(40):
                client.sendall(b"GET /health HTTP/1.1\r\nX-Long: " + b"a" * 4096)
        received = b""
        with suppress(ConnectionError):
            received = client.recv(4096)
        assert b"200" not in received[:20]


def test_slow_clients_cost_their_own_time_alone(port: int) -> None:
    """Three that are let in and send hardly anything: others are sent away at once, and let in once these are out."""
    slow = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(3)]
    try:
        for client in slow:
            client.sendall(b"POST /cutout HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nfew")
        deadline = time.perf_counter() + 5
        while json.loads(ask(port, "/health", method="GET")[1])["waiting"] < 2 and time.perf_counter() < deadline:
            time.sleep(0.02)
        before = time.perf_counter()
        status, body, headers = ask(port, "/cutout", picture())
        assert refusal((status, body, headers))[0] == 503 and headers["retry-after"] == "1"
        assert time.perf_counter() - before < 0.8
        for client in slow:
            assert client.recv(4096).startswith(b"HTTP/1.1 408 ")
        assert ask(port, "/cutout", picture())[0] == 200
    finally:
        for client in slow:
            client.close()


def test_clients_that_go_away(port: int) -> None:
    for size in (10, len(picture())):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            head = f"POST /cutout HTTP/1.1\r\nHost: x\r\nContent-Length: {len(picture())}\r\n\r\n"
            client.sendall(head.encode() + picture()[:size])
    assert ask(port, "/cutout", picture())[0] == 200
    assert json.loads(ask(port, "/health", method="GET")[1])["waiting"] == 0


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    children = " ".join(path.read_text() for path in Path(f"/proc/{process.pid}/task").glob("*/children")).split()
    return [pid for pid in map(int, children) if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads /proc")
def test_a_picture_that_takes_too_long_or_kills_its_process(model: Path) -> None:
    with serving(model, "--jobs", 1, "--work-s", 3) as (port, process):
        assert ask(port, "/cutout", picture())[0] == 200
        answers: list[tuple[int, bytes, Any]] = []
        for number, status in ((signal.SIGSTOP, 504), (signal.SIGKILL, 500)):
            (worker,) = workers_of(process)
            os.kill(worker, signal.SIGSTOP)  # in the middle of its work
            client = threading.Thread(target=lambda: answers.append(ask(port, "/cutout", picture())))
            client.start()
            time.sleep(0.1)
            os.kill(worker, number)
            client.join()
            assert refusal(answers[-1])[0] == status
            deadline = time.perf_counter() + 60
            while (again := ask(port, "/cutout", picture())[0]) != 200 and time.perf_counter() < deadline:
                time.sleep(0.1)
            assert again == 200 and workers_of(process) != [worker]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads /proc")
def test_sigterm_lets_what_is_under_way_finish(model: Path) -> None:
    with serving(model, "--jobs", 1) as (port, process):
        (worker,) = workers_of(process)
        os.kill(worker, signal.SIGSTOP)
        answers: list[int] = []
        clients = [
            threading.Thread(target=lambda: answers.append(ask(port, "/cutout", picture())[0])) for _ in range(3)
        ]
        for client in clients:
            client.start()
        while json.loads(ask(port, "/health", method="GET")[1])["waiting"] < 2:
            time.sleep(0.02)
        process.terminate()
        time.sleep(0.3)
        with pytest.raises(OSError):
            ask(port, "/health", method="GET")  # nobody is let in any more
        assert process.poll() is None
        os.kill(worker, signal.SIGCONT)
        for client in clients:
            client.join()
        assert answers == [200, 200, 200]
        assert process.wait(10) == 0
        assert process.stderr is not None and process.stderr.read() == ""
        assert not Path(f"/proc/{worker}").exists()


def test_it_cannot_start(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ServeSettings().host == "127.0.0.1"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = str(taken.getsockname()[1])
        assert main(["serve", "--port", number, "--model", str(model)]) == 1
    assert main(["serve", "--port", "0", "--model", str(ROOT / "README.md")]) == 1
    assert main(["serve", "--max-mb", "0"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3 and number in said[0] and "README.md" in said[1] and "max_mb" in said[2]

"""Downloading public weights, against a server that behaves as badly as mirrors do."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from u2net import fetch
from u2net.errors import ConfigError, DownloadError, OutputError
from u2net.weights_cli import application
from u2net.zoo import PUBLIC_WEIGHTS

DATA = bytes(range(256)) * 1200  # 307,200 bytes: several blocks
SHA256 = hashlib.sha256(DATA).hexdigest()


@dataclass
class Mirror:
    """How the server behaves, and what it was asked."""

    data: bytes = DATA
    ranges: bool = True  # answers Range requests with 206
    cuts: list[int] = field(default_factory=list)  # close the connection after so many bytes, one per request
    statuses: list[int] = field(default_factory=list)  # answer with these first
    wrong_offset: bool = False
    length: bool = True
    asked: list[str | None] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    state = Mirror()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            state.asked.append(asked)
            if self.path == "/moved":
                return self.redirect("/file")
            if self.path == "/moved-to-file":
                return self.redirect("file:///etc/hostname")
            if self.path != "/file":
                return self.send_error(404)
            if state.statuses:
                return self.send_error(state.statuses.pop(0))
            body, start = state.data, 0
            if asked and state.ranges:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(body):
                    return self.send_error(416)
                body = body[start:]
                self.send_response(206)
                first = start + 1 if state.wrong_offset else start
                self.send_header("Content-Range", f"bytes {first}-{len(state.data) - 1}/{len(state.data)}")
            else:
                self.send_response(200)
            if state.length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            cut = state.cuts.pop(0) if state.cuts else len(body)
            self.wfile.write(body[:cut])
            return None

        def redirect(self, target: str) -> None:
            self.send_response(302)
            self.send_header("Location", target)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def get(url: str | list[str], target: Path, **settings) -> None:
    urls = [url] if isinstance(url, str) else url
    fetch.download(urls, target, size_bytes=len(DATA), sha256=SHA256, pause_s=0, **settings)


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_download_is_whole_and_leaves_nothing_else(mirror: Mirror, tmp_path: Path):
    heard: list[tuple[int, int]] = []
    get(f"{mirror.url}/file", tmp_path / "deep" / "w.onnx", progress=lambda done, total: heard.append((done, total)))
    assert (tmp_path / "deep" / "w.onnx").read_bytes() == DATA
    assert left_in(tmp_path / "deep") == ["w.onnx"]
    assert heard[0] == (0, len(DATA)) and heard[-1] == (len(DATA), len(DATA))
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)


def test_cut_connection_is_resumed_where_it_ended(mirror: Mirror, tmp_path: Path):
    mirror.cuts = [100_000, 50_000]
    get(f"{mirror.url}/file", tmp_path / "w.onnx")
    assert (tmp_path / "w.onnx").read_bytes() == DATA
    assert mirror.asked == [None, "bytes=100000-", "bytes=150000-"]


def test_cut_connection_without_declared_length_is_noticed(mirror: Mirror, tmp_path: Path):
    mirror.length = False
    mirror.cuts = [100_000]
    get(f"{mirror.url}/file", tmp_path / "w.onnx")
    assert (tmp_path / "w.onnx").read_bytes() == DATA


def test_later_call_goes_on_with_what_the_first_one_left(mirror: Mirror, tmp_path: Path):
    mirror.cuts = [100_000]
    with pytest.raises(DownloadError, match=r"cut off after 100,000 of 307,200 bytes"):
        get(f"{mirror.url}/file", tmp_path / "w.onnx", attempts=1)
    assert left_in(tmp_path) == [".w.onnx.part"]
    get(f"{mirror.url}/file", tmp_path / "w.onnx")
    assert mirror.asked == [None, "bytes=100000-"]
    assert (tmp_path / "w.onnx").read_bytes() == DATA
    assert left_in(tmp_path) == ["w.onnx"]


def test_server_without_ranges_starts_anew(mirror: Mirror, tmp_path: Path):
    mirror.ranges = False
    mirror.cuts = [100_000]
    get(f"{mirror.url}/file", tmp_path / "w.onnx")
    assert (tmp_path / "w.onnx").read_bytes() == DATA


def test_wrong_bytes_are_never_put_in_place(mirror: Mirror, tmp_path: Path):
    mirror.data = DATA[:-1] + b"?"
    with pytest.raises(DownloadError, match="checksum differs"):
        get(f"{mirror.url}/file", tmp_path / "w.onnx")
    assert left_in(tmp_path) == []
    assert len(mirror.asked) == 1, "the same bytes are not asked for again"


def test_part_of_another_file_is_thrown_away(mirror: Mirror, tmp_path: Path):
    (tmp_path / ".w.onnx.part").write_bytes(b"x" * 1000)
    get(f"{mirror.url}/file", tmp_path / "w.onnx")
    assert (tmp_path / "w.onnx").read_bytes() == DATA
    assert mirror.asked == ["bytes=1000-", None]


def test_part_that_is_too_long_is_thrown_away(mirror: Mirror, tmp_path: Path):
    (tmp_path / ".w.onnx.part").write_bytes(b"x" * (len(DATA) + 5))
    get(f"{mirror.url}/file", tmp_path / "w.onnx")
    assert (tmp_path / "w.onnx").read_bytes() == DATA


@pytest.mark.parametrize("data", [DATA[:1000], DATA + b"more"])
def test_other_length_is_refused_before_it_is_downloaded(mirror: Mirror, tmp_path: Path, data: bytes):
    mirror.data = data
    with pytest.raises(DownloadError, match=rf"offers {len(data):,} bytes, not 307,200"):
        get(f"{mirror.url}/file", tmp_path / "w.onnx")
    assert left_in(tmp_path) == []


def test_endless_answer_is_not_read_to_its_end(mirror: Mirror, tmp_path: Path):
    mirror.length = False
    mirror.data = DATA * 20
    with pytest.raises(DownloadError, match="other bytes"):
        get(f"{mirror.url}/file", tmp_path / "w.onnx")
    assert left_in(tmp_path) == []


def test_wrong_range_is_refused(mirror: Mirror, tmp_path: Path):
    mirror.wrong_offset = True
    (tmp_path / ".w.onnx.part").write_bytes(DATA[:1000])
    with pytest.raises(DownloadError, match="another range"):
        get(f"{mirror.url}/file", tmp_path / "w.onnx")
    assert not (tmp_path / "w.onnx").exists()


def test_redirect_is_followed(mirror: Mirror, tmp_path: Path):
    get(f"{mirror.url}/moved", tmp_path / "w.onnx")
    assert (tmp_path / "w.onnx").read_bytes() == DATA


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/file", "no address"])
def test_only_http_is_spoken(tmp_path: Path, url: str):
    with pytest.raises(DownloadError, match="not an http address"):
        get(url, tmp_path / "w.onnx")
    assert left_in(tmp_path) == []


def test_redirect_to_a_file_is_not_followed(mirror: Mirror, tmp_path: Path):
    with pytest.raises(DownloadError, match="not allowed"):
        get(f"{mirror.url}/moved-to-file", tmp_path / "w.onnx")
    assert left_in(tmp_path) == []


def test_missing_file_is_not_asked_for_twice_and_the_next_mirror_helps(mirror: Mirror, tmp_path: Path):
    get([f"{mirror.url}/gone", f"{mirror.url}/file"], tmp_path / "w.onnx")
    assert (tmp_path / "w.onnx").read_bytes() == DATA
    assert len(mirror.asked) == 2


def test_all_mirrors_are_named_when_none_helps(mirror: Mirror, tmp_path: Path):
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1: HTTP 404 Not Found; 127\.0\.0\.1: HTTP 404"):
        get([f"{mirror.url}/gone", f"{mirror.url}/lost"], tmp_path / "w.onnx")
    assert left_in(tmp_path) == []


def test_busy_server_is_asked_again(mirror: Mirror, tmp_path: Path):
    mirror.statuses = [503, 429]
    get(f"{mirror.url}/file", tmp_path / "w.onnx")
    assert (tmp_path / "w.onnx").read_bytes() == DATA
    assert len(mirror.asked) == 3


def test_dead_server_is_one_line(tmp_path: Path):
    with pytest.raises(DownloadError, match="refused") as caught:
        get("http://127.0.0.1:9/file", tmp_path / "w.onnx", attempts=2)
    assert "\n" not in str(caught.value)


def test_full_disk_is_said(mirror: Mirror, tmp_path: Path):
    """A limit on the size of files stands for the disk: the write fails half-way in the same manner."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(DATA) // 2, limits[1]))
    try:
        with pytest.raises(OutputError, match="File too large"):
            get(f"{mirror.url}/file", tmp_path / "w.onnx")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "w.onnx").exists()


def test_folder_that_cannot_be_made_is_said(mirror: Mirror, tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot write"):
        get(f"{mirror.url}/file", tmp_path / "file" / "w.onnx")


def test_two_at_once_do_not_mix(mirror: Mirror, tmp_path: Path):
    fcntl = pytest.importorskip("fcntl")
    with (tmp_path / ".w.onnx.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DownloadError, match="another process"):
            get(f"{mirror.url}/file", tmp_path / "w.onnx")


@pytest.fixture
def published(mirror: Mirror, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """`small` is `DATA`, on the local mirror; returns the folder where weights are kept."""
    monkeypatch.setitem(
        PUBLIC_WEIGHTS,
        "small",
        replace(PUBLIC_WEIGHTS["small"], size_bytes=len(DATA), sha256=SHA256, urls=(f"{mirror.url}/file",)),
    )
    monkeypatch.setenv("U2NET_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_command_fetches_once(mirror: Mirror, published: Path, capsys: pytest.CaptureFixture[str]):
    for _ in range(2):
        assert application.run(["fetch", "small", "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["sha256"] == SHA256
        assert Path(facts["path"]) == published / "u2netp.onnx"
        assert Path(facts["path"]).read_bytes() == DATA
    assert len(mirror.asked) == 1
    assert application.run(["list", "--json"]) == 0
    here = {row["name"]: row["path"] for row in json.loads(capsys.readouterr().out)}
    assert here == {"small": str(published / "u2netp.onnx"), "full": None, "human": None}


def test_command_replaces_a_damaged_file(mirror: Mirror, published: Path):
    published.mkdir()
    (published / "u2netp.onnx").write_bytes(DATA[:-1] + b"?")
    assert application.run(["fetch", "small"]) == 0
    assert (published / "u2netp.onnx").read_bytes() == DATA


def test_command_takes_another_place_and_mirror(mirror: Mirror, published: Path, tmp_path: Path):
    out = tmp_path / "cache" / "small.onnx"
    assert application.run(["fetch", "small", "--out", str(out), "--url", f"{mirror.url}/moved"]) == 0
    assert out.read_bytes() == DATA


def test_command_fails_in_one_line(mirror: Mirror, published: Path, capsys: pytest.CaptureFixture[str]):
    assert application.run(["fetch", "small", "--url", f"{mirror.url}/gone"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and "404" in said
    assert application.run(["fetch", "small", "--out", "a\nb"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_unknown_name():
    with pytest.raises(ConfigError, match="'tiny'"):
        fetch.fetch_weights("tiny")


def test_published_constants_are_well_formed():
    for weights in PUBLIC_WEIGHTS.values():
        assert re.fullmatch(r"[0-9a-f]{64}", weights.sha256) and re.fullmatch(r"[0-9a-f]{32}", weights.md5)
        assert all(url.startswith("https://") and url.endswith(weights.file_name) for url in weights.urls)

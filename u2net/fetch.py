"""The public U²-Net weights: where they are, and a download that resumes and is verified (`u2net weights fetch`).

The authors publish their checkpoints on a file-sharing service that offers no stable address. What is mirrored widely,
byte for byte, are the ONNX exports of them that the rembg project releases; `u2net.network` turns those back into
PyTorch. They are kept where rembg keeps them (`$U2NET_HOME`, else `~/.u2net`), so that nobody downloads them twice.

Nothing but the standard library is imported here.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .errors import ConfigError, DownloadError, OutputError, U2NetError
from .files import check_path, sha256_file

__all__ = ["PUBLIC_WEIGHTS", "PublicWeights", "default_path", "download", "fetch_weights", "main"]

TIMEOUT_S = 30.0  # without a byte; a slow mirror is waited for, a dead one is not
ATTEMPTS = 5  # per mirror, each going on where the last was cut off
BLOCK_BYTES = 1 << 16

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PublicWeights:
    """A published file: bytes that never change, at any of `urls`."""

    name: str
    file_name: str
    what: str
    size_bytes: int
    sha256: str
    md5: str  # the checksum that the rembg project publishes
    urls: tuple[str, ...]
    licence: str = "Apache-2.0 (Qin et al., U-2-Net)"


def _rembg(file_name: str) -> tuple[str, ...]:
    return (
        f"https://github.com/danielgatis/rembg/releases/download/v0.0.0/{file_name}",
        f"https://huggingface.co/tomjackson2023/rembg/resolve/main/{file_name}",
    )


PUBLIC_WEIGHTS: dict[str, PublicWeights] = {
    weights.name: weights
    for weights in (
        PublicWeights(
            "small",
            "u2netp.onnx",
            "U²-Net† (u2netp), 1.13 M parameters, salient objects",
            4_574_861,
            "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8",
            "8e83ca70e441ab06c318d82300c84806",
            _rembg("u2netp.onnx"),
        ),
        PublicWeights(
            "full",
            "u2net.onnx",
            "U²-Net, 44 M parameters, salient objects",
            175_997_641,
            "8d10d2f3bb75ae3b6d527c77944fc5e7dcd94b29809d47a739a7a728a912b491",
            "60024c5c889badc19c04ad937298a77b",
            _rembg("u2net.onnx"),
        ),
        PublicWeights(
            "human",
            "u2net_human_seg.onnx",
            "U²-Net, 44 M parameters, people",
            175_997_641,
            "01eb6a29a5c4d8edb30b56adad9bb3a2a0535338e480724a213e0acfd2d1c73c",
            "c09ddc2e0104f800e3e1bb4652583d1f",
            _rembg("u2net_human_seg.onnx"),
        ),
    )
}


def default_path(weights: PublicWeights) -> Path:
    """Where `weights` are kept: `$U2NET_HOME`, else `~/.u2net`, as rembg does."""
    home = os.environ.get("U2NET_HOME")
    return (check_path(home) if home else Path.home() / ".u2net") / weights.file_name


def fetch_weights(
    name: str,
    out: str | os.PathLike[str] | None = None,
    *,
    urls: Sequence[str] = (),
    progress: Progress = lambda done, total: None,
) -> Path:
    """The path of the public weights `name`, downloaded unless the right bytes are there already.

    `urls` are tried instead of the known mirrors, `progress` hears (bytes so far, bytes in all). Raises `ConfigError`
    for an unknown name, `DownloadError` where no mirror gives the right bytes, `OutputError` where they cannot be
    written.
    """
    if name not in PUBLIC_WEIGHTS:
        raise ConfigError(f"no public weights are called {name!r}; there are {', '.join(PUBLIC_WEIGHTS)}")
    weights = PUBLIC_WEIGHTS[name]
    target = check_path(out) if out is not None else default_path(weights)
    if not _is_whole(target, weights.size_bytes, weights.sha256):
        download(urls or weights.urls, target, size_bytes=weights.size_bytes, sha256=weights.sha256, progress=progress)
    return target


def download(
    urls: Sequence[str],
    target: Path,
    *,
    size_bytes: int,
    sha256: str,
    progress: Progress = lambda done, total: None,
    attempts: int = ATTEMPTS,
    pause_s: float = 1.0,
) -> None:
    """Download a file of known size and checksum to `target` from the first of `urls` that gives it.

    What has arrived is kept in a hidden `.part` file beside it, so that a later call goes on where this one was cut
    off; only verified bytes are renamed into place. Raises `DownloadError` and `OutputError`.
    """
    part = target.with_name(f".{target.name}.part")
    failures: list[str] = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "ab+", opener=_no_link) as file, _alone(file, target):
            for url in urls:
                failure = _from_mirror(url, file, size_bytes, sha256, progress, attempts, pause_s)
                if failure is None:
                    file.flush()
                    os.fsync(file.fileno())
                    part.replace(target)
                    return
                failures.append(f"{_host(url)}: {failure}")
            if file.seek(0, os.SEEK_END) == 0:
                part.unlink()
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
    raise DownloadError(f"{target.name} could not be downloaded: {'; '.join(failures) or 'no address to try'}")


def _no_link(path: str, flags: int) -> int:
    """Open `path`, but not through a symbolic link, which could lead anywhere."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _from_mirror(
    url: str, file: IO[bytes], size_bytes: int, sha256: str, progress: Progress, attempts: int, pause_s: float
) -> str | None:
    """Fill `file`, going on where it ends; None once it holds the right bytes, else what went wrong."""
    failure = "no attempt was made"
    for attempt in range(attempts):
        if attempt:
            time.sleep(min(pause_s * 2 ** (attempt - 1), 8.0))
        before = file.seek(0, os.SEEK_END)
        if before < size_bytes:
            try:
                _receive(url, file, size_bytes, progress)
            except _Final as error:
                return str(error)
            except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
                failure = _reason(error)
        received = file.seek(0, os.SEEK_END)
        if received < size_bytes:
            failure = f"cut off after {received:,} of {size_bytes:,} bytes" if received > before else failure
            continue
        if received == size_bytes and _digest(file) == sha256:
            return None
        file.truncate(0)
        failure = "gave other bytes than the published ones (the checksum differs)"
        if before == 0:  # all of it came from here in one go: asking again would give the same
            return failure
    return failure


class _Final(Exception):
    """An answer that will not get better by asking again."""


class _HttpOnly(urllib.request.HTTPRedirectHandler):
    """Follow redirects to http and https only: the standard handler also follows them to ftp."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urllib.parse.urlsplit(newurl).scheme not in ("http", "https"):
            raise _Final("redirects to another protocol than http")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _receive(url: str, file: IO[bytes], size_bytes: int, progress: Progress) -> None:
    """Append to `file` what `url` gives from its end on; start anew where the server cannot resume."""
    try:
        scheme = urllib.parse.urlsplit(url).scheme
    except ValueError as error:
        raise _Final(f"not an address: {error}") from error
    if scheme not in ("http", "https"):
        raise _Final("not an http address")
    have = file.seek(0, os.SEEK_END)
    request = urllib.request.Request(url, headers={"User-Agent": "u2net-remover", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.build_opener(_HttpOnly).open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # the part is not a piece of what lies there
            file.truncate(0)
            raise
        if error.code in (408, 429) or error.code >= 500:
            raise
        raise _Final(f"HTTP {error.code} {error.reason}") from error
    except ValueError as error:
        raise _Final(f"not an address: {error}") from error
    with response:
        if have and not _resumes_at(response, have):
            if response.status == 206:
                raise _Final("answers with another range than it was asked for")
            file.truncate(0)
            have = 0
        declared = response.headers.get("Content-Length", "")
        if declared.isdigit() and have + int(declared) != size_bytes:
            file.truncate(0)
            raise _Final(f"offers {have + int(declared):,} bytes, not {size_bytes:,}")
        progress(have, size_bytes)
        while have <= size_bytes and (block := _read(response, min(BLOCK_BYTES, size_bytes + 1 - have))):
            have += len(block)
            file.write(block)
            progress(min(have, size_bytes), size_bytes)


def _read(response: http.client.HTTPResponse, count: int) -> bytes:
    """Up to `count` bytes; whatever breaks is a `ConnectionError`, to tell it from a disk that cannot be written."""
    try:
        return response.read(count)
    except TimeoutError:
        raise
    except OSError as error:
        raise ConnectionError(error.strerror or str(error)) from error


def _resumes_at(response: http.client.HTTPResponse, offset: int) -> bool:
    return response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")


def _digest(file: IO[bytes]) -> str:
    file.flush()
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _is_whole(path: Path, size_bytes: int, sha256: str) -> bool:
    try:
        return path.stat().st_size == size_bytes and sha256_file(path) == sha256
    except OSError:
        return False


@contextmanager
def _alone(file: IO[bytes], target: Path) -> Iterator[None]:
    """Hold the `.part` file for this process; without file locks (Windows) the checksum is what notices a clash."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DownloadError(f"another process is downloading {target}") from None
    yield  # closing the file lets go of it


def _host(url: str) -> str:
    try:
        return urllib.parse.urlsplit(url).hostname or repr(url[:80])
    except ValueError:
        return repr(url[:80])


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no answer within {TIMEOUT_S:.0f} seconds"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return " ".join(str(cause).split()) or type(cause).__name__


# ---- the command line ------------------------------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m u2net weights",
        description="The public U²-Net weights, downloaded from their mirrors and verified against pinned checksums.",
        epilog="They are ONNX files; `python -m export --weights FILE` reads them.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    fetch = commands.add_parser("fetch", help="download weights, or go on with a download that was cut off")
    fetch.add_argument("name", choices=tuple(PUBLIC_WEIGHTS), help="small (u2netp), full (u2net) or human")
    fetch.add_argument("--out", metavar="FILE", help="where to put them ($U2NET_HOME or ~/.u2net, as rembg does)")
    fetch.add_argument("--url", metavar="URL", help="a mirror of your own; the checksum stays the published one")
    fetch.add_argument("--json", action="store_true", help="print what was fetched as JSON")
    listing = commands.add_parser("list", help="what there is, and what is here already")
    listing.add_argument("--json", action="store_true", help="print it as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m u2net weights ARGUMENTS`. Exit status 0, 1 for what `U2NetError` reports, 2 for wrong usage."""
    arguments = build_parser().parse_args(argv)
    try:
        return _list(arguments.json) if arguments.command == "list" else _fetch(arguments)
    except U2NetError as error:
        print(f"weights: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("weights: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _fetch(arguments: argparse.Namespace) -> int:
    weights = PUBLIC_WEIGHTS[arguments.name]
    line = _ProgressLine(weights.file_name)
    try:
        path = fetch_weights(
            arguments.name, arguments.out, urls=(arguments.url,) if arguments.url else (), progress=line
        )
    finally:
        line.end()
    facts = {"name": weights.name, "path": str(path), "size_bytes": weights.size_bytes, "sha256": weights.sha256}
    print(json.dumps(facts, indent=2, sort_keys=True) if arguments.json else path)
    return 0


def _list(as_json: bool) -> int:
    rows = []
    for weights in PUBLIC_WEIGHTS.values():
        path = default_path(weights)
        here = _is_whole(path, weights.size_bytes, weights.sha256)
        rows.append(
            {
                "name": weights.name,
                "what": weights.what,
                "size_bytes": weights.size_bytes,
                "sha256": weights.sha256,
                "licence": weights.licence,
                "urls": list(weights.urls),
                "path": str(path) if here else None,
            }
        )
    if as_json:
        print(json.dumps(rows, indent=2, sort_keys=True))
        return 0
    for row in rows:
        print(f"{row['name']:6} {row['size_bytes']:>12,} bytes  {row['what']}  ({row['path'] or 'not fetched'})")
    return 0


class _ProgressLine:
    """One line on a terminal that says how far a download is; nothing where stderr is no terminal."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.shown = ""

    def __call__(self, done: int, total: int) -> None:
        text = f"{self.name}  {done / 1e6:.1f} of {total / 1e6:.1f} MB  {100 * done // total} %"
        if text != self.shown and sys.stderr.isatty():
            sys.stderr.write(f"\r{text:<60}")
            sys.stderr.flush()
        self.shown = text

    def end(self) -> None:
        if self.shown and sys.stderr.isatty():
            sys.stderr.write("\n")

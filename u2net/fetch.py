"""A download that resumes and is verified.

Nothing but the standard library is imported here.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from .errors import ConfigError, DownloadError, OutputError
from .files import check_path, sha256_file
from .zoo import ALIASES, PUBLIC_WEIGHTS, default_path

__all__ = ["download", "fetch_weights", "is_whole"]

TIMEOUT_S = 30.0  # without a byte; a slow mirror is waited for, a dead one is not
ATTEMPTS = 5  # per mirror, each going on where the last was cut off
BLOCK_BYTES = 1 << 16

Progress = Callable[[int, int], None]


def fetch_weights(
    name: str,
    out: str | os.PathLike[str] | None = None,
    *,
    urls: Sequence[str] = (),
    progress: Progress = lambda done, total: None,
) -> Path:
    """The path of the public weights `name`, downloaded unless the right bytes are there already.

    `urls` are tried instead of the known mirrors, `progress` is called with (bytes so far, bytes in all). Raises
    `ConfigError` for an unknown name, `DownloadError` where no mirror gives the right bytes, `OutputError` where they
    cannot be written.
    """
    name = ALIASES.get(name, name)
    if name not in PUBLIC_WEIGHTS:
        raise ConfigError(f"no public weights are called {name!r}; there are {', '.join(PUBLIC_WEIGHTS)}")
    weights = PUBLIC_WEIGHTS[name]
    target = check_path(out) if out is not None else default_path(weights)
    if not is_whole(target, weights.size_bytes, weights.sha256):
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


def is_whole(path: Path, size_bytes: int, sha256: str) -> bool:
    """Whether the file at `path` has this size and checksum."""
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
    yield  # closing the file releases it


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

"""Where the bench page and its npm packages lie: in the repository, or in the user's cache for an installed toolchain.

A folder of site-packages is nothing to install npm packages into: it may not be writable, and pip would leave them
behind.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

__all__ = ["browser_folder"]


def browser_folder(source: Path) -> Path:
    """`source` itself in the repository; else a copy of it in the cache, made once for each content."""
    if (source.parent.parent / "Makefile").is_file():
        return source
    files = sorted(path for path in source.iterdir() if path.is_file())
    digest = hashlib.sha256(b"\0".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "u2net-remover"
    folder = cache / f"browser-{digest[:16]}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as temporary:
            copy = Path(temporary) / "browser"
            copy.mkdir()
            for path in files:
                shutil.copyfile(path, copy / path.name)
            try:
                copy.rename(folder)
            except OSError:  # another process was faster
                if not folder.is_dir():
                    raise
    return folder

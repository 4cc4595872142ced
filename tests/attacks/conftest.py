"""What the attacks share: a model that is quick to run, and photographs to spoil."""

from __future__ import annotations

import faulthandler
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from .forgeries import plain_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A well-formed model of 112 one-channel convolutions on 32×32 pixels: the runner takes it, at no cost."""
    path = tmp_path_factory.mktemp("model") / "plain.onnx"
    path.write_bytes(plain_model().SerializeToString())
    return path


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good JPEG of 160×120."""
    from datasets import SyntheticSet

    path = tmp_path_factory.mktemp("photo") / "photo.jpg"
    Image.fromarray(SyntheticSet(1, 0, (160, 120))[0].rgb).save(path, quality=90)
    return path


@pytest.fixture(autouse=True)
def _watchdog() -> Iterator[None]:
    """End the run with a stack trace where native code hangs: no signal handler of Python's runs there."""
    faulthandler.dump_traceback_later(300, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()

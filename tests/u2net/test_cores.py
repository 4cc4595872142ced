"""Cores and threads: affinity, a container's quota, OMP_NUM_THREADS."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.runner_models import red_detector
from u2net import cores
from u2net.infer import Session


@pytest.mark.parametrize(
    ("here", "above", "expected"),
    [
        ("max 100000", "max 100000", 1e6),
        ("150000 100000", "max 100000", 1.5),
        ("400000 100000", "200000 100000", 2),
        ("20000 100000", None, 1),
        ("nonsense", "300000 100000", 3),
        (None, None, 1e6),
    ],
)
def test_a_containers_quota(tmp_path: Path, here: str | None, above: str | None, expected: float) -> None:
    (tmp_path / "cgroup").write_text("0::/a/b\n")
    folder = tmp_path / "fs" / "a" / "b"
    folder.mkdir(parents=True)
    for place, text in ((folder, here), (folder.parent, above)):
        if text is not None:
            (place / "cpu.max").write_text(text + "\n")
    assert cores._quota(tmp_path / "cgroup", tmp_path / "fs") == expected
    assert cores._quota(tmp_path / "missing", tmp_path / "fs") == 1e6


@pytest.mark.parametrize(("asked", "expected"), [("1", 1), ("3,2", 3), ("100", 8), ("0", 8), ("", 8), ("many", 8)])
def test_threads_that_the_environment_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, expected: int
) -> None:
    monkeypatch.setattr(cores, "available_cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert cores.inference_threads() == expected
    model = red_detector(tmp_path / "red.onnx")
    assert Session(model).threads == expected and Session(model, threads=2).threads == 2

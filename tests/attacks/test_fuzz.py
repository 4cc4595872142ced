"""A few hundred spoiled files, and everything that fuzzing ever found."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from u2net.decode import load_image
from u2net.errors import ImageError, ModelError
from u2net.onnx_scan import scan

from . import fuzz as fuzzing
from .fuzz import TARGETS, fuzz
from .mutate import case, mend_png
from .seeds import SEEDS, seeds_of

QUIET = settings(max_examples=120, deadline=5000, suppress_health_check=list(HealthCheck))
COUNTS = {"picture": 240, "model": 80, "checkpoint": 50, "text": 80}


@pytest.mark.parametrize("target", TARGETS)
def test_spoiled_files(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUZZ_FOLDER", str(tmp_path))
    # Twenty seconds, because the machine that runs this may be busy; the command allows five.
    found, _ = fuzz(target, range(COUNTS[target]), limit_s=20)
    assert not found


@pytest.mark.parametrize("path", sorted(SEEDS.glob("*/*")), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_seeds_and_what_was_found_before(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzzing, "_folder", tmp_path)
    TARGETS[path.parent.name](path.read_bytes())


@QUIET
@given(st.binary(max_size=400))
@example(b"")
def test_any_bytes_are_a_picture_or_an_error(data: bytes) -> None:
    try:
        assert load_image(data).rgb.ndim == 3
    except ImageError as error:
        assert "\n" not in str(error)


@QUIET
@given(
    seed=st.sampled_from(seeds_of("picture")), at=st.floats(0, 1), bytes_=st.binary(max_size=24), cut=st.integers(0, 8)
)
def test_pictures_with_one_spoiled_place(seed: bytes, at: float, bytes_: bytes, cut: int) -> None:
    place = int(at * len(seed))
    data = seed[:place] + bytes_ + seed[place + cut :]
    for each in (data, mend_png(data)):
        try:
            decoded = load_image(each)
        except ImageError as error:
            assert "\n" not in str(error)
        else:
            assert decoded.rgb.shape[2] == 3 and decoded.rgb.size < 3e8


@QUIET
@given(st.binary(max_size=300))
@example(b"\x3a" * 300)
@example(b"\x3a\x02\x3a\x00")
def test_any_bytes_are_a_model_or_an_error(data: bytes) -> None:
    try:
        assert scan(data).has_graph
    except ModelError as error:
        assert "\n" not in str(error)


def test_cases_are_the_same_every_time() -> None:
    seeds = seeds_of("picture")
    assert [case(seeds, index) for index in range(20)] == [case(seeds, index) for index in range(20)]
    assert len({case(seeds, index) for index in range(50)}) > 45
    assert all(mend_png(seed) == seed for seed in seeds if seed.startswith(b"\x89PNG"))


def test_spoiled_pictures_reach_the_decoders() -> None:
    """Mutation is gentle enough: a good part of the cases still decodes, a good part does not."""
    seeds = seeds_of("picture")
    decoded = 0
    for index in range(150):
        try:
            load_image(case(seeds, index))
            decoded += 1
        except ImageError:
            pass
    assert 20 < decoded < 130


def _misbehave(data: bytes) -> None:
    import os
    import time

    if data[0] == 1:
        os.kill(os.getpid(), 9)
    if data[0] == 2:
        time.sleep(60)
    if data[0] == 3:
        raise KeyError("what")


def test_the_fuzzer_sees_crashes_hangs_and_exceptions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(TARGETS, "text", _misbehave)
    monkeypatch.setattr(fuzzing, "case", lambda seeds, index: bytes([index]))
    found, _ = fuzz("text", [0, 1, 4, 2, 5, 3, 6], tmp_path, limit_s=1)
    assert [(each.index, each.what.split(":")[0]) for each in found] == [(1, "crashed"), (2, "hung"), (3, "KeyError")]
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"found-text-{n}" for n in (1, 2, 3)]

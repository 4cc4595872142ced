"""The latency harness: statistics, server, engines, fallbacks, crashes, and machines without a browser."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.latency import LatencySettings, Picture, faults, measure, measure_latency
from eval.latency.engines import EngineError, find_chromium, install_engine
from eval.latency.server import BenchServer, ServerError
from eval.latency.statistics import ratio_of_medians
from eval.models import candidates, graph_facts, transfer_sizes
from tests.support.paths import ROOT
from u2net.errors import ConfigError, ModelError, U2NetError

QUICK: dict[str, Any] = {"rounds": 2, "max_rounds": 2, "warmup": 1, "cold_starts": 1}


def has_browser() -> bool:
    try:
        find_chromium()
        install_engine()
    except EngineError:
        return False
    return True


@pytest.fixture(scope="module")
def picture() -> Picture:
    from datasets.synthetic import SyntheticSet

    scene = SyntheticSet(1)[0]
    return Picture("scene", scene.rgb, scene.alpha > 0.5)


@pytest.fixture(scope="module")
def two(tiny_fp32, tmp_path_factory):
    """The tiny model and a copy of it: their ratio is 1."""
    copy = tmp_path_factory.mktemp("copy") / "fp32.onnx"
    shutil.copy(tiny_fp32, copy)
    return candidates([tiny_fp32, copy])


def get(url: str):
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10)


# ---- statistics -----------------------------------------------------------------------------------------------------


def test_ratio_is_taken_pair_by_pair():
    """A machine that slows down threefold half-way moves every time, and no ratio."""
    rng = np.random.default_rng(0)
    drift = np.where(np.arange(20) < 10, 1.0, 3.0)
    baseline = 100 * drift * rng.normal(1, 0.01, 20)
    model = 40 * drift * rng.normal(1, 0.01, 20)
    ratio = ratio_of_medians(list(model), list(baseline))
    assert ratio["median"] == pytest.approx(0.4, rel=0.02)
    assert ratio["low"] <= ratio["median"] <= ratio["high"]
    assert ratio["high"] - ratio["low"] < 0.02
    assert ratio["pairs"] == 20


def test_interval_covers_the_true_median():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        ratio = ratio_of_medians(list(rng.lognormal(0, 0.2, 15)), [1.0] * 15)
        covered += ratio["low"] <= 1 <= ratio["high"]
    assert covered / 400 >= 0.94


def test_interval_of_few_rounds_is_their_range():
    assert ratio_of_medians([1, 2, 3], [1, 1, 1]) == {"median": 2, "low": 1, "high": 3, "pairs": 3}


@pytest.mark.parametrize(
    "wrong",
    [{"backends": ("wasm", "opengl")}, {"rounds": 0}, {"threads": 1}, {"port": 70000}, {"cold_starts": 0}],
)
def test_settings_that_cannot_work(wrong):
    with pytest.raises(ConfigError):
        LatencySettings(**wrong)


# ---- server ---------------------------------------------------------------------------------------------------------


def test_server_isolates_the_page_and_serves_nothing_else():
    with BenchServer(lambda key: key.encode(), lambda i, p: bytes([i, p])) as server:
        page = get(server.origin + "/")
        assert page.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert page.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert get(server.origin + "/models/identity").read() == b"identity"
        assert get(server.origin + "/inputs/3/4").read() == bytes([3, 4])
        for path in (
            "/nothing",
            "/bench/../server.py",
            "/ort/..%2f..%2fpackage.json",
            "/inputs/a/b",
            "/bench/node.mjs",
        ):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                get(server.origin + path)


def test_port_in_use_is_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=rf"127\.0\.0\.1:{port}: Address already in use; choose another --port"):
            BenchServer(lambda key: b"", lambda i, p: b"", port)


# ---- models ---------------------------------------------------------------------------------------------------------


def test_names_tell_models_apart(tmp_path):
    paths = []
    for name in ("a/x/fp32.onnx", "b/x/fp32.onnx", "a/x/int8.onnx"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        paths.append(path)
    assert [c.name for c in candidates(paths[:1] + paths[2:])] == ["x/fp32", "x/int8"]
    assert [c.name for c in candidates(paths)] == ["a/x/fp32", "b/x/fp32", "a/x/int8"]
    with pytest.raises(ConfigError, match="twice"):
        candidates([paths[0], paths[0]])
    with pytest.raises(ModelError, match="not a file"):
        candidates([tmp_path / "missing.onnx"])


def test_sizes_are_those_of_the_file(tiny_fp32):
    import brotli

    sizes = transfer_sizes(tiny_fp32)
    data = tiny_fp32.read_bytes()
    assert sizes.raw_bytes == len(data) > sizes.gzip_bytes > sizes.brotli_bytes * 0.9
    assert sizes.brotli_bytes == len(brotli.compress(data, quality=sizes.brotli_quality, lgwin=24))


def test_graph_facts(tiny_fp32):
    facts = graph_facts(tiny_fp32)
    assert (facts.interface, facts.size, facts.integer_share, facts.dead_convolutions) == ("tensor", 320, 0.0, ())
    assert 0.1 < facts.gmacs < 0.2


def test_a_model_that_is_not_ours_is_refused(tmp_path):
    from onnx import TensorProto, helper, save

    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 10]) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    path = tmp_path / "relu.onnx"
    save(helper.make_model(graph), path)
    with pytest.raises(ModelError, match="not a U²-Net: its input is float 1×10"):
        graph_facts(path)
    path.write_bytes(b"\x08\x07not onnx")
    with pytest.raises(ModelError, match=r"cannot be read as ONNX|not a U²-Net"):
        graph_facts(path)


# ---- engines ---------------------------------------------------------------------------------------------------------


def check(record, names, threads=1):
    assert record["status"] == "measured", record
    assert record["really"]["threads"] == threads
    for name in names:
        entry = record["models"][name]
        assert len(entry["rounds_ms"]) == record["rounds"] == 2
        assert entry["median_ms"] > 0
        assert entry["session_ms"] > 0
        assert entry["first_run_ms"] > 0
        assert entry["memory_bytes"] > 1 << 20
        assert entry["masks"][0]["mean_difference"] < 1e-4
        assert entry["masks"][0]["iou_with_native"] > 0.99
    assert record["models"][names[0]]["ratio"]["median"] == 1


def test_native_and_node(two, picture):
    backends = ("native", "node") if shutil.which("node") and shutil.which("npm") else ("native",)
    saved: list[dict[str, Any]] = []
    result = measure_latency(two, [picture], LatencySettings(backends=backends, **QUICK), save=saved.append)
    names = [model.name for model in two]
    for backend in backends:
        check(result["backends"][backend], names)
    assert result["backends"]["native"]["really"]["engine"].startswith("onnxruntime 1.")
    assert len(saved) >= 2 * len(backends)
    json.dumps(result)


@pytest.mark.browser
@pytest.mark.skipif(not has_browser(), reason="no Chromium here")
def test_chromium_on_one_and_two_threads(two, picture, tmp_path):
    settings = LatencySettings(backends=("wasm", "wasm-threads"), threads=2, **QUICK)
    result = measure_latency(two, [picture], settings, masks_folder=tmp_path)
    names = [model.name for model in two]
    for backend, threads in (("wasm", 1), ("wasm-threads", 2)):
        record = result["backends"][backend]
        check(record, names, threads)
        assert record["really"]["browser"].startswith("Chromium ")
        assert record["really"]["cross_origin_isolated"] is True
        assert len(list((tmp_path / backend).iterdir())) == 2


@pytest.mark.browser
@pytest.mark.skipif(not has_browser(), reason="no Chromium here")
def test_silent_fallback_is_an_error(two, picture, monkeypatch):
    """Without isolation the engine drops to one thread and says nothing; the harness does."""
    monkeypatch.setattr(measure, "BenchServer", functools.partial(BenchServer, isolated=False))
    settings = LatencySettings(backends=("wasm-threads",), threads=2, **QUICK)
    record = measure_latency(two[:1], [picture], settings)["backends"]["wasm-threads"]
    assert record["status"] == "failed"
    assert "silent fallback: asked for 2 threads, the engine runs on 1" in record["reason"]


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            child = int(stat.parent.name)
            found += [child, *children(child)]
    return found


@pytest.mark.browser
@pytest.mark.skipif(not has_browser() or not Path("/proc").is_dir(), reason="no Chromium here")
def test_browser_that_dies_leaves_its_rounds(two, picture):
    def kill(partial):
        record = partial["backends"].get("wasm", {})
        if record.get("rounds") == 2:
            for pid in children(os.getpid()):
                command = Path(f"/proc/{pid}/cmdline")
                if command.exists() and b"--type=renderer" in command.read_bytes():
                    os.kill(pid, signal.SIGKILL)

    settings = LatencySettings(backends=("wasm", "native"), **{**QUICK, "rounds": 5, "max_rounds": 5})
    result = measure_latency(two[:1], [picture], settings, save=kill)
    record = result["backends"]["wasm"]
    assert record["status"] == "partial"
    assert "the browser died" in record["reason"]
    assert len(record["models"][two[0].name]["rounds_ms"]) == 2
    assert result["backends"]["native"]["status"] == "measured"  # the rest goes on


def test_machine_without_a_browser(two, picture, monkeypatch):
    monkeypatch.setenv("CHROME_PATH", "/nowhere/chromium")
    with pytest.raises(EngineError, match="CHROME_PATH is /nowhere/chromium, which is not a program"):
        find_chromium()
    monkeypatch.delenv("CHROME_PATH")
    monkeypatch.setattr("eval.latency.engines.shutil.which", lambda name: None)
    with pytest.raises(EngineError, match="playwright install chromium"):
        find_chromium()


def test_backend_that_was_named_must_run(two, picture, monkeypatch):
    """Named, a missing browser is a failure; not named, it is skipped with its reason and Node takes its place."""
    monkeypatch.setenv("CHROME_PATH", "/nowhere/chromium")
    named = measure_latency(two[:1], [picture], LatencySettings(backends=("wasm",), **QUICK))
    assert named["backends"]["wasm"]["status"] == "failed"
    [fault] = faults(named)
    assert fault.startswith("wasm failed: CHROME_PATH is /nowhere/chromium, which is not a program")
    unnamed = measure_latency(two[:1], [picture], LatencySettings(**QUICK))
    assert unnamed["backends"]["wasm"]["status"] == "skipped"
    assert "node" in unnamed["backends"]
    assert unnamed["backends"]["native"]["status"] == "measured"


def test_checkpoints_have_no_latency(tiny_checkpoint, picture):
    with pytest.raises(ModelError, match="checkpoint"):
        measure_latency(candidates([tiny_checkpoint]), [picture])


def test_command_prints_json_and_one_line_errors(tiny_fp32, tmp_path):
    def command(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "eval", "latency", *map(str, arguments)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    out = tmp_path / "latency.json"
    quick = ("--backends", "native", "--rounds", "2", "--max-rounds", "2", "--cold-starts", "1")
    done = command(tiny_fp32, *quick, "--json", "--out", out)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["backends"]["native"]["models"]["tiny/fp32"]["median_ms"] > 0
    assert printed["sizes"]["tiny/fp32"]["raw_bytes"] == tiny_fp32.stat().st_size
    assert json.loads(out.read_text()) == printed
    for wrong in (
        (tmp_path / "missing.onnx", *quick),
        (tiny_fp32, "--backends", "opengl"),
        (tiny_fp32, *quick, "--image", ROOT / "README.md"),
    ):
        done = command(*wrong)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1, done.stderr


def test_errors_are_of_the_family():
    assert issubclass(ServerError, U2NetError)
    assert issubclass(EngineError, U2NetError)

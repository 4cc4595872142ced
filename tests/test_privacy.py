"""Nothing is sent and nothing left behind: every command in a clean environment, with an empty home, under strace."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.paths import ROOT
from tests.support.runner_models import red_detector

CONNECTION = re.compile(r'(?:connect|send\w+)\(.*(?:sin_addr=inet_addr|AF_INET6?, )\("?([^")]+)"')
LOOPBACK = re.compile(r"127\.|::1$|::ffff:127\.")


def leave(home: Path, *arguments: str | Path) -> tuple[list[str], list[str]]:
    """The hosts that `python ARGUMENTS` speaks to and the files that it leaves in its home folder."""
    trace = home.with_suffix(".strace")
    home.mkdir()
    command = [sys.executable, *map(str, arguments)]
    if shutil.which("strace"):
        calls = "trace=connect,sendto,sendmsg,sendmmsg"
        command = ["strace", "-f", "--seccomp-bpf", "-qq", "-e", calls, "-o", str(trace), *command]
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    spoken = CONNECTION.findall(trace.read_text(errors="replace")) if trace.exists() else []
    hosts = sorted({host for host in spoken if not LOOPBACK.match(host)})
    return hosts, sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return red_detector(tmp_path_factory.mktemp("model") / "red.onnx")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set") / "images"
    (folder.parent / "masks").mkdir()
    folder.mkdir()
    for index in range(4):
        rgb = np.full((60, 80, 3), (30, 60, 90), np.uint8)
        rgb[15:45, 20 + index : 60] = (250, 20, 20)
        Image.fromarray(rgb).save(folder / f"{index}.png")
        Image.fromarray((rgb[..., 0] > 128).astype(np.uint8) * 255).save(folder.parent / "masks" / f"{index}.png")
    return folder


def test_the_engine_alone_would_leave_files(tmp_path: Path) -> None:
    """What the other tests look for exists, and they would see it."""
    _, files = leave(tmp_path / "home", "-c", "import onnxruntime")
    assert files


def test_who_wants_telemetry_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = "import u2net, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for chosen, expected in ((None, "1"), ("0", "0")):
        monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
        if chosen is not None:
            monkeypatch.setenv("ORT_DISABLE_TELEMETRY", chosen)
        said = subprocess.run([sys.executable, "-c", shown], cwd=ROOT, capture_output=True, text=True, check=True)
        assert said.stdout.strip() == expected


def test_runner(tmp_path: Path, model: Path, pictures: Path) -> None:
    out = tmp_path / "out.png"
    assert leave(tmp_path / "home", "-m", "u2net", pictures / "0.png", "-o", out, "--model", model) == ([], [])
    assert out.is_file()


def test_runner_with_processes(tmp_path: Path, model: Path, pictures: Path) -> None:
    out = tmp_path / "out"
    arguments = ("-m", "u2net", pictures, "-o", out, "--model", model, "--jobs", "2")
    assert leave(tmp_path / "home", *arguments) == ([], [])
    assert len(list(out.glob("*.png"))) == 4


def test_export_and_quantize(tmp_path: Path, tiny_checkpoint: Path, lite_fp32: Path) -> None:
    fp32, int8 = tmp_path / "fp32.onnx", tmp_path / "int8.onnx"
    export = ("-m", "export", "--weights", tiny_checkpoint, "--parity-count", "1", "--ort", "--out", fp32)
    assert leave(tmp_path / "export", *export) == ([], [])
    # float16 is the quickest to make, and runs and measures the model all the same.
    quantize = ("-m", "quantize", lite_fp32, "--format", "fp16", "--count", "2", "--check", "2", "--out", int8)
    assert leave(tmp_path / "quantize", *quantize) == ([], [])
    assert int8.is_file()


def test_eval_with_processes(tmp_path: Path, tiny_fp32: Path, pictures: Path) -> None:
    out = tmp_path / "report"
    arguments = ("-m", "eval", tiny_fp32, "--data", pictures.parent, "--no-latency", "--workers", "2", "--out", out)
    assert leave(tmp_path / "home", *arguments) == ([], [])
    assert (out / "report.json").is_file()


SERVED = """
import http.client, re, subprocess, sys
command = [sys.executable, "-m", "u2net", "serve", "--port", "0", "--jobs", "1", "--model", sys.argv[1]]
with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as service:
    port = re.search(r":(\\d+);", service.stderr.readline()).group(1)
    client = http.client.HTTPConnection("127.0.0.1", int(port))
    client.request("POST", "/cutout", open(sys.argv[2], "rb").read())
    answer = client.getresponse()
    assert answer.status == 200 and answer.read().startswith(b"\\x89PNG")
    service.terminate()
sys.exit(service.returncode)
"""


def test_serve(tmp_path: Path, model: Path, pictures: Path) -> None:
    """Nobody is spoken to but the client, which sits on the loopback."""
    assert leave(tmp_path / "home", "-c", SERVED, model, pictures / "0.png") == ([], [])

"""Batches: every picture once, whole, and the same whatever the number of workers, however often the run was killed."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.paths import ROOT
from tests.support.runner_models import red_detector
from u2net import batch
from u2net.batch import JOURNAL_NAME, BatchSettings, Task, find_pictures, plan, run
from u2net.cores import available_cores
from u2net.errors import ConfigError, ModelError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(red_detector(tmp_path_factory.mktemp("model") / "red.onnx"))


def photos(folder: Path, count: int, side: int = 60) -> Path:
    folder.mkdir(parents=True)
    for index in range(count):
        rgb = np.random.default_rng(index).integers(0, 90, (side, side + index % 7, 3)).astype(np.uint8)
        rgb[side // 4 : side // 2, 10 : 20 + index % 20] = (250, 20, 20)
        Image.fromarray(rgb).save(folder / f"{index:04d}.png")
    return folder


def tasks_for(folder: Path, out: Path, **options: object) -> tuple[list[Task], str]:
    journal = str(out / JOURNAL_NAME)
    pictures, failed = find_pictures([str(folder)], recursive=True)
    assert not failed
    return plan(pictures, output=str(out), mask=None, journal=journal, **options), journal  # type: ignore[arg-type]


def digests(out: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(out.glob("*.png"))}


def test_one_job_two_jobs_and_a_second_run(tmp_path: Path, model: str) -> None:
    folder = photos(tmp_path / "in", 9)
    settings = BatchSettings(model)
    for jobs, out in ((1, tmp_path / "one"), (2, tmp_path / "two")):
        tasks, journal = tasks_for(folder, out)
        results = list(run(tasks, replace(settings, journal=journal), jobs))
        assert sorted(r.input for r in results) == sorted(t.input for t in tasks)
        assert {r.status for r in results} == {"done"}
        tasks, journal = tasks_for(folder, out)
        assert {r.status for r in run(tasks, replace(settings, journal=journal), 1)} == {"skipped"}
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert len(digests(tmp_path / "one")) == 9


def test_what_changed_is_done_again(tmp_path: Path, model: str) -> None:
    folder, out = photos(tmp_path / "in", 4), tmp_path / "out"

    def statuses(**changes: Any) -> list[str]:
        tasks, journal = tasks_for(folder, out)
        return [r.status for r in run(tasks, replace(BatchSettings(model), journal=journal, **changes), 1)]

    assert statuses() == ["done"] * 4
    shutil.copy(folder / "0003.png", folder / "0000.png")  # other content
    os.utime(folder / "0001.png")  # only touched
    (out / "0002.png").write_bytes(b"damaged")
    (out / "0003.png").unlink()
    assert statuses() == ["done", "skipped", "done", "done"]
    assert statuses(background="#123456") == ["done"] * 4
    assert statuses(background="#123456", force=True) == ["done"] * 4


def test_a_damaged_journal_costs_nothing_but_work(tmp_path: Path, model: str) -> None:
    folder, out = photos(tmp_path / "in", 2), tmp_path / "out"
    tasks, journal = tasks_for(folder, out)
    list(run(tasks, replace(BatchSettings(model), journal=journal), 1))
    text = Path(journal).read_bytes()
    Path(journal).write_bytes(b'{"key": 1}\n[]\n\xff\xfe\n{"a"\n' + text[: len(text) - 20])
    tasks, _ = tasks_for(folder, out)
    assert [r.status for r in run(tasks, replace(BatchSettings(model), journal=journal), 1)] == ["skipped", "done"]


def test_two_processes_writing_the_same_output(tmp_path: Path, model: str) -> None:
    folder, out = photos(tmp_path / "in", 12), tmp_path / "out"
    command = [sys.executable, "-m", "u2net", str(folder), "-o", str(out), "--model", model, "-q", "-j", "1"]
    both = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) for _ in range(2)]
    assert [p.communicate()[1] for p in both] == [b"", b""] and [p.returncode for p in both] == [0, 0]
    tasks, journal = tasks_for(folder, tmp_path / "alone")
    list(run(tasks, replace(BatchSettings(model), journal=journal), 1))
    assert digests(out) == digests(tmp_path / "alone")
    assert {p.name for p in out.iterdir()} == {*digests(out), JOURNAL_NAME}


def test_killed_at_random_moments(tmp_path: Path, model: str) -> None:
    """A shorter form of `python -m eval throughput --kill 50 --count 200`."""
    folder, out = photos(tmp_path / "in", 30, 160), tmp_path / "out"
    command = [sys.executable, "-m", "u2net", str(folder), "-o", str(out), "--model", model, "-q", "-j", "2"]
    rng = random.Random(0)
    placed: dict[str, tuple[int, int]] = {}
    for _ in range(5):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
        start = time.monotonic()
        while time.monotonic() - start < 20 and len(list(out.glob("*.png"))) <= len(placed) and process.poll() is None:
            time.sleep(0.002)
        time.sleep(rng.random() * 0.05)
        process.send_signal(signal.SIGKILL)  # the parent alone: its workers must notice
        process.wait()
        time.sleep(0.3)
        now = {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in out.glob("*.png")}
        for name, state in placed.items():
            assert now[name] == state, "written twice"
        for name in now:
            with Image.open(out / name) as image:
                image.load()
        placed = now
    assert placed
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
    tasks, journal = tasks_for(folder, tmp_path / "alone")
    list(run(tasks, replace(BatchSettings(model), journal=journal), 1))
    assert digests(out) == digests(tmp_path / "alone")
    assert {p.name for p in out.iterdir()} == {*digests(out), JOURNAL_NAME}
    for name, state in placed.items():
        assert ((out / name).stat().st_ino, (out / name).stat().st_mtime_ns) == state, "written twice"
    lines = [json.loads(line)["output"] for line in (out / JOURNAL_NAME).read_text().splitlines() if line]
    assert set(lines) == set(digests(out))


def test_a_worker_that_dies_costs_its_own_picture(tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out = photos(tmp_path / "in", 6), tmp_path / "out"
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(batch, "_work", _work_or_die)
    tasks, journal = tasks_for(folder, out)
    results = {Path(r.input).name: r for r in run(tasks, replace(BatchSettings(model), journal=journal), 2)}
    if available_cores() < 2:
        pytest.skip("one core: no workers")
    assert results.pop("0002.png").status == "failed"
    assert {r.status for r in results.values()} == {"done"} and len(results) == 5


def _work_or_die(task: Task) -> batch.Result:
    if task.input.endswith("0002.png"):
        os.kill(os.getpid(), signal.SIGKILL)
    assert batch._worker is not None
    return batch._worker(task)


def test_jobs_never_exceed_the_cores(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int | None]] = []

    def run_pool(tasks: list[Task], settings: BatchSettings, count: int) -> list[batch.Result]:
        seen.append((count, settings.threads))
        return []

    monkeypatch.setattr(batch, "_run_pool", run_pool)
    for cores in (1, 2, 3, 8, 64):
        monkeypatch.setattr(batch, "available_cores", lambda cores=cores: cores)
        for jobs in (None, 2, 3, 1000):
            seen.clear()
            if cores > 1:
                list(run([Task("a", "b")] * 40, BatchSettings(model), jobs))
                count, threads = seen[0]
                assert threads is not None and count * threads <= cores and threads >= 1
                assert jobs is None or threads == 1
    with pytest.raises(ConfigError):
        list(run([], BatchSettings(model), 0))


def test_settings_that_cannot_work_are_said_before_the_first_picture(tmp_path: Path, model: str) -> None:
    folder = photos(tmp_path / "in", 5)
    tasks, _ = tasks_for(folder, tmp_path / "out")
    for jobs in (1, 2):
        with pytest.raises(ModelError):
            next(run(tasks, BatchSettings(str(folder / "0000.png")), jobs))
        with pytest.raises(ConfigError):
            next(run(tasks, BatchSettings(model, background="nothing like it"), jobs))


def test_finding_pictures(tmp_path: Path) -> None:
    photos(tmp_path / "in", 3)
    photos(tmp_path / "in" / "deep" / "er", 1)
    photos(tmp_path / "in" / ".hidden", 1)
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "._0000.png").write_bytes(b"")
    found, failed = find_pictures([str(tmp_path / "in")])
    assert [p.name for p, _ in found] == ["0000.png", "0001.png", "0002.png"] and not failed
    found, _ = find_pictures([str(tmp_path / "in")], recursive=True)
    assert len(found) == 4
    found, _ = find_pictures([str(tmp_path / "in")], recursive=True, exclude=str(tmp_path / "in" / "deep"))
    assert len(found) == 3
    found, _ = find_pictures([str(tmp_path / "**" / "000[01].png"), str(tmp_path / "in")])
    assert len(found) == len(set(found)) == 4
    _, failed = find_pictures([str(tmp_path / "none"), str(tmp_path / "*.jpg"), "a\nb"])
    assert [r.status for r in failed] == ["failed"] * 3


def test_plans_that_would_lose_pictures(tmp_path: Path) -> None:
    folder = photos(tmp_path / "in", 1)
    shutil.copy(folder / "0000.png", folder / "0000.jpg")
    pictures, _ = find_pictures([str(folder)])
    with pytest.raises(ConfigError, match="both"):
        plan(pictures, output=str(tmp_path / "out"), mask=None)
    assert len(plan(pictures, output=str(tmp_path / "out"), mask=None, keep_suffix=True)) == 2
    with pytest.raises(ConfigError, match="inputs"):
        plan(pictures[1:], output=str(folder), mask=None)
    with pytest.raises(ConfigError, match="different folders"):
        plan(pictures[1:], output=str(tmp_path / "out"), mask=str(tmp_path / "out"))


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_watching(tmp_path: Path, model: str, ending: signal.Signals) -> None:
    folder, out = photos(tmp_path / "in", 1), tmp_path / "out"
    command = [sys.executable, "-m", "u2net", str(folder), "-o", str(out), "--model", model, "--watch"]
    process = subprocess.Popen(
        [*command, "--interval", "0.1", "-q"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs are started deaf to it
    )
    killer = threading.Timer(120, process.kill)
    killer.start()
    try:
        _wait_for(out / "0000.png")
        data = (folder / "0000.png").read_bytes()
        with (folder / "late.png").open("wb") as file:  # arrives slowly
            file.write(data[:100])
            file.flush()
            time.sleep(0.05)
            file.write(data[100:])
        _wait_for(out / "late.png")
        process.send_signal(ending)
        assert process.wait(60) == 0 and process.stderr is not None and process.stderr.read() == b""
    finally:
        killer.cancel()
        process.kill()


def _wait_for(path: Path, seconds: float = 100) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.05)


def test_ray_gives_the_same_files(tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = photos(tmp_path / "in", 6)
    tasks, journal = tasks_for(folder, tmp_path / "local")
    list(run(tasks, replace(BatchSettings(model), journal=journal), 1))
    tasks, journal = tasks_for(folder, tmp_path / "ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        results = list(batch.run_ray(tasks, replace(BatchSettings(model), journal=journal), 2))
    finally:
        ray.shutdown()
    assert sorted(r.input for r in results) == [t.input for t in tasks]
    assert {r.status for r in results} == {"done"}
    assert digests(tmp_path / "ray") == digests(tmp_path / "local")
    left = {path.name for path in (tmp_path / "home").rglob("*") if path.is_file()}
    assert left <= {"auth_token"}  # Ray's own key to the cluster that it has started; nothing of onnxruntime's


def test_without_ray_it_says_what_to_install(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match="pip install"):
        list(batch.run_ray([Task("a", "b")], BatchSettings(model)))

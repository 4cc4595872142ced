"""How fast and how frugal the runner is, and whether it survives being killed.

- **Throughput**: images a second of `python -m u2net FOLDER -o OUT` for `fast` and `balanced`, start-up included, on
  100 procedural photographs of 2 megapixels (JPEG) or a folder of your own.
- **Start-up**: seconds from starting the command to its first inference.
- **Memory**: largest resident set of the command on one picture of 12 megapixels.
- `--kill N`: kill -9 at N random moments of a batch of `--count` pictures, run it once more, and compare: every output
  complete and the same as an undisturbed run's, none written twice.

Wall time depends on what else the machine does; `cpu_s` (user and system time of all processes) does so much less.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datasets.synthetic import SyntheticSet
from u2net.cores import available_cores
from u2net.errors import QualityError
from u2net.remover import default_model

__all__ = ["kill_test", "make_photographs", "measure", "throughput_text"]

BARS = {"fast": 6.0, "balanced": 3.0}  # images a second on two cores
START_UP_S = 0.6
MEMORY_MB = 600.0
TWO_MEGAPIXELS = (1632, 1224)
TWELVE_MEGAPIXELS = (4000, 3000)
_SCENES = 6  # distinct scenes behind the photographs; each copy differs by its noise

_FIRST_INFERENCE = """
import sys, time
from u2net import infer
run = infer.Session.run
def timed(self, tensor):
    sys.stdout.write(f"{time.clock_gettime(time.CLOCK_MONOTONIC)}")
    sys.stdout.flush()
    return run(self, tensor)
infer.Session.run = timed
from u2net.cli import main
raise SystemExit(main(sys.argv[1:]))
"""


def make_photographs(folder: Path, count: int, size: tuple[int, int] = TWO_MEGAPIXELS, seed: int = 0) -> None:
    """`count` JPEG photographs of `size` (width, height): procedural scenes, each with its own noise."""
    folder.mkdir(parents=True, exist_ok=True)
    scenes = [scene.rgb for scene in SyntheticSet(min(_SCENES, count), seed, (size[0] // 2, size[1] // 2))]
    rng = np.random.default_rng(seed)
    for index in range(count):
        image = Image.fromarray(scenes[index % len(scenes)]).resize(size, Image.Resampling.BICUBIC)
        noise = rng.integers(-4, 5, (size[1], size[0], 1), np.int16)
        pixels = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"photo-{index:04d}.jpg", quality=90)


def _command(model: Path, *arguments: object) -> list[str]:
    return [sys.executable, "-m", "u2net", *map(str, arguments), "--model", str(model), "-q"]


def _run(command: Sequence[str]) -> tuple[float, float, float]:
    """Wall seconds, processor seconds and megabytes of the largest process of a command that must succeed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode != 0:
        raise QualityError(f"{' '.join(command[1:4])} … failed, run it by itself: {result.stderr.strip()[:300]}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, after.ru_maxrss / 1024


def measure_throughput(model: Path, folder: Path, scratch: Path, preset: str, jobs: int | None) -> dict[str, float]:
    """Images a second of one batch over the pictures of `folder`."""
    count = sum(1 for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    more = () if jobs is None else ("--jobs", jobs)
    wall, processor, _ = _run(_command(model, folder, "-o", scratch / preset, "--preset", preset, *more))
    return {
        "images": count,
        "wall_s": round(wall, 2),
        "cpu_s": round(processor, 2),
        "images_per_s": round(count / wall, 2),
        "images_per_cpu_s": round(count / processor, 2),
    }


def measure_start_up(model: Path, picture: Path, scratch: Path, rounds: int = 5) -> float:
    """Median seconds from starting the command to its first inference, the picture decoded."""
    times = []
    for _ in range(rounds):
        arguments = [str(picture), "-o", str(scratch / "first.png"), "--model", str(model), "-q"]
        start = time.clock_gettime(time.CLOCK_MONOTONIC)
        result = subprocess.run(
            [sys.executable, "-c", _FIRST_INFERENCE, *arguments], capture_output=True, text=True, check=False
        )
        if result.returncode != 0:
            raise QualityError(
                f"the command failed (`u2net batch --help` says what it takes): {result.stderr.strip()[:300]}"
            )
        times.append(float(result.stdout) - start)
    return sorted(times)[len(times) // 2]


def measure_memory(model: Path, picture: Path, scratch: Path, preset: str) -> float:
    """Megabytes of the largest resident set of the command on one picture, in a process tree of its own."""
    program = (
        "import json, resource, subprocess, sys\n"
        "code = subprocess.run(sys.argv[1:]).returncode\n"
        "print(json.dumps([code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024]))\n"
    )
    command = _command(model, picture, "-o", scratch / "large.png", "--preset", preset)
    result = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, text=True, check=False)
    code, megabytes = json.loads(result.stdout.splitlines()[-1])
    if code != 0:
        raise QualityError(
            f"the command failed (`u2net batch --help` says what it takes): {result.stderr.strip()[:300]}"
        )
    return float(megabytes)


def _digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.glob("*.png"))}


def kill_test(model: Path, folder: Path, scratch: Path, kills: int, seed: int = 0) -> dict[str, Any]:
    """Kill a batch `kills` times, finish it, and compare with a batch left alone.

    Moments are drawn evenly over what is left of the work. Raises `QualityError` where an output is damaged, differs,
    was written twice, or where anything else is left behind.
    """
    rng = random.Random(seed)
    out, alone = scratch / "killed", scratch / "alone"
    total = sum(1 for path in folder.iterdir() if path.suffix.lower() == ".jpg")
    command = _command(model, folder, "-o", out, "--preset", "fast")
    placed: dict[str, tuple[int, int]] = {}
    twice: list[str] = []

    def look() -> None:
        time.sleep(0.3)  # workers notice within milliseconds that their parent is gone
        now = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in out.glob("*.png")}
        twice.extend(name for name, state in placed.items() if now.get(name) != state)
        placed.update(now)

    for kill in range(kills):
        # So many more outputs, and then a little longer, so that kills fall evenly and at any moment of the work.
        goal = len(placed) + rng.uniform(0, 2 * (total - len(placed)) / (kills - kill + 1))
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(out.glob("*.png"))) < goal:
            time.sleep(0.005)
        time.sleep(rng.random() * 0.2)
        process.send_signal(signal.SIGKILL)
        process.wait()
        look()
    _run(command)
    look()
    _run(_command(model, folder, "-o", alone, "--preset", "fast"))
    expected = _digests(alone)
    found = _digests(out)
    left = sorted(p.name for p in out.iterdir() if p.name not in found and not p.name.endswith("journal.jsonl"))
    figures = {
        "kills": kills,
        "images": total,
        "wrong": sorted(name for name in expected if found.get(name) != expected[name]),
        "written_twice": sorted(set(twice)),
        "left_behind": left,
    }
    if len(expected) != total or figures["wrong"] or figures["written_twice"] or left:
        raise QualityError(
            "a killed batch is not what an undisturbed one is, which is a fault of the runner; leave --kill out "
            f"meanwhile: {json.dumps(figures)}"
        )
    return figures


def measure(
    model: Path | None, data: Path | None, count: int, presets: Sequence[str], jobs: int | None = None, kills: int = 0
) -> dict[str, Any]:
    """The figures over the photographs of `data`, or `count` procedural ones; with `kills` those of `kill_test` alone.

    `missed` names the bars that are missed. Raises `QualityError` where the command fails.
    """
    used = (model or default_model()).absolute()
    with tempfile.TemporaryDirectory(prefix="u2net-throughput-") as name:
        scratch = Path(name)
        folder = data
        if folder is None:
            folder = scratch / "photographs"
            make_photographs(folder, count)
        if kills:
            return {"model": str(used), "kill": kill_test(used, folder, scratch, kills)}
        return _figures(used, folder, scratch, presets, jobs)


def _figures(model: Path, folder: Path, scratch: Path, presets: Sequence[str], jobs: int | None) -> dict[str, Any]:
    first = min(path for path in folder.iterdir() if path.is_file())
    large = scratch / "large"
    make_photographs(large, 1, TWELVE_MEGAPIXELS)
    figures: dict[str, Any] = {"model": str(model), "cores": available_cores(), "load": round(os.getloadavg()[0], 1)}
    figures["presets"] = {p: measure_throughput(model, folder, scratch, p, jobs) for p in presets}
    figures["start_up_s"] = round(measure_start_up(model, first, scratch), 3)
    picture = large / "photo-0000.jpg"
    figures["memory_mb"] = {p: round(measure_memory(model, picture, scratch, p), 1) for p in presets}
    missed = [p for p, bar in BARS.items() if p in presets and figures["presets"][p]["images_per_s"] < bar]
    missed += ["start-up"] if figures["start_up_s"] > START_UP_S else []
    missed += [f"memory of {p}" for p, value in figures["memory_mb"].items() if value > MEMORY_MB]
    figures["missed"] = missed
    return figures


def throughput_text(figures: dict[str, Any]) -> str:
    """The figures, a line each."""
    if "kill" in figures:
        kill = figures["kill"]
        return f"{kill['kills']} kills of a batch of {kill['images']}: every output right, none written twice"
    model = "/".join(Path(figures["model"]).parts[-2:])
    lines = [f"{model} on {figures['cores']} cores, load {figures['load']} at the start"]
    for preset, value in figures["presets"].items():
        bar = f" (bar {BARS[preset]:g})" if preset in BARS else ""
        lines.append(
            f"{preset:10} {value['images_per_s']} images/s{bar}, {value['images_per_cpu_s']} a processor second, "
            f"{figures['memory_mb'][preset]} MB for 12 megapixels (bar {MEMORY_MB:g})"
        )
    lines.append(f"start-up   {figures['start_up_s']} s to the first inference (bar {START_UP_S:g})")
    if figures["missed"]:
        lines.append("missed: " + ", ".join(figures["missed"]))
    return "\n".join(lines)

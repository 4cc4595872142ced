"""The machine fails, or somebody else writes, while results are being written."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets.cli import main as datasets
from u2net.artifact import write_sidecar
from u2net.cli import main
from u2net.encode import encoded, place, write_picture
from u2net.errors import OutputError
from u2net.files import write_bytes

from .outcome import attack, attack_process, tree

CUT = ("-m", "u2net")
NOBODY = 65534


def complete(path: Path) -> bool:
    with Image.open(path) as image:
        image.load()
        return image.size == (160, 120)


# Links


def test_a_link_at_the_output_is_replaced_not_followed(tmp_path: Path, model: Path, photo: Path) -> None:
    victim, dangling = tmp_path / "victim.png", tmp_path / "elsewhere.png"
    victim.write_bytes(b"precious")
    out, mask = tmp_path / "out.png", tmp_path / "mask.png"
    out.symlink_to(victim)
    mask.symlink_to(dangling)
    assert attack(main, [photo, "-o", out, "--mask", mask, "--model", model], tmp_path).status == 0
    assert victim.read_bytes() == b"precious" and not dangling.exists()
    assert not out.is_symlink() and not mask.is_symlink() and complete(out) and complete(mask)


def test_links_in_a_batch_folder(tmp_path: Path, model: Path, photo: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    target.mkdir()
    shutil.copy(photo, source / "a.jpg")
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (target / "a.png").symlink_to(victim)
    (source / "loop").symlink_to(source)
    arguments: list[str | Path] = [source, "-o", target, "--model", model, "--recursive", "--jobs", "1"]
    assert attack(main, arguments, tmp_path).status == 0
    assert victim.read_bytes() == b"precious" and complete(target / "a.png")
    (target / ".u2net-journal.jsonl").unlink()
    (target / ".u2net-journal.jsonl").symlink_to(victim)
    outcome = attack(main, [*arguments, "--force"], tmp_path)
    outcome.clean()
    assert victim.read_bytes() == b"precious"


@pytest.mark.parametrize("kind", ["pipe", "folder", "deep", "elsewhere", "torn"])
def test_a_hostile_journal(kind: str, tmp_path: Path, model: Path, photo: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    target.mkdir()
    shutil.copy(photo, source / "a.jpg")
    journal = target / ".u2net-journal.jsonl"
    if kind == "pipe":
        os.mkfifo(journal)
    elif kind == "folder":
        journal.mkdir()
    elif kind == "deep":
        journal.write_bytes(b"[" * 200_000 + b"\n" + b'{"key":' * 50_000)
    elif kind == "elsewhere":
        line = {"output": "../../evil.png", "key": "k", "files": {"../../evil.png": "0" * 64}}
        journal.write_text(json.dumps(line) + "\n" + json.dumps({"output": ["x"], "key": "k", "files": {}}) + "\n")
    else:
        journal.write_bytes(b'{"output": "a.png", "key": "\xff\xfe')
    outcome = attack(main, [source, "-o", target, "--model", model, "--jobs", "1"], tmp_path)
    outcome.clean()
    assert set(tree(tmp_path)) <= {"in/a.jpg", "out/a.png", "out/.u2net-journal.jsonl"}
    if kind not in ("pipe", "folder"):
        assert outcome.status == 0 and complete(target / "a.png")
    else:
        assert outcome.status == 1


def test_a_sidecar_link_is_replaced(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "m.onnx").write_bytes(b"m")
    (tmp_path / "m.json").symlink_to(victim)
    write_sidecar(tmp_path / "m.onnx", stage="export", settings={}, inputs={}, figures={})
    assert victim.read_bytes() == b"precious" and not (tmp_path / "m.json").is_symlink()


# Places that cannot be written


@pytest.mark.parametrize("where", ["file/out.png", "n" * 300 + ".png", "a\nb.png", "folder.png", "nosuffix", "x.exe"])
def test_outputs_that_cannot_be(where: str, tmp_path: Path, model: Path, photo: Path) -> None:
    (tmp_path / "file").write_bytes(b"a file")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "folder.png" / (photo.stem + ".png")).mkdir()
    (tmp_path / "folder.png" / (photo.stem + ".png") / "kept").touch()
    attack(main, [photo, "-o", tmp_path / where, "--model", model], tmp_path).refused()


def test_output_over_the_input(tmp_path: Path, model: Path, photo: Path) -> None:
    own = tmp_path / "own.png"
    Image.open(photo).save(own)
    before = own.read_bytes()
    (tmp_path / "alias.png").symlink_to(own)
    for target in (own, tmp_path / "alias.png"):
        attack(main, [own, "-o", target, "--model", model], tmp_path).refused("input")
    assert own.read_bytes() == before


def test_read_only_folder(tmp_path: Path, model: Path, photo: Path) -> None:
    folder = tmp_path / "shut"
    folder.mkdir()
    options: dict[str, Any] = {}
    if os.geteuid() == 0:  # root may write anywhere, so somebody else tries
        for path in (tmp_path, *tmp_path.parents):
            if path != path.parent and path.stat().st_mode & 0o001 == 0 and path.owner() == "root":
                path.chmod(path.stat().st_mode | 0o011)
        for path in (photo, model):
            path.parent.chmod(0o755)
            path.parent.parent.chmod(0o755)
        options = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        try:
            imports = [sys.executable, "-c", "import numpy, PIL, onnxruntime"]
            subprocess.run(imports, capture_output=True, check=True, **options)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("run by root, and no other user can run this Python; the read-only mount is tested below")
    folder.chmod(0o555)
    try:
        outcome = attack_process([*CUT, photo, "-o", folder / "out.png", "--model", model], tmp_path, **options)
        outcome.refused("permission denied")
    finally:
        folder.chmod(0o755)


@pytest.mark.skipif(not shutil.which("unshare"), reason="no unshare to mount with")
def test_read_only_mount_and_full_disk(tmp_path: Path, model: Path, photo: Path) -> None:
    """Two real file systems, mounted for this test alone: one read-only, one of 16 kB."""
    place_ = tmp_path / "mounted"
    place_.mkdir()
    for options, words in (("ro", "read-only file system"), ("size=16k", "no space left")):
        mount = f'mount -t tmpfs -o {options} tmpfs "$1" && shift && exec "$@"'
        command = ["unshare", "-rm", "sh", "-c", mount, "sh", str(place_)]
        if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
            pytest.skip("mounting is not allowed here")
        script = (
            "import os, subprocess, sys\n"
            "status = subprocess.run([sys.executable, '-m', 'u2net', *sys.argv[2:]]).returncode\n"
            "print(os.listdir(sys.argv[1]))\nsys.exit(status)\n"
        )
        done = subprocess.run(
            [*command, sys.executable, "-c", script, place_, photo, "-o", place_ / "out.png", "--model", model],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 1, done.stderr
        assert words in done.stderr.lower() and done.stderr.count("\n") == 1, done.stderr
        assert done.stdout.strip() == "[]"  # nothing half-written


def small_files_only() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))


def test_files_may_not_grow(tmp_path: Path, model: Path, photo: Path) -> None:
    """The limit on file sizes stands in for a disk that fills up in the middle of a file."""
    commands: list[list[str | Path]] = [
        [*CUT, photo, "-o", tmp_path / "out.png", "--model", model],
        ["-m", "datasets", "make", "--count", "2", "--out", tmp_path / "set"],
    ]
    for command in commands:
        outcome = attack_process(command, tmp_path, preexec_fn=small_files_only)
        outcome.refused("cannot write")


def test_in_one_process_every_writer_cleans_up(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"m")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 4), np.uint8)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        for write in (
            lambda: write_picture(tmp_path / "a.png", pixels),
            lambda: write_bytes(tmp_path / "b.bin", b"x" * 1000),
            lambda: write_sidecar(tmp_path / "m.onnx", stage="s", settings={"k": "v" * 1000}, inputs={}, figures={}),
        ):
            with pytest.raises(OutputError, match="too large"):
                write()
        attack(datasets, ["preview", "--count", "1", "--out", tmp_path / "s.png"], tmp_path).refused("too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert set(tree(tmp_path)) == {"m.onnx"}


def test_standard_output_that_is_full(tmp_path: Path, model: Path, photo: Path) -> None:
    for output in (["-o", "-"], ["-o", tmp_path / "o.png", "--json"]):
        with open("/dev/full", "wb") as full:  # noqa: PTH123  (a device)
            outcome = attack_process([*CUT, photo, *output, "--model", model], tmp_path, stdout=full)
        outcome.clean()
        assert outcome.status == 1
        assert outcome.err.lower().count("no space left") == 1 and outcome.err.count("\n") == 1, outcome.err


def test_standard_output_that_is_closed(tmp_path: Path, model: Path, photo: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        outcome = attack_process([*CUT, photo, "-o", "-", "--model", model], tmp_path, stdout=pipe)
    outcome.clean()
    assert outcome.status != 0


# Killed

# Runs a command whose process is killed at the first fsync: its bytes are on their way, nothing is in place yet.
KILLED = """
import os, sys
def die(*_):
    os.kill(os.getpid(), 9)
os.fsync = die
import runpy
module, sys.argv = sys.argv[1], sys.argv[1:]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def test_killed_at_the_worst_moment(tmp_path: Path, model: Path, photo: Path) -> None:
    out = tmp_path / "out.png"
    for old in (None, b"the picture of before"):
        if old:
            out.write_bytes(old)
        outcome = attack_process(["u2net", photo, "-o", out, "--model", model], tmp_path, code=KILLED)
        assert outcome.status == -signal.SIGKILL
        assert (out.read_bytes() if out.exists() else None) == old
        # Nothing is left beside it where the file system knows files without names.
        assert set(tree(tmp_path)) <= {"out.png"} or not _nameless(tmp_path)
    assert attack(main, [photo, "-o", out, "--model", model], tmp_path).status == 0
    assert complete(out)


def _nameless(folder: Path) -> bool:
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY))
    except (AttributeError, OSError):
        return False
    return True


def _write_for_ever(path: str) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (400, 400, 4), np.uint8)
    data = encoded(pixels, "png")
    while True:
        place(path, data)


def test_killed_at_random_moments(tmp_path: Path) -> None:
    """Fifteen writers, each killed within a tenth of a second: the file is absent, the old one or the new one."""
    context = multiprocessing.get_context("fork")
    pauses = np.random.default_rng(2).uniform(0.005, 0.1, 15)
    out = tmp_path / "out.png"
    for pause in pauses:
        writer = context.Process(target=_write_for_ever, args=(str(out),))
        writer.start()
        time.sleep(float(pause))
        writer.kill()
        writer.join()
        if out.exists():
            with Image.open(out) as image:
                image.load()
                assert image.size == (400, 400)
    # A kill between the link and the rename may leave the spare name: a whole file, hidden.
    for name in set(tree(tmp_path)) - {"out.png"}:
        assert name.startswith(".out.")


# Two at once


def _write_many(path: str, grey: int, count: int) -> None:
    pixels = np.full((300, 300, 3), grey, np.uint8)
    for _ in range(count):
        write_picture(path, pixels)


def test_two_processes_write_the_same_output(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    out = tmp_path / "out.png"
    writers = [context.Process(target=_write_many, args=(str(out), grey, 60)) for grey in (10, 200)]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        if out.exists():
            with Image.open(out) as image:
                low, high = image.convert("L").getextrema()
            assert low == high and low in (10, 200), "a mixture of two files"
            seen.add(low)
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert seen and set(tree(tmp_path)) == {"out.png"}


def test_two_batches_write_the_same_folder(tmp_path: Path, model: Path, photo: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for index in range(8):
        shutil.copy(photo, source / f"{index}.jpg")
    command = [sys.executable, *CUT, source, "-o", tmp_path / "out", "--model", model, "--jobs", "1"]
    both = [
        subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0 and "Traceback" not in err, err
    files = tree(tmp_path / "out")
    assert set(files) == {".u2net-journal.jsonl", *(f"{i}.png" for i in range(8))}
    assert all(complete(tmp_path / "out" / f"{i}.png") for i in range(8))
    again = attack(main, [source, "-o", tmp_path / "out", "--model", model, "--jobs", "1", "--json"], tmp_path)
    assert json.loads(again.out.splitlines()[-1])["summary"]["skipped"] == 8

"""Targets that chain several commands say to each what it understands, in an order that works."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
import typer

from tests.support.paths import ROOT
from u2net.cli import STAGES, load

STANDING = ("-o", ".venv/.toolchain", "-o", ".venv/constraints.txt")  # the environment is there: tests run in it


def recipe(*words: str) -> list[tuple[str, dict[str, object]]]:
    """Which commands `make WORDS` would run, as (name, what its parameters become); unknown options are errors."""
    done = subprocess.run(["make", "-n", *STANDING, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = []
    for line in done.stdout.splitlines():
        if not line.startswith(".venv/bin/python -m "):
            continue
        room, *rest = shlex.split(line)[2:]
        if room not in STAGES:  # pip
            continue
        application = load(room)
        assert application is not None
        called = rest.pop(0) if rest[0] in application.commands else application.default
        assert called is not None
        context = typer.main.get_command(application.commands[called]).make_context(called, rest)
        found.append((f"{room} {called}", dict(context.params)))
    return found


def test_pruning_goes_from_a_checkpoint_to_the_engine() -> None:
    words = ("PRUNE=0.5", "MODEL=small", "WEIGHTS=mine.pth", "CALIB=photographs", "NAME=half", "MINUTES=3")
    (_, shrink), (_, export), (_, quantize), (_, engine) = found = recipe(
        "-o", "mine.pth", "export", "quantize", *words
    )
    assert [name for name, _ in found] == ["train shrink", "export export", "quantize quantize", "engine pack"]
    assert (shrink["weights"], shrink["share"], shrink["minutes"]) == (Path("mine.pth"), 0.5, 3)
    assert export["weights"] == shrink["out"] == Path("build/half/weights.safetensors") and export["model"] is None
    assert quantize["calib"] == shrink["data"] == engine["calib"] == Path("photographs")
    judged = recipe("-o", "mine.pth", "-o", "chromium", "eval", *words)[-1]
    whole = Path("build/half/whole/fp32.onnx")
    assert judged[1]["models"] == [whole, export["out"], quantize["out"], engine["out"]], "beside the whole network"


def test_finetuning_goes_from_a_folder_to_a_report_beside_the_start(tmp_path: Path) -> None:
    (tmp_path / "products" / "masks").mkdir(parents=True)
    taught = tmp_path / "training" / "weights.safetensors"
    taught.parent.mkdir()
    taught.touch()  # which the first command would write
    words = (f"DATA={tmp_path}/products", "MODEL=small-fast", "WEIGHTS=own.pth", f"BUILD={tmp_path}", "STEPS=9")
    found = recipe("-o", "own.pth", "finetune", *words)
    names = ["train finetune", "export export", "quantize quantize", "engine pack", "export export", "eval eval"]
    assert [name for name, _ in found] == names
    finetune, own, quantize, _, general, judged = (values for _, values in found)
    assert (finetune["start"], finetune["steps"]) == (Path("own.pth"), 9)
    assert own["weights"] == Path(str(finetune["out"])) / "weights.safetensors" == taught
    assert quantize["calib"] == tmp_path / "products" / "images"
    assert general["weights"] == finetune["start"]
    assert judged["models"] == [general["out"], own["out"], quantize["out"]], "the start is what it is measured against"
    assert judged["data"] == Path(str(finetune["out"])) / "held-out", "pictures that training never saw"


@pytest.mark.parametrize("words", [(), ("DATA=nowhere",)])
def test_finetuning_on_nothing_says_what_it_wants(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["make", *STANDING, "finetune", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode and "say DATA=FOLDER" in done.stderr


def test_the_curve_of_shares_is_measured_on_pictures_that_nothing_was_taught_on(tmp_path: Path) -> None:
    (tmp_path / "own.pth").touch()
    words = ("MODEL=lite", f"WEIGHTS={tmp_path}/own.pth", "SHARES=0.5", "CALIB=photographs", "EVAL=others")
    name, shares = recipe("prune", *words)[-1]
    assert name == "eval shares" and shares["data"] == Path("others/images")
    assert shares["models"] == [Path("build/lite/int8.u2e"), Path("build/lite-0.5/int8.u2e")]

"""Pruning by a share of the multiplications: the price is right, the cheap goes first, healing never harms."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from datasets.synthetic import SyntheticSet
from quantize.region import MIN_CHANNELS
from tests.u2net.network.test_checkpoint import network
from train.prune import macs, producers
from train.shrink import choose_widths, convolution_macs, shrink_file
from train.shrink_settings import ShrinkSettings
from u2net.artifact import verify_artifact
from u2net.errors import ConfigError
from u2net.network.checkpoint import load_checkpoint, save_checkpoint
from u2net.network.model import CONFIGS, STAGE_NAMES, StageWidths, U2Net, U2NetConfig

NARROW = U2NetConfig("narrow", (StageWidths(16, 24),) * 11, size=64)


def equal(config: U2NetConfig) -> dict[str, torch.Tensor]:
    """The same importance for every channel of every space."""
    sizes = {p.space: config.stage(p.space.split(".")[0]) for p in producers(config)}
    return {space: torch.ones(w.mid if "." in space else w.out) for space, w in sizes.items()}


@pytest.mark.parametrize("model", ["small", "small-fast", "lite"])
@pytest.mark.parametrize("size", [64, 100])
def test_the_price_is_the_number_of_multiplications(model: str, size: int) -> None:
    assert convolution_macs(CONFIGS[model], size) == macs(CONFIGS[model], size)


@pytest.mark.parametrize("share", [0.75, 0.5, 0.25])
def test_a_share_is_kept_to_and_dear_channels_go_first(share: float) -> None:
    small = CONFIGS["small"]
    target = choose_widths(small, equal(small), share, "small-x")
    assert convolution_macs(target) <= share * convolution_macs(small)
    assert convolution_macs(target) > (share - 0.05) * convolution_macs(small)
    assert all(w.mid % 4 == 0 and w.out % 4 == 0 for w in target.widths)
    assert all(min(w.mid, w.out) >= MIN_CHANNELS for w in target.widths), "none that int8 leaves in float"
    assert target.stage("stage1d").out < target.stage("stage6").out == small.stage("stage6").out
    assert choose_widths(small, equal(small), 1.0, "same").widths == small.widths


def test_channels_that_matter_stay() -> None:
    importance = equal(NARROW)
    for space, scores in importance.items():
        if space.startswith("stage1d"):
            scores *= 1e6
    target = choose_widths(NARROW, importance, 0.6, "x")
    assert target.stage("stage1d") == NARROW.stage("stage1d")
    with pytest.raises(ConfigError, match="ask for a larger --share"):
        choose_widths(NARROW, importance, 0.05, "x")


def test_from_a_checkpoint_to_a_smaller_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty pictures are enough, masks are not needed, and the same command does nothing the second time."""
    from train.cli import main

    monkeypatch.setattr("train.shrink.FORGOTTEN", -1.0)  # any difference is worth the warning
    torch.manual_seed(5)
    model = U2Net(NARROW).eval()
    save_checkpoint(model, tmp_path / "own.safetensors")
    (tmp_path / "pictures").mkdir()
    for index, scene in enumerate(SyntheticSet(10, 3, (96, 96))):
        Image.fromarray(scene.rgb).save(tmp_path / "pictures" / f"{index}.png")
    out = tmp_path / "half.safetensors"
    words = ["shrink", "--weights", str(tmp_path / "own.safetensors"), "--data", str(tmp_path / "pictures")]
    words += ["--out", str(out), "--share", "0.5", "--steps", "4", "--batch", "2", "--threads", "1", "--json"]
    assert main(words) == 0
    said = capsys.readouterr()
    made = json.loads(said.out)
    assert made == verify_artifact(out)
    assert f"agree to {made['figures']['iou_on_scenes']:.4f} alone" in said.err
    figures = made["figures"]
    assert figures["share"] <= 0.5 and figures["parameters_after"] < figures["parameters_before"]
    assert 0 <= figures["iou_pruned"] <= figures["iou_healed"] <= 1, "never below its start"
    assert figures["mae_healed"] <= figures["mae_pruned"] < 0.01, "the fit alone comes near"
    assert (figures["pictures"], figures["held_out"]) == (8, 2), "what is held out scales with the folder"
    found = load_checkpoint(out)
    assert {n: [found.config.stage(n).mid, found.config.stage(n).out] for n in STAGE_NAMES} == figures["widths"]
    bytes_before = out.read_bytes()
    assert main(words) == 0
    assert "half.safetensors: up to date" in capsys.readouterr().err and out.read_bytes() == bytes_before


def test_own_widths_instead_of_a_share(tmp_path: Path) -> None:
    save_checkpoint(U2Net(NARROW).eval(), tmp_path / "own.safetensors")
    rows = "\n".join(f"{name} = [4, {8 if name == 'stage6' else 12}]" for name in STAGE_NAMES)
    (tmp_path / "thin.toml").write_text(f"size = 64\n[widths]\n{rows}\n")
    settings = ShrinkSettings(steps=0, count=4, check=2, threads=1)
    own, out, thin = (tmp_path / name for name in ("own.safetensors", "o.safetensors", "thin.toml"))
    made = shrink_file(own, out, None, settings, widths=thin)
    assert load_checkpoint(tmp_path / "o.safetensors").config.stage("stage6") == StageWidths(4, 8)
    assert made["figures"]["widths"]["stage6"] == [4, 8]


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    save_checkpoint(network(), tmp_path / "own.safetensors")
    with pytest.raises(ConfigError, match="--share must be"):
        ShrinkSettings(share=1.5)
    with pytest.raises(ConfigError, match="say --out small"):
        shrink_file(tmp_path / "own.safetensors", tmp_path / "small.onnx", None, ShrinkSettings())
    assert replace(ShrinkSettings(), steps=0).steps == 0

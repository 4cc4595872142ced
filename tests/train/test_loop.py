"""The training loop: batches, losses, resume, ranks, the teacher cache and the commands, on tiny networks."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import xml.etree.ElementTree
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets.folder import ImageFolder, PairFolder
from tests.support.paths import ROOT
from train.augment import PLAIN, Augmentation, Group, Pictures, batch_rows, make_batch, side_targets
from train.batchnorm import is_folded
from train.cache import Cache, build_cache
from train.cli import main
from train.config import load_settings
from train.curve import draw_curve
from train.loop import Ranks, TrainSettings, rate, save_weights, shares, train
from train.losses import LossWeights, distillation_loss, soft_iou
from train.state import steps_of
from train.teachers import NetworkTeacher
from train.validation import fit_temperature, held_out, scale_logits, validate
from u2net.errors import ConfigError, DataError, QualityError
from u2net.network.checkpoint import load_checkpoint, save_checkpoint
from u2net.network.model import CONFIGS, REBNCONV, StageWidths, U2Net, U2NetConfig, build_model

TINY = U2NetConfig("tiny", (StageWidths(4, 8),) * 11, stem=2)
SIZE = 64
ALONE = Ranks(0, 1, torch.device("cpu"))
QUICK = TrainSettings(
    steps=6, batch=4, lr=3e-3, warmup=2, sizes=(SIZE,), precision="fp32", holdout=4, validate_every=3, save_every=3
)


def discs(folder: Path, count: int) -> Path:
    """`count` pictures of a bright disc on a dark ground, with their masks."""
    rng = np.random.default_rng(5)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    y, x = np.mgrid[:72, :80]
    for i in range(count):
        radius, centre = rng.integers(12, 26), rng.integers(26, 46, 2)
        mask = ((y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2).astype(np.uint8)
        colour, ground = rng.integers(150, 255, 3), rng.integers(0, 90, 3)
        picture = np.where(mask[..., None], colour, ground) + rng.normal(0, 8, (72, 80, 3))
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"disc_{i:02d}.png")
        Image.fromarray(mask * 255).save(folder / "masks" / f"disc_{i:02d}.png")
    return folder


def fill(*args: object, **kwargs: object) -> None:
    for _ in build_cache(*args, **kwargs):  # type: ignore[arg-type]
        pass


def tiny(seed: int = 0, config: U2NetConfig = TINY) -> U2Net:
    torch.manual_seed(seed)
    return U2Net(config).eval()


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return discs(tmp_path_factory.mktemp("discs") / "set", 24)


@pytest.fixture(scope="module")
def cache(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    folder = tmp_path_factory.mktemp("cache") / "truth"
    fill(PairFolder(pairs), [], folder, size=SIZE)
    return Cache.open(folder)


# ---- batches ------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 40), batch=st.integers(1, 17), seed=st.integers(0, 99))
def test_every_epoch_shows_every_picture_once(count: int, batch: int, seed: int) -> None:
    rows = np.arange(100, 100 + count)
    steps = -(-3 * count // batch)
    shown = np.concatenate([batch_rows([Group(rows, count)], step, batch, seed) for step in range(steps)])
    for epoch in range(3):
        assert sorted(shown[epoch * count : (epoch + 1) * count]) == list(rows)


def test_a_share_thins_its_set_alone(cache: Cache) -> None:
    rows = np.arange(24)
    named = replace(cache, stems=tuple(f"{'a' if i < 16 else 'b'}_{i}" for i in range(24)))
    groups = shares(named, rows, {"a": 0.25})
    for epoch in range(4):
        shown = np.concatenate([batch_rows(groups, step, 4, 0) for step in range(3 * epoch, 3 * epoch + 3)])
        assert len(set(shown)) == 12 and set(range(16, 24)) <= set(shown)
    with pytest.raises(ConfigError, match="names c, but there are a, b"):
        shares(named, rows, {"c": 0.5})


def pictures_of(cache: Cache) -> Pictures:
    return Pictures.of(cache, ALONE.device)


def test_a_batch_is_a_function_of_its_seed(cache: Cache) -> None:
    rows, strong = np.arange(8), Augmentation(crop=1, look=0.5, colour=1, blur=0.5, noise=0.5, composite=0.9)
    a, b, c = (make_batch(pictures_of(cache), rows, SIZE, strong, seed) for seed in ((1, 2), (1, 2), (1, 3)))
    assert torch.equal(a.pictures, b.pictures) and torch.equal(a.maps, b.maps)
    assert not torch.equal(a.pictures, c.pictures)
    assert a.pictures.shape == (8, 3, SIZE, SIZE) and a.maps.shape == (8, 1, SIZE, SIZE)
    assert float(a.maps.min()) >= 0 and float(a.maps.max()) <= 1
    sides = [SIZE, 32, 16, 8, 4, 2, 1]
    targets = side_targets(a.maps, sides)
    assert [t.shape for t in targets] == [(8, 1, side, side) for side in sides]
    for target in targets:  # an average of the map, whatever its side
        torch.testing.assert_close(target.mean((1, 2, 3)), a.maps.mean((1, 2, 3)))


@pytest.mark.parametrize("changes", [{"crop": 1.0, "crop_least": 0.6}, {"look": 1.0}, {"flip": 0.5}])
def test_geometry_moves_pictures_and_maps_alike(cache: Cache, changes: dict[str, float]) -> None:
    """The discs are brighter than their ground, so brightness says where the subject is after any crop and flip."""
    batch = make_batch(pictures_of(cache), np.arange(16), SIZE, replace(PLAIN, **changes), (4,))
    for picture, mask in zip(batch.pictures, batch.maps, strict=True):
        bright = picture.mean(0) > 115
        assert float((bright == (mask[0] > 0.5)).float().mean()) > 0.97


def test_the_second_look_is_the_runners(cache: Cache) -> None:
    """The subject's box with 30 % margin on each side: a disc covers π/4 / 1.6² of the picture, of any size."""
    data = pictures_of(cache)
    wide = data.boxes[:, 2:] - data.boxes[:, :2]
    inside = ((data.boxes[:, :2] - 0.3 * wide >= 0) & (data.boxes[:, 2:] + 0.3 * wide <= 1)).all(1)
    rows = np.flatnonzero(inside & (wide.min(1) * 1.6 > 0.25))
    assert len(rows) >= 4
    looked, whole = (make_batch(data, rows, SIZE, replace(PLAIN, look=look), (4,)).maps for look in (1.0, 0.0))
    share = looked.mean((1, 2, 3))
    assert float((share - np.pi / 4 / 1.6**2).abs().median()) < 0.03
    assert float(share.std()) < 0.6 * float(whole.mean((1, 2, 3)).std())


def test_composites_are_their_subject_on_another_ground(cache: Cache) -> None:
    """The discs are bright and no ground is: where the matte is sure, the picture is the disc or a ground."""
    data = pictures_of(cache)
    rows = np.flatnonzero(data.sure)
    assert len(rows) >= 6
    before, after = (make_batch(data, rows, SIZE, replace(PLAIN, composite=c), (9,)) for c in (0.0, 1.0))
    assert not torch.equal(before.pictures, after.pictures)
    smaller = after.maps.mean((1, 2, 3)) / before.maps.mean((1, 2, 3))
    assert float(smaller.min()) > 0.1 and float(smaller.max()) < 1.1
    for picture, matte in zip(after.pictures, after.maps, strict=True):
        assert float(picture.mean(0)[matte[0] == 1].median()) > 130


# ---- losses -------------------------------------------------------------------------------------------------------


def test_soft_iou_is_the_ordinary_one_on_masks() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 5, 1, 40, 40)) > 0.5
    got = soft_iou(torch.from_numpy(a).float(), torch.from_numpy(b).float()).numpy()
    floor = 0.005 * 1600
    expected = [(np.sum(x & y) + floor) / (np.sum(x | y) + floor) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_the_loss_is_least_at_the_teachers_maps() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = tuple(torch.rand(2, 1, s, s, generator=generator) * 0.98 + 0.01 for s in (32, 32, 16, 8, 4, 2, 1))
    perfect = tuple(torch.logit(t).requires_grad_() for t in targets)
    best = distillation_loss(perfect, targets, LossWeights())
    best["total"].backward()
    assert max(float(z.grad.abs().max()) for z in perfect[1:] if z.grad is not None) < 1e-6
    assert float(best["iou"].detach()) < 1e-4
    for k in range(7):
        off = [z.detach() for z in perfect]
        off[k] = off[k] + 0.5
        assert distillation_loss(tuple(off), targets, LossWeights())["total"] > best["total"]


def test_the_rate_does_not_jump_when_a_run_is_extended() -> None:
    short, long = replace(QUICK, steps=1000, warmup=10), replace(QUICK, steps=4000, warmup=10)
    rates = [rate(short, step, step / 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(short.lr / 10) and rates[9] == short.lr and rates[-1] < short.lr / 100
    assert max(abs(a - b) for a, b in itertools.pairwise(rates[10:])) < short.lr / 300
    assert all(rate(short, s, s / 1000) == rate(long, s, s / 4000) for s in range(int(1000 * (1 - short.decay))))


# ---- the teacher cache --------------------------------------------------------------------------------------------


def test_a_cache_that_was_interrupted_equals_one_that_was_not(pairs: Path, tmp_path: Path) -> None:
    teachers, pictures = [NetworkTeacher(tiny(3), scales=(48,))], ImageFolder(pairs)
    fill(pictures, teachers, tmp_path / "a", size=SIZE)
    made = build_cache(pictures, teachers, tmp_path / "b", size=SIZE)
    for _ in range(2):
        next(made)
    del made
    assert 0 < Cache.open(tmp_path / "b").done.sum() < 24
    fill(pictures, teachers, tmp_path / "b", size=SIZE)
    for name in ("images", "maps", "done"):
        assert (tmp_path / "a" / f"{name}.npy").read_bytes() == (tmp_path / "b" / f"{name}.npy").read_bytes(), name
    with pytest.raises(DataError, match="other pictures or settings"):
        fill(pictures, [NetworkTeacher(tiny(3), flip=False)], tmp_path / "a", size=SIZE)


@pytest.mark.parametrize("about", ["{}", "[]", "3", '{"size": 64, "stems": ["a"]}', "{"])
def test_a_damaged_cache_is_one_clear_line(pairs: Path, tmp_path: Path, about: str) -> None:
    fill(PairFolder(pairs), [], tmp_path, size=SIZE)
    (tmp_path / "cache.json").write_text(about)
    with pytest.raises(DataError, match="cache") as error:
        Cache.open(tmp_path)
    assert "\n" not in str(error.value)


def test_truth_is_mixed_in_where_there_are_masks(pairs: Path, cache: Cache, tmp_path: Path) -> None:
    teachers = [NetworkTeacher(tiny(3))]
    fill(ImageFolder(pairs), teachers, tmp_path / "teacher", size=SIZE)
    fill(PairFolder(pairs), teachers, tmp_path / "mixed", size=SIZE, truth=0.25)
    alone, mixed = Cache.open(tmp_path / "teacher"), Cache.open(tmp_path / "mixed")
    expected = 0.25 * cache.maps.astype(float) + 0.75 * alone.maps
    assert np.abs(mixed.maps - expected).max() <= 1.01


# ---- the loop -----------------------------------------------------------------------------------------------------


def digest(path: Path) -> dict[str, torch.Tensor]:
    return dict(load_checkpoint(path).state_dict())


def test_a_killed_run_continues_with_the_same_numbers(cache: Cache, tmp_path: Path) -> None:
    train(tiny(1), cache, tmp_path / "whole", QUICK, ALONE, say=lambda _: None)
    train(tiny(1), cache, tmp_path / "parts", QUICK, ALONE, say=lambda _: None, stop_after=4)
    said: list[str] = []
    train(tiny(8), cache, tmp_path / "parts", QUICK, ALONE, said.append)  # other weights: the state file's count
    assert said[0] == "continuing at step 3"
    whole, parts = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "parts"))
    for part in ("model", "average"):
        for name, value in whole[part].items():
            assert torch.equal(value, parts[part][name]), f"{part} {name}"
    for index, values in whole["optimizer"]["state"].items():
        for name, value in values.items():
            assert torch.equal(value, parts["optimizer"]["state"][index][name])
    rows = [list(csv.DictReader((tmp_path / name / "log.csv").open())) for name in ("whole", "parts")]
    for a, b in zip(*rows, strict=True):
        assert {k: v for k, v in a.items() if k != "seconds"} == {k: v for k, v in b.items() if k != "seconds"}


def test_the_seed_decides_the_weights(cache: Cache, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run = replace(QUICK, steps=3, seed=seed)
        train(tiny(1), cache, tmp_path / name, run, ALONE, say=lambda _: None)
    a, b, c = (digest(tmp_path / name / "weights.safetensors") for name in "abc")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)


@pytest.fixture
def own_maps(pairs: Path, tmp_path: Path) -> tuple[U2Net, Cache]:
    """A network, and a cache of its own maps."""
    model = tiny(3)
    scale_logits(model, 8.0)  # a random network's maps are grey all over
    fill(ImageFolder(pairs), [NetworkTeacher(model, flip=False)], tmp_path / "own", size=SIZE)
    return model, Cache.open(tmp_path / "own")


@pytest.mark.parametrize("factor", [0.6, 1.0, 2.5])
def test_the_temperature_undoes_a_scale(own_maps: tuple[U2Net, Cache], factor: float) -> None:
    model, cache = own_maps
    _, rows = held_out(cache, QUICK.holdout)
    scale_logits(model, 1 / factor)
    found, errors = fit_temperature(model, cache, rows, torch.device("cpu"))
    assert abs(np.log(found / factor)) <= np.log(1.1) / 2 + 1e-6
    before = validate(model, cache, rows, torch.device("cpu"))
    assert errors[1.0] == pytest.approx(before["val_mae"], abs=1e-6)
    scale_logits(model, found)
    after = validate(model, cache, rows, torch.device("cpu"))
    assert after["val_mae"] == pytest.approx(errors[found], abs=1e-5)
    assert after["val_iou"] == pytest.approx(before["val_iou"], abs=1e-3)


def test_the_average_is_the_mean(tmp_path: Path) -> None:
    paths = []
    for seed in (1, 2):
        paths.append(tmp_path / f"{seed}.safetensors")
        save_checkpoint(tiny(seed), paths[-1])
    out = tmp_path / "mean.safetensors"
    assert main(["average", *map(str, paths), "--out", str(out)]) == 0
    a, b, mean = (load_checkpoint(path).state_dict() for path in (*paths, out))
    for name, value in mean.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, (a[name] + b[name]) / 2, rtol=1e-3, atol=1e-4)
    other = tmp_path / "other.safetensors"
    save_checkpoint(tiny(1, replace(TINY, stem=1)), other)
    assert main(["average", str(paths[0]), str(other), "--out", str(tmp_path / "none.safetensors")]) == 1
    assert not (tmp_path / "none.safetensors").exists()


def test_training_learns_the_discs(cache: Cache, tmp_path: Path) -> None:
    _, validation = held_out(cache, QUICK.holdout)
    before = validate(tiny(1), cache, validation, torch.device("cpu"))
    run = replace(QUICK, steps=60, batch=8, lr=1e-2, ema=0.9, validate_every=60, save_every=60)
    after = train(tiny(1), cache, tmp_path / "run", run, ALONE, say=lambda _: None)
    coverage = float((cache.maps[validation] > 127).mean())
    assert after["val_mae"] < min(before["val_mae"], coverage) / 2
    assert after["val_iou"] > 0.7


def test_a_batch_in_parts_teaches_the_same(cache: Cache, tmp_path: Path) -> None:
    """But for the weight of edges, which is each part's own."""
    whole = replace(QUICK, steps=3, frozen=True, loss=LossWeights(edge=0))
    found = {}
    for at_once in (0, 1, 3):
        out = tmp_path / str(at_once)
        train(tiny(1), cache, out, replace(whole, at_once=at_once), ALONE, say=lambda _: None)
        found[at_once] = torch.load(out / "state.pt", weights_only=True)["model"]
    start = tiny(1).state_dict()
    assert any(
        (start[name] - value).abs().max() > 1e-3 for name, value in found[0].items() if value.is_floating_point()
    )
    for at_once in (1, 3):
        for name, value in found[0].items():
            torch.testing.assert_close(found[at_once][name], value, atol=1e-4, rtol=1e-3, msg=name)
    with pytest.raises(ConfigError, match="needs frozen"):
        replace(QUICK, at_once=1)


def test_other_settings_do_not_continue_a_run_but_more_steps_do(cache: Cache, tmp_path: Path) -> None:
    train(tiny(1), cache, tmp_path, replace(QUICK, steps=3), ALONE, say=lambda _: None)
    with pytest.raises(ConfigError, match="other settings"):
        train(tiny(1), cache, tmp_path, replace(QUICK, lr=1e-4), ALONE, say=lambda _: None)
    train(tiny(1), cache, tmp_path, replace(QUICK, steps=5), ALONE, say=lambda _: None)
    assert [row["step"] for row in csv.DictReader((tmp_path / "log.csv").open())] == ["0", "3", "5"]


def test_pictures_held_out_are_never_trained_on(cache: Cache) -> None:
    training, validation = held_out(cache, 6)
    assert not set(training) & set(validation)
    assert sorted([*training, *validation]) == list(range(24))


def test_weights_are_stored_in_float16_where_they_fit(tmp_path: Path) -> None:
    model = tiny()
    save_weights(model, tmp_path / "half.safetensors")
    for name, value in load_checkpoint(tmp_path / "half.safetensors").state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, model.state_dict()[name], rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        model.stage1.rebnconvin.conv_s1.bias[0] = 1e6  # type: ignore[union-attr,operator]
    save_weights(model, tmp_path / "full.safetensors")
    for name, value in load_checkpoint(tmp_path / "full.safetensors").state_dict().items():
        assert torch.equal(value, model.state_dict()[name])


class Clock:
    """A clock that goes on by `pace` seconds every time it is looked at."""

    def __init__(self, pace: float) -> None:
        self.now, self.pace = 0.0, pace

    def __call__(self) -> float:
        self.now += self.pace
        return self.now


def test_a_run_by_the_clock_can_be_killed_continued_and_repeated(cache: Cache, tmp_path: Path) -> None:
    timed = replace(QUICK, minutes=0.5, steps=1, save_every=2, validate_every=100)
    go = partial(train, cache=cache, settings=timed, me=ALONE, say=lambda _: None)
    go(tiny(1), out=tmp_path / "timed", stop_after=6, clock=Clock(1.3))
    go(tiny(1), out=tmp_path / "timed", clock=Clock(0.9))  # killed, continued, faster
    done = steps_of(tmp_path / "timed")
    assert len(done) > 8 and done == sorted(done) and 0.9 < done[-1] < 1
    go(tiny(1), out=tmp_path / "again", repeat=done)
    first, again = (digest(tmp_path / name / "weights.safetensors") for name in ("timed", "again"))
    assert all(torch.equal(first[k], again[k]) for k in first)
    rows = list(csv.DictReader((tmp_path / "timed" / "log.csv").open()))
    assert float(rows[-1]["lr"]) < QUICK.lr / 2 and rows[0]["step"] == "0"


def test_a_damaged_state_is_one_clear_line(cache: Cache, tmp_path: Path) -> None:
    whole = io.BytesIO()
    torch.save({"step": 3}, whole)
    damaged = (("empty", b""), ("text", b"nothing"), ("zip", b"PK\x03\x04nothing"), ("part", whole.getvalue()))
    for name, data in damaged:
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.pt").write_bytes(data)
        with pytest.raises(ConfigError, match="not the state of a run"):
            train(tiny(1), cache, tmp_path / name, QUICK, ALONE, say=lambda _: None)


@pytest.fixture(scope="module")
def trained(cache: Cache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that know the discs."""
    out = tmp_path_factory.mktemp("trained")
    run = replace(QUICK, steps=60, batch=8, lr=1e-2, ema=0.9, validate_every=60, save_every=60)
    train(tiny(1), cache, out, run, ALONE, say=lambda _: None)
    return out / "weights.safetensors"


def test_a_run_that_ends_below_its_start_fails_and_leaves_the_start(
    cache: Cache, trained: Path, tmp_path: Path
) -> None:
    wild = replace(QUICK, steps=4, batch=8, lr=3.0, warmup=0, ema=0.0)
    with pytest.raises(QualityError, match="below its start"):
        train(load_checkpoint(trained), cache, tmp_path / "bad", wild, ALONE, say=lambda _: None)
    kept = digest(tmp_path / "bad" / "weights.safetensors")
    start = digest(trained)
    assert all(torch.equal(kept[name], value) for name, value in start.items())


@pytest.mark.parametrize("frozen", [False, True])
def test_folded_batch_norm_is_no_trap(cache: Cache, trained: Path, tmp_path: Path, frozen: bool) -> None:
    """A network whose batch norm was folded away keeps what it knows when it is trained at a rate of nearly nothing."""
    model = load_checkpoint(trained)
    with torch.no_grad():
        for block in model.modules():
            if isinstance(block, REBNCONV):
                norm = block.bn_s1
                mean, variance = norm.running_mean, norm.running_var
                assert mean is not None and variance is not None and block.conv_s1.bias is not None
                slope = norm.weight / torch.sqrt(variance + norm.eps)
                block.conv_s1.weight.mul_(slope.view(-1, 1, 1, 1))
                block.conv_s1.bias.copy_((block.conv_s1.bias - mean) * slope + norm.bias)
                norm.reset_running_stats()
                norm.weight.fill_((1 + norm.eps) ** 0.5)
                norm.bias.zero_()
    assert is_folded(model)
    _, validation = held_out(cache, QUICK.holdout)
    before = validate(model, cache, validation, torch.device("cpu"))
    slow = replace(QUICK, steps=8, batch=8, lr=1e-12, frozen=frozen, ema=0.0, augmentation=PLAIN)
    after = train(model, cache, tmp_path / "on", slow, ALONE, say=lambda _: None)
    assert after["val_iou"] > before["val_iou"] - (1e-6 if frozen else 0.02)
    assert is_folded(load_checkpoint(tmp_path / "on" / "weights.safetensors")) is frozen


def test_training_needs_torch_numpy_pillow_and_safetensors_alone(pairs: Path, tmp_path: Path) -> None:
    """From copied folders, with everything else made impossible to import: what a GPU machine may have."""
    for name in ("train", "u2net", "datasets"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("weights", "__pycache__"))
    fill(PairFolder(pairs), [], tmp_path / "cache", size=SIZE)
    (tmp_path / "run.toml").write_text(f"[train]\nbatch = 4\nlr = 1e-2\nema = 0.8\nsizes = [{SIZE}]\nholdout = 4\n")
    script = tmp_path / "bare.py"
    script.write_text(
        """
import sys

absent = ["rich", "typer", "onnx", "onnxruntime", "scipy", "msgspec", "annotated_doc", "filelock", "click"]
sys.modules.update(dict.fromkeys(absent))  # as if they were not installed
from train.run import main
sys.exit(main(sys.argv[1:]))
"""
    )
    command = [sys.executable, str(script), "--config", "run.toml", "--cache", "cache", "--out", "run"]
    command += ["--minutes", "0.1"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run" / "weights.safetensors").is_file() and (tmp_path / "run" / "curve.svg").is_file()


def test_two_processes_train_one_model(pairs: Path, tmp_path: Path) -> None:
    """torchrun with gloo: both ranks end with the same weights, each having seen its own half of the batches."""
    fill(PairFolder(pairs), [], tmp_path / "cache", size=SIZE)
    save_checkpoint(tiny(1), tmp_path / "start.safetensors")
    script = tmp_path / "ranks.py"
    script.write_text(
        f"""
import torch
from pathlib import Path
from train.cache import Cache
from train.loop import TrainSettings, ranks, train
from u2net.network.checkpoint import load_checkpoint

with ranks() as me:
    model = load_checkpoint({str(tmp_path / "start.safetensors")!r})
    run = TrainSettings(steps=3, batch=4, warmup=1, sizes=({SIZE},), precision="fp32", holdout=4, save_every=3)
    train(model, Cache.open({str(tmp_path / "cache")!r}), Path({str(tmp_path / "run")!r}), run, me)
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    torch.save(weights, Path({str(tmp_path)!r}) / f"rank{{me.rank}}.pt")
"""
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port), str(script)]
    done = subprocess.run(
        [sys.executable, *launch], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (torch.load(tmp_path / f"rank{r}.pt", weights_only=True) for r in (0, 1))
    start = torch.cat([p.detach().flatten() for p in load_checkpoint(tmp_path / "start.safetensors").parameters()])
    assert torch.equal(first, second)
    assert not torch.equal(first, start)
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert state["step"] == 3 and state["fingerprint"]["world"] == 2


# ---- settings, curve, commands ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((ROOT / "train" / "configs").glob("*.toml")), ids=lambda p: p.stem)
def test_the_configurations_in_the_repository_load(path: Path) -> None:
    settings = load_settings(path)
    build_model(settings.model)
    assert all(size % 2 == 0 for size in settings.train.sizes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = 'huge'", "no model is called 'huge'"),
        ("[train]\nstep = 3", "there is no setting train.step"),
        ("[train]\nsteps = 'many'", "train.steps must be of type int"),
        ("[train]\nsizes = [320, 0.5]", "train.sizes must be a list of whole numbers"),
        ("[train.loss]\nfuse = 1", "there is no setting train.loss.fuse"),
        ("train = 3", "train must be a table"),
        ("[train]\nprecision = 'int4'", "precision must be"),
        ("[train", "is not TOML"),
    ],
)
def test_bad_settings_are_one_clear_line(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    assert main(["distill", "--config", str(path), "--cache", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_missing_things_are_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lite = str(ROOT / "train" / "configs" / "lite.toml")
    for arguments, message in (
        (["distill", "--config", str(tmp_path / "no.toml")], "cannot be read"),
        (["distill", "--config", lite, "--cache", str(tmp_path)], "is not a teacher cache"),
        (["curve", str(tmp_path)], "cannot be read"),
    ):
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_the_curve_is_a_picture_of_the_log(tmp_path: Path) -> None:
    rows = ["step,seconds,lr,total,fused,iou,sides,val_mae,val_iou,val_max_error"]
    rows += [f"{s},1,0.1,{2 / s},{1 / s},0.5,0.4,{0.1 / s},{1 - 1 / s},0.3" for s in range(1, 20)]
    (tmp_path / "log.csv").write_text("\n".join(rows) + "\n")
    draw_curve(tmp_path / "log.csv", tmp_path / "curve.svg", "a < b & c")
    root = xml.etree.ElementTree.fromstring((tmp_path / "curve.svg").read_text())
    lines = [e for e in root.iter() if e.tag.endswith("polyline")]
    assert len(lines) == 5
    heights = [float(p.split(",")[1]) for p in lines[3].attrib["points"].split()]
    assert len(heights) == 19 and heights == sorted(heights, reverse=True)  # IoU rises, so the line climbs
    (tmp_path / "log.csv").write_text(rows[0] + "\n")
    with pytest.raises(DataError, match="no rows"):
        draw_curve(tmp_path / "log.csv", tmp_path / "curve.svg", "")


def test_finetuning_on_a_folder_of_pictures_and_masks(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "run.toml"
    settings.write_text("[train]\nsteps = 4\nbatch = 4\nprecision = 'fp32'\nholdout = 4\nvalidate_every = 2\n")
    start = tiny(1)
    start.config = replace(start.config, size=SIZE)
    save_checkpoint(start, tmp_path / "start.safetensors")
    common = ["--config", str(settings), "--start", str(tmp_path / "start.safetensors"), "--json"]
    assert main(["finetune", *common, "--data", str(pairs), "--out", str(tmp_path / "run")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert 0 <= result["val_iou"] <= 1 and result["against"] == "agreement with the truth"
    kept_out = {p.stem for p in (tmp_path / "run" / "held-out" / "images").iterdir()}
    assert len(kept_out) == 4 and kept_out == {p.stem for p in (tmp_path / "run" / "held-out" / "masks").iterdir()}
    cache = Cache.open(tmp_path / "run" / "cache")
    assert kept_out.isdisjoint(cache.stems[row] for row in held_out(cache, 4)[0]), "none that is trained on"
    assert {p.name for p in (tmp_path / "run").iterdir()} >= {"weights.safetensors", "state.pt", "log.csv", "curve.svg"}
    made = load_checkpoint(tmp_path / "run" / "weights.safetensors").config
    assert made.widths == TINY.widths
    assert (cache.size, made.size) == (SIZE, SIZE), "the size that the start was taught at"
    assert main(["finetune", *common, "--data", str(pairs / "images"), "--out", str(tmp_path / "none")]) == 1
    assert "masks" in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_from_a_teacher_to_a_smaller_model(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """cache, prune, distill as a person would: `lite` out of a network of `small`'s shape."""
    settings, folder = tmp_path / "run.toml", str(tmp_path / "cache")
    settings.write_text(
        f"model = 'lite'\n[prune]\npictures = 8\nbatch = 4\n"
        f"[train]\nsteps = 2\nbatch = 4\nsizes = [{SIZE}]\nprecision = 'fp32'\nholdout = 4\n"
        "[train.loss]\nfeatures = 1.0\n"
    )
    torch.manual_seed(0)
    save_checkpoint(build_model("small"), tmp_path / "teacher.safetensors")
    common = ["--config", str(settings), "--cache", folder, "--json"]
    teacher, start = str(tmp_path / "teacher.safetensors"), str(tmp_path / "start.safetensors")

    assert main(["cache", *common, "--data", str(pairs / "images"), "--teacher", teacher]) == 0
    assert json.loads(capsys.readouterr().out) == {"cache": folder, "pictures": 24, "size": SIZE}

    assert main(["prune", *common, "--weights", teacher, "--out", start]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["model"] == "lite" and figures["gmac_before"] > 9 * figures["gmac_after"]
    assert load_checkpoint(start).config == CONFIGS["lite"]

    assert main(["distill", *common, "--start", start, "--out", str(tmp_path / "run")]) == 1
    assert "--teacher" in capsys.readouterr().err
    common += ["--teacher", teacher]
    assert main(["distill", *common, "--start", start, "--out", str(tmp_path / "run")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert 0 <= result["val_mae"] <= 1 and result["settings"]["model"] == "lite"
    assert load_checkpoint(tmp_path / "run" / "weights.safetensors").config == CONFIGS["lite"]

    assert main(["distill", *common, "--start", teacher, "--out", str(tmp_path / "other")]) == 1
    assert "is not a lite but a small" in capsys.readouterr().err

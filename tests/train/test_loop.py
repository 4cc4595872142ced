"""The training loop: batches, losses, resume, ranks, the teacher cache and the commands, on tiny networks."""

from __future__ import annotations

import csv
import itertools
import json
import os
import socket
import subprocess
import sys
import xml.etree.ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets.folder import ImageFolder, PairFolder
from tests.support.paths import ROOT
from train.augment import Augmentation, Group, batch_rows, make_batch
from train.cache import MAP_NAMES, Cache, build_cache, prepare_teacher, teacher_maps
from train.cli import main
from train.config import load_settings
from train.curve import draw_curve
from train.loop import Ranks, TrainSettings, rate, save_half, shares, train
from train.losses import LossWeights, distillation_loss, soft_iou
from train.validation import fit_temperature, held_out, scale_logits, validate
from u2net.errors import ConfigError, DataError
from u2net.network.checkpoint import load_checkpoint, save_checkpoint
from u2net.network.model import CONFIGS, StageWidths, U2Net, U2NetConfig, build_model

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
    fill(PairFolder(pairs), None, folder, size=SIZE)
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
    with pytest.raises(ConfigError, match="the sets are a, b"):
        shares(named, rows, {"c": 0.5})


def test_a_batch_is_a_function_of_its_seed(cache: Cache) -> None:
    rows, strong = np.arange(8), Augmentation(crop=1, colour=1, blur=0.5, jpeg=0.5, composite=0.9)
    sides = [SIZE, 32, 16, 8, 4, 2, 1]
    a, b, c = (make_batch(cache, rows, SIZE, sides, strong, seed) for seed in ((1, 2), (1, 2), (1, 3)))
    assert torch.equal(a.pictures, b.pictures)
    assert all(torch.equal(x, y) for x, y in zip(a.targets, b.targets, strict=True))
    assert not torch.equal(a.pictures, c.pictures)
    assert [t.shape for t in a.targets] == [(8, 1, side, side) for side in sides]
    for target in a.targets:
        assert float(target.min()) >= 0 and float(target.max()) <= 1


def test_geometry_moves_pictures_and_maps_alike(cache: Cache) -> None:
    """The discs are brighter than their ground, so brightness says where the subject is after any crop and flip."""
    geometric = Augmentation(flip=0.5, crop=1, crop_least=0.6, colour=0, blur=0, jpeg=0, composite=0)
    batch = make_batch(cache, np.arange(16), SIZE, [SIZE] * 7, geometric, (4,))
    for picture, mask in zip(batch.pictures, batch.targets[0], strict=True):
        bright = picture.mean(0) > 115
        assert float((bright == (mask[0] > 0.5)).float().mean()) > 0.97


def test_composites_keep_their_subject_and_change_the_rest(cache: Cache) -> None:
    def drawn(composite: float) -> tuple[torch.Tensor, torch.Tensor]:
        still = Augmentation(flip=0, crop=0, colour=0, blur=0, jpeg=0, composite=composite)
        batch = make_batch(cache, np.arange(12), SIZE, [SIZE] * 7, still, (9,))
        return batch.pictures, batch.targets[0]

    (before, _), (after, matte) = drawn(0.0), drawn(1.0)
    changed = [i for i in range(12) if not torch.equal(before[i], after[i])]
    assert len(changed) >= 6
    for i in changed:
        inside, outside = matte[i, 0] == 1, matte[i, 0] == 0
        assert torch.equal(before[i][:, inside], after[i][:, inside])
        assert float((before[i] - after[i])[:, outside].abs().mean()) > 1


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
    rates = [rate(short, step) for step in range(1000)]
    assert rates[0] == pytest.approx(short.lr / 10) and rates[9] == short.lr and rates[-1] < short.lr / 100
    assert max(abs(a - b) for a, b in itertools.pairwise(rates[10:])) < short.lr / 300
    assert all(rate(short, step) == rate(long, step) for step in range(int(1000 * (1 - short.decay))))


# ---- the teacher cache --------------------------------------------------------------------------------------------


def test_a_cache_that_was_interrupted_equals_one_that_was_not(pairs: Path, tmp_path: Path) -> None:
    teacher, pictures = tiny(3), ImageFolder(pairs)
    fill(pictures, teacher, tmp_path / "a", size=SIZE, flip=True, scales=(48,))
    made = build_cache(pictures, teacher, tmp_path / "b", size=SIZE, flip=True, scales=(48,))
    for _ in range(2):
        next(made)
    del made
    assert 0 < Cache.open(tmp_path / "b").done.sum() < 24
    fill(pictures, teacher, tmp_path / "b", size=SIZE, flip=True, scales=(48,))
    for name in ("images", "done", *MAP_NAMES):
        assert (tmp_path / "a" / f"{name}.npy").read_bytes() == (tmp_path / "b" / f"{name}.npy").read_bytes(), name
    with pytest.raises(DataError, match="other pictures or settings"):
        fill(pictures, teacher, tmp_path / "a", size=SIZE, flip=False)


def test_the_flip_averaged_teacher_treats_left_as_right() -> None:
    pictures = (torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 255).to(torch.uint8)
    teacher = prepare_teacher(tiny(2, replace(TINY, stem=1)), fast=False)
    there = teacher_maps(teacher, pictures, flip=True, scales=())
    back = teacher_maps(teacher, pictures.flip(-1), flip=True, scales=())
    for a, b in zip(there, back, strict=True):
        torch.testing.assert_close(a, b.flip(-1), rtol=1e-4, atol=1e-5)


def test_truth_is_mixed_in_where_there_are_masks(pairs: Path, cache: Cache, tmp_path: Path) -> None:
    teacher = tiny(3)
    fill(ImageFolder(pairs), teacher, tmp_path / "teacher", size=SIZE)
    fill(PairFolder(pairs), teacher, tmp_path / "mixed", size=SIZE, truth=0.25)
    alone, mixed = Cache.open(tmp_path / "teacher"), Cache.open(tmp_path / "mixed")
    for k in range(7):
        expected = 0.25 * cache.maps[k].astype(float) + 0.75 * alone.maps[k]
        assert np.abs(mixed.maps[k] - expected).max() <= 1.01


def test_the_cached_maps_are_the_models_own(pairs: Path, tmp_path: Path) -> None:
    """Against the whole model, through `u2net.preprocess`, not through the code that fills caches."""
    from u2net.preprocess import to_tensor

    teacher = tiny(3, replace(TINY, stem=1))
    fill(ImageFolder(pairs), teacher, tmp_path / "c", size=SIZE, flip=False)
    cached = Cache.open(tmp_path / "c")
    for i, record in enumerate(ImageFolder(pairs)[:4]):
        with torch.no_grad():
            fused = teacher(torch.from_numpy(to_tensor(record.image(), SIZE)))[0][0, 0].numpy()
        assert np.abs(fused - cached.maps[0][i] / 255.0).max() < 0.012


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
    fill(ImageFolder(pairs), model, tmp_path / "own", size=SIZE, flip=False)
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
    coverage = float((cache.maps[0][validation] > 127).mean())
    assert after["val_mae"] < min(before["val_mae"], coverage) / 2
    assert after["val_iou"] > 0.7


def test_other_settings_do_not_continue_a_run_but_more_steps_do(cache: Cache, tmp_path: Path) -> None:
    train(tiny(1), cache, tmp_path, replace(QUICK, steps=3), ALONE, say=lambda _: None)
    with pytest.raises(ConfigError, match="other settings"):
        train(tiny(1), cache, tmp_path, replace(QUICK, lr=1e-4), ALONE, say=lambda _: None)
    train(tiny(1), cache, tmp_path, replace(QUICK, steps=5), ALONE, say=lambda _: None)
    assert [row["step"] for row in csv.DictReader((tmp_path / "log.csv").open())] == ["3", "5"]


def test_pictures_held_out_are_never_trained_on(cache: Cache) -> None:
    training, validation = held_out(cache, 6)
    assert not set(training) & set(validation)
    assert sorted([*training, *validation]) == list(range(24))


def test_float16_weights_refuse_what_does_not_fit(tmp_path: Path) -> None:
    model = tiny()
    save_half(model, tmp_path / "half.safetensors")
    for name, value in load_checkpoint(tmp_path / "half.safetensors").state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, model.state_dict()[name], rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        model.stage1.rebnconvin.conv_s1.bias[0] = 1e6  # type: ignore[union-attr,operator]
    with pytest.raises(Exception, match="float16"):
        save_half(model, tmp_path / "broken.safetensors")
    assert not (tmp_path / "broken.safetensors").exists()


def test_two_processes_train_one_model(pairs: Path, tmp_path: Path) -> None:
    """torchrun with gloo: both ranks end with the same weights, each having seen its own half of the batches."""
    fill(PairFolder(pairs), None, tmp_path / "cache", size=SIZE)
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
    settings.write_text(
        f"[train]\nsteps = 4\nbatch = 4\nsizes = [{SIZE}]\nprecision = 'fp32'\nholdout = 4\nvalidate_every = 2\n"
    )
    save_checkpoint(tiny(1), tmp_path / "start.safetensors")
    common = ["--config", str(settings), "--start", str(tmp_path / "start.safetensors"), "--json"]
    assert main(["finetune", *common, "--data", str(pairs), "--out", str(tmp_path / "run")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert 0 <= result["val_iou"] <= 1
    assert {p.name for p in (tmp_path / "run").iterdir()} >= {"weights.safetensors", "state.pt", "log.csv", "curve.svg"}
    assert load_checkpoint(tmp_path / "run" / "weights.safetensors").config.widths == TINY.widths
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

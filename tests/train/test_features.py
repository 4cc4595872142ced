"""The teacher's features as a further lesson: what counts as known, and that a run with it behaves as one without."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from datasets.folder import PairFolder
from train.cache import Cache, build_cache
from train.features import FEATURE_STAGES, feature_loss, unexplained
from train.loop import Ranks, TrainSettings, train
from train.losses import LossWeights
from u2net.errors import ConfigError
from u2net.network.model import StageWidths, U2Net, U2NetConfig

from .test_loop import discs

NARROW = U2NetConfig("narrow", (StageWidths(4, 8),) * 11, stem=2, first_pool=False)
WIDE = U2NetConfig("wide", (StageWidths(4, 12),) * 11)
ALONE = Ranks(0, 1, torch.device("cpu"))
RUN = TrainSettings(
    steps=6,
    batch=4,
    lr=3e-3,
    warmup=2,
    sizes=(64,),
    precision="fp32",
    holdout=4,
    validate_every=3,
    save_every=3,
    loss=LossWeights(features=2.0),
)


def network(config: U2NetConfig, seed: int) -> U2Net:
    torch.manual_seed(seed)
    return U2Net(config).eval()


def features(channels: int, seed: int, side: int = 24) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(2, channels, side, side)).astype(np.float32))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    folder = tmp_path_factory.mktemp("features")
    for _ in build_cache(PairFolder(discs(folder / "discs", 16)), [], folder / "cache", size=64):
        pass
    return Cache.open(folder / "cache")


def test_what_a_linear_map_explains_is_known() -> None:
    student = features(6, 0)
    mixed = torch.einsum("ck,nkhw->nchw", features(6, 1)[0, :, :10, 0].T, student) * 2 + 7
    assert float(unexplained(student, mixed)) < 1e-4
    assert float(unexplained(student, features(5, 2))) == pytest.approx(1, abs=0.03)  # 6 channels fit little noise
    half = torch.cat((mixed[:, :3], features(3, 3)), 1)
    assert float(unexplained(student, half)) == pytest.approx(0.5, abs=0.02)


def test_it_is_least_squares() -> None:
    """numpy's solver as the oracle; the ridge is small beside the variance."""
    student = features(6, 0)
    teacher = features(9, 1) + torch.einsum("ck,nkhw->nchw", features(9, 4)[0, :, :6, 0], student)
    a = student.movedim(1, -1).flatten(0, 2).double().numpy()
    b = teacher.movedim(1, -1).flatten(0, 2).double().numpy()
    a, b = a - a.mean(0), (b - b.mean(0)) / b.std(0)
    residual = b - a @ np.linalg.lstsq(a, b, rcond=None)[0]
    assert float(unexplained(student, teacher)) == pytest.approx(float((residual**2).mean()), abs=2e-3)


def test_coarser_students_are_compared_at_their_own_resolution() -> None:
    student = features(4, 0, side=12)
    assert float(unexplained(student, student.repeat_interleave(2, 2).repeat_interleave(2, 3))) < 1e-4


def test_dead_channels_are_neither_a_division_nor_a_credit() -> None:
    student, dead = features(4, 0), torch.zeros(2, 4, 24, 24)
    assert torch.isfinite(unexplained(dead, student)) and float(unexplained(dead, student)) > 0.99
    assert float(unexplained(student, dead)) == 0


def test_the_gradient_is_that_of_the_minimum() -> None:
    """The map is solved for, not differentiated: finite differences of the whole must agree."""
    teacher = features(5, 1, side=6).double()
    student = features(3, 0, side=6).requires_grad_()
    unexplained(student, teacher).backward()
    direction, step = features(3, 9, side=6), 1e-2
    with torch.no_grad():
        ahead, behind = (float(unexplained(student + s * step * direction, teacher)) for s in (1, -1))
    assert student.grad is not None
    assert float((student.grad * direction).sum()) == pytest.approx((ahead - behind) / (2 * step), rel=0.03)


def test_stage_outputs_stop_where_they_are_told() -> None:
    model = network(NARROW, 0)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        whole, part = model.stage_outputs(x), model.stage_outputs(x, FEATURE_STAGES[-1])
    assert list(part) == list(whole)[:-2] and list(whole)[-1] == "stage1d"
    assert all(torch.equal(part[name], whole[name]) for name in part)


def test_a_student_learns_its_teachers_features(cache: Cache, tmp_path: Path) -> None:
    teacher, known = network(WIDE, 1), {}
    run = replace(RUN, steps=30, batch=8, ema=0.5, validate_every=30, save_every=30)
    for weight in (0.0, 4.0):
        student = network(NARROW, 2)
        settings = replace(run, loss=LossWeights(features=weight))
        train(student, cache, tmp_path / str(weight), settings, ALONE, lambda _: None, teacher=teacher)
        x = torch.from_numpy(np.ascontiguousarray(cache.images[:8].transpose(0, 3, 1, 2))).float() / 127.5 - 1
        with torch.no_grad():
            found = feature_loss(student.eval().stage_outputs(x), teacher.stage_outputs(x, FEATURE_STAGES[-1]))
        known[weight] = float(found)
    assert known[4.0] < 0.85 * known[0.0]


def test_a_killed_run_with_features_continues_with_the_same_numbers(cache: Cache, tmp_path: Path) -> None:
    def run(name: str, stop_after: int | None = None) -> None:
        student, teacher = network(NARROW, 2), network(WIDE, 1)
        train(student, cache, tmp_path / name, RUN, ALONE, lambda _: None, stop_after=stop_after, teacher=teacher)

    run("whole")
    run("parts", stop_after=4)
    run("parts")
    whole, parts = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "parts"))
    assert all(torch.equal(value, parts["model"][name]) for name, value in whole["model"].items())
    rows = list(csv.DictReader((tmp_path / "whole" / "log.csv").open()))
    assert all(0 < float(row["features"]) <= 1.01 for row in rows[1:])


def test_features_without_a_teacher_are_refused(cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--teacher"):
        train(network(NARROW, 0), cache, tmp_path / "run", RUN, ALONE, lambda _: None)
    assert not (tmp_path / "run").exists()

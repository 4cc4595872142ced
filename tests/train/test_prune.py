"""Pruning: what is removed and what must not change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from train.batchnorm import rebase_batch_norm, recalibrate
from train.forward import normalise_batch
from train.prune import (
    absorb_constants,
    align_first_stage,
    kept_channels,
    macs,
    producers,
    prune,
    taylor,
    to_stem,
)
from u2net.errors import ConfigError
from u2net.network.model import CONFIGS, StageWidths, U2Net, U2NetConfig

WIDE = U2NetConfig("wide", tuple(StageWidths(4 + i % 3, 6 + i % 4) for i in range(11)))
NARROW = U2NetConfig("narrow", tuple(StageWidths(2 + i % 3, 3 + i % 4) for i in range(11)))


def random_network(config: U2NetConfig, seed: int) -> U2Net:
    """A network whose batch norm is not the identity, so that a mixed-up channel shows."""
    torch.manual_seed(seed)
    model = U2Net(config).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.3, 0.5)
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 1.5)
    return model


def pictures(count: int = 2, size: int = 64, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 8, 8, generator=generator) * 255
    return normalise_batch(nn.functional.interpolate(coarse, size=size, mode="bilinear"))


def test_channels_that_give_nothing_are_removed_without_a_trace() -> None:
    """Silence all channels but the target's number in every space; pruning by importance must then be exact."""
    model = random_network(WIDE, 1)
    rng = np.random.default_rng(2)
    alive: dict[str, torch.Tensor] = {}
    importance: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for p in producers(WIDE):
            stage = p.space.partition(".")[0]
            old, new = WIDE.stage(stage), NARROW.stage(stage)
            width, count = (old.out, new.out) if p.space == stage else (old.mid, new.mid)
            if p.space not in alive:
                picked = np.sort(rng.permutation(width)[:count])
                alive[p.space] = torch.from_numpy(picked)
                importance[p.space] = torch.zeros(width).index_fill_(0, alive[p.space], 1.0)
            silent = importance[p.space] == 0
            bn = model.get_submodule(f"{p.name}.bn_s1")
            assert isinstance(bn, nn.BatchNorm2d)
            bn.weight[silent] = 0.0
            bn.bias[silent] = 0.0
    small = prune(model, NARROW, kept_channels(WIDE, NARROW, importance))
    x = pictures()
    with torch.no_grad():
        for before, after in zip(model(x, logits=True), small(x, logits=True), strict=True):
            torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    assert [(w.mid, w.out) for w in small.config.widths] == [(w.mid, w.out) for w in NARROW.widths]


def test_every_input_channel_has_exactly_one_producer() -> None:
    """The uses of all producers tile the input of every convolution but the first, which reads the picture."""
    model = U2Net(WIDE)
    covered: dict[str, list[int]] = {}
    for p in producers(WIDE):
        conv = model.get_submodule(f"{p.name}.conv_s1")
        assert isinstance(conv, nn.Conv2d)
        for use in p.uses:
            covered.setdefault(use.conv, []).extend(range(use.offset, use.offset + conv.out_channels))
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and name not in ("stage1.rebnconvin.conv_s1", "outconv"):
            # A stage's input and last convolution are added, so both cover the same channels of what reads the sum.
            assert sorted(set(covered[name])) == list(range(module.in_channels)), name


def test_taylor_finds_the_silent_channels() -> None:
    model = random_network(WIDE, 3)
    silent = "stage2.rebnconv2"
    with torch.no_grad():
        bn = model.get_submodule(f"{silent}.bn_s1")
        assert isinstance(bn, nn.BatchNorm2d)
        bn.weight[1] = 0.0
    x = pictures(4)
    scores = taylor(model, [(x, ())], lambda logits, _: sum(z.square().mean() for z in logits))
    assert set(scores) == {p.space for p in producers(WIDE)}
    assert scores["stage2.2"].argmin() == 1 and scores["stage2.2"][1] == 0
    assert (scores["stage2.2"] > 0).sum() == len(scores["stage2.2"]) - 1


@pytest.mark.parametrize("stem", [2, 4])
def test_a_stem_computes_the_network_of_the_box_reduced_picture(stem: int) -> None:
    model = random_network(WIDE, 4)
    folded = to_stem(model, stem, "folded")
    x = pictures(size=128)
    reduced = nn.functional.avg_pool2d(x, stem)
    with torch.no_grad():
        for a, b in zip(folded.native_logits(x), model.native_logits(reduced), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    with pytest.raises(ConfigError):
        to_stem(folded, 2, "again")


def test_rebasing_changes_the_statistics_and_not_the_function() -> None:
    model = random_network(WIDE, 5)
    x = pictures(4)
    with torch.no_grad():
        before = model(x, logits=True)
    rebase_batch_norm(model, [x[:2], x[2:]])
    with torch.no_grad():
        after = model(x, logits=True)
    for a, b in zip(after, before, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    seen: list[torch.Tensor] = []
    bn = model.get_submodule("stage1.rebnconvin.bn_s1")
    assert isinstance(bn, nn.BatchNorm2d)
    handle = bn.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    with torch.no_grad():
        model(x)
    handle.remove()
    assert bn.running_mean is not None and bn.running_var is not None
    torch.testing.assert_close(bn.running_mean, seen[0].mean((0, 2, 3)), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(bn.running_var, seen[0].var((0, 2, 3), unbiased=False), rtol=1e-3, atol=1e-3)


def test_constants_are_absorbed_exactly_where_there_is_no_zero_padding() -> None:
    model = random_network(WIDE, 6)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.padding_mode = "replicate"  # a constant is then constant up to the border
    x = pictures(4)
    with torch.no_grad():
        for p in producers(WIDE)[::7]:
            bn = model.get_submodule(f"{p.name}.bn_s1")
            assert isinstance(bn, nn.BatchNorm2d)
            bn.bias[0] = 300.0
    rebase_batch_norm(model, [x])
    with torch.no_grad():
        before = model(x, logits=True)
    assert absorb_constants(model, sigmas=12.0) > 0
    with torch.no_grad():
        after = model(x, logits=True)
    for a, b in zip(after, before, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-3 * float(b.abs().max()))
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert max(float(n.bias.detach().abs().max()) for n in norms) < 300.0


def test_recalibration_gives_the_statistics_that_training_mode_sees() -> None:
    model = random_network(WIDE, 7)
    batches = [pictures(4, seed=1), pictures(4, seed=2)]
    recalibrate(model, batches)
    bn = model.get_submodule("stage3d.rebnconv2d.bn_s1")
    assert isinstance(bn, nn.BatchNorm2d)
    seen: list[torch.Tensor] = []
    handle = bn.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    assert bn.running_mean is not None and bn.running_var is not None
    mean, variance = bn.running_mean.clone(), bn.running_var.clone()
    model.train()
    with torch.no_grad():
        for x in batches:
            model.native_logits(x)
    handle.remove()
    torch.testing.assert_close(mean, torch.stack([h.mean((0, 2, 3)) for h in seen]).mean(0))
    torch.testing.assert_close(variance, torch.stack([h.var((0, 2, 3)) for h in seen]).mean(0))
    assert all(m.momentum == 0.1 for m in model.modules() if isinstance(m, nn.BatchNorm2d))


def test_multiplications_are_those_that_torch_counts() -> None:
    for config in (WIDE, CONFIGS["lite"]):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            U2Net(config).eval()(torch.zeros(1, 3, 96, 96))
        assert macs(config, 96) == counter.get_total_flops() // 2


def test_smaller_models_are_as_cheap_as_said() -> None:
    small = macs(CONFIGS["small"])
    assert 9.3 < small / macs(CONFIGS["lite"]) < 9.6
    assert 3.2 < small / macs(CONFIGS["small-fast"], 320) < 3.5


def test_without_the_first_pooling_inner_stages_keep_their_resolution() -> None:
    """Given the features that they were trained on, the inner stages compute what they did."""
    model = random_network(WIDE, 9)
    folded = to_stem(model, 2, "folded", first_pool=False)
    x = pictures()
    pooled: list[torch.Tensor] = []

    def keep(_: nn.Module, __: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        pooled.append(nn.functional.max_pool2d(output, 2, stride=2, ceil_mode=True))

    model.get_submodule("stage1").register_forward_hook(keep)
    with torch.no_grad():
        before = model.native_logits(x)
        folded.get_submodule("stage1").register_forward_hook(lambda *_: pooled[0])
        after = folded.native_logits(x)
    for k in range(2, 7):  # all sides but the first, whose stage works at another resolution
        torch.testing.assert_close(after[k], before[k], rtol=1e-4, atol=1e-4)
    assert after[1].shape == after[2].shape
    with pytest.raises(ConfigError, match="stem"):
        to_stem(model, 4, "folded", first_pool=False)


def test_first_stage_learns_the_pooled_features_of_the_larger_network() -> None:
    model = random_network(WIDE, 10)
    folded = to_stem(model, 2, "folded", first_pool=False)
    inner = {k: v.clone() for k, v in folded.state_dict().items() if not k.startswith("stage1.")}
    channels = torch.arange(WIDE.stage("stage1").out)
    first, last = align_first_stage(folded, model, channels, [pictures(4, seed=k % 3) for k in range(60)], 60)
    assert last < 0.6 * first
    assert all(torch.equal(folded.state_dict()[k], v) for k, v in inner.items())


def test_pruning_refuses_what_it_cannot_do() -> None:
    model = random_network(NARROW, 8)
    with pytest.raises(ConfigError, match="wider"):
        kept_channels(NARROW, WIDE, {})
    with pytest.raises(ConfigError, match="stem"):
        prune(model, U2NetConfig("s", NARROW.widths, stem=2), {})

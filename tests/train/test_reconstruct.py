"""Least squares after pruning: what is left gives what was there, and nothing changes where nothing is gone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.train.test_prune import pictures, random_network
from train.batchnorm import rebase_batch_norm
from train.prune import producers, prune
from train.reconstruct import reconstruct
from u2net.network.model import REBNCONV, StageWidths, U2Net, U2NetConfig

HALF = U2NetConfig("half", (StageWidths(4, 6),) * 11)
TWICE = U2NetConfig("twice", (StageWidths(8, 12),) * 11)
SHARE = 0.25  # of a channel's work that its first copy does


def doubled(model: U2Net) -> U2Net:
    """A network of `TWICE` with two copies of every channel of `model`, whose readers share their weight unequally."""
    places: dict[str, dict[int, int]] = {}
    for producer in producers(HALF):
        for use in producer.uses:
            conv = model.get_submodule(f"{producer.name}.conv_s1")
            assert isinstance(conv, nn.Conv2d)
            places.setdefault(use.conv, {})[use.offset] = conv.out_channels
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        owner, _, kind = name.rpartition(".")
        if kind == "weight" and owner in places:
            parts = [tensor[:, at : at + count] for at, count in sorted(places[owner].items())]
            tensor = torch.cat([piece for part in parts for piece in (SHARE * part, (1 - SHARE) * part)], 1)
        if tensor.dim() and isinstance(model.get_submodule(owner.rpartition(".")[0]), REBNCONV):
            tensor = torch.cat([tensor, tensor])
        tensors[name] = tensor
    result = U2Net(TWICE).eval()
    result.load_state_dict(tensors)
    return result


def difference(model: U2Net, other: U2Net, x: Tensor) -> float:
    with torch.no_grad():
        pairs = zip(model.native_logits(x), other.native_logits(x), strict=True)
        return max(float((a - b).abs().mean() / b.std()) for a, b in pairs)


@pytest.fixture(scope="module")
def few() -> list[Tensor]:
    return list(pictures(6, 64, 3).split(1))


def test_what_copies_of_channels_did_is_taken_over(few: list[Tensor]) -> None:
    """Every channel has a copy, so half of them can do all of the work, on pictures that were not fitted to as well."""
    single = random_network(HALF, 1)
    whole = doubled(single)
    unseen = pictures(4, 64, 9)
    assert difference(whole, single, unseen) < 1e-4
    sizes = {p.space: HALF.stage(p.space.partition(".")[0]) for p in producers(HALF)}
    kept = {space: torch.arange(w.mid if "." in space else w.out) for space, w in sizes.items()}
    small = prune(whole, HALF, kept)
    before = difference(small, whole, unseen)
    reconstruct(small, whole, kept, few)
    assert before > 0.3 and difference(small, whole, unseen) < 0.02 * before
    twin = copy.deepcopy(small)
    rebase_batch_norm(small, few)  # what training needs, and no other function
    assert difference(small, twin, unseen) < 1e-3


def test_where_nothing_is_gone_nothing_changes(few: list[Tensor]) -> None:
    whole = random_network(HALF, 2)
    sizes = {p.space: HALF.stage(p.space.partition(".")[0]) for p in producers(HALF)}
    kept = {space: torch.arange(w.mid if "." in space else w.out) for space, w in sizes.items()}
    same = prune(whole, HALF, kept)
    reconstruct(same, whole, kept, few)
    assert difference(same, whole, pictures(4, 64, 9)) < 1e-3

"""The mean of what several runs found, which agrees better with the teacher than each of them.

Wortsman et al., "Model soups" (ICML 2022): runs from one start stay in one basin, and the mean of weights is in it too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from u2net.errors import ConfigError
from u2net.network.model import U2Net

__all__ = ["mean_of"]


@torch.no_grad()
def mean_of(models: Sequence[U2Net]) -> U2Net:
    """The first of `models` with the mean of the weights and statistics of all; `ConfigError` where shapes differ."""
    first = models[0]
    if not all(first.config.same_shape(model.config) for model in models):
        raise ConfigError("only models of one shape have a mean; give checkpoints of runs from one start")
    states = [model.state_dict() for model in models]
    for name, value in first.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.stack([state[name] for state in states]).mean(0))
    return first

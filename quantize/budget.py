"""Mixed precision: the fewest convolutions in float that meet a budget of mask IoU."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from u2net.errors import QualityError

from .agreement import agreement, run_maps
from .emit import emit
from .graph import FloatGraph
from .inputs import NetworkInputs
from .plan import Plan, Prepared, Progress, without
from .sensitivity import layer_costs
from .sessions import open_session
from .settings import QuantizeSettings

__all__ = ["meet_budget"]

FloatArray = npt.NDArray[np.float32]


def meet_budget(
    prepared: Prepared,
    graph: FloatGraph,
    plan: Plan,
    inputs: NetworkInputs,
    reference: list[FloatArray],
    settings: QuantizeSettings,
    progress: Progress,
) -> Plan:
    """The plan that keeps the fewest convolutions in float, the most harmful first, and meets `settings.budget`.

    Harm is measured layer by layer, the number of layers found by bisection, both on the pictures of the check: what is
    chosen by them is one number. Raises `QualityError` where not even all layers but one in float would do.
    """
    assert settings.budget is not None
    few = max(2, len(inputs) // 4)
    costs = layer_costs(prepared, inputs[:few], reference[:few], settings, progress)
    ranked = [cost.name for cost in sorted(costs, key=lambda cost: -cost.mae)]

    def attempt(count: int) -> tuple[Plan, float]:
        names = (*settings.keep_float, *ranked[:count])
        reasons = dict.fromkeys(ranked[:count], f"kept to meet iou={settings.budget:g}")
        candidate = without(graph, plan, names, reasons)
        model = emit(graph, candidate, settings.form)
        maps = run_maps(open_session(model, settings.threads, fuse=True), graph.input, inputs)
        return candidate, agreement(reference, maps).iou_mean

    low, high = 0, len(ranked) - 1  # low is known to fail; at least one integer convolution remains
    best, reached = attempt(high)
    if reached < settings.budget:
        raise QualityError(
            f"the budget of iou={settings.budget:g} cannot be met: all but one layer in float reach {reached:.4f}; "
            "ask for less, or calibrate on more pictures with --calib DIR --count N"
        )
    while high - low > 1:
        middle = (low + high) // 2
        progress("searching for the fewest float layers", len(ranked) - (high - low), len(ranked))
        candidate, reached = attempt(middle)
        if reached >= settings.budget:
            high, best = middle, candidate
        else:
            low = middle
    return best

"""Kernels against plain arithmetic: every convolution is the integer convolution, whatever shape and numbers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from engine.format import OperatorKind
from engine.reference import sigmoid, taps
from engine.runtime import WasmEngine
from tests.engine.single import Constants, Single, convolution

WINOGRAD, DIRECT = 1, 2
checked = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
sides = st.integers(1, 21)
fours = st.integers(1, 12).map(lambda n: 4 * n)

#: Rows of the transforms, for inputs and weights that drive them to their bounds.
INPUT_ROWS = np.array(
    [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0],
     [0, 4, 0, -5, 0, 1]]
)  # fmt: skip
WEIGHT_ROWS = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 12]])


def plain_convolution(source: npt.NDArray, weight: npt.NDArray, dilation: int) -> npt.NDArray[np.int64]:
    """Σ weight · input in 64-bit integers, tap by tap, zeros beyond the edge."""
    height, width, _ = source.shape
    padded = np.pad(source.astype(np.int64), ((dilation, dilation), (dilation, dilation), (0, 0)))
    total = np.zeros((height, width, len(weight)), np.int64)
    for y in range(3):
        for x in range(3):
            part = padded[dilation * y : dilation * y + height, dilation * x : dilation * x + width]
            total += np.einsum("hwc,oc->hwo", part, weight[:, :, y, x].astype(np.int64))
    return total


def activations(random: np.random.Generator, shape: tuple[int, int, int], pattern: str) -> npt.NDArray[np.uint8]:
    if pattern == "random":
        return random.integers(0, 256, shape).astype(np.uint8)
    if pattern == "extreme":
        return (random.integers(0, 2, shape) * 255).astype(np.uint8)
    if pattern == "full":
        return np.full(shape, 255, np.uint8)
    # every tile is at a bound of one component of the input transform
    i, j = random.integers(0, 6, 2)
    y, x = (np.arange(side) % 4 + 1 for side in shape[:2])
    sign = np.sign(INPUT_ROWS[i][y][:, None] * INPUT_ROWS[j][x][None]) * random.choice([-1, 1])
    return np.broadcast_to(((sign > 0) * 255)[:, :, None], shape).astype(np.uint8)


def weights(random: np.random.Generator, shape: tuple[int, int], pattern: str) -> npt.NDArray[np.int8]:
    whole = (*shape, 3, 3)
    if pattern == "random":
        return random.integers(-128, 128, whole).astype(np.int8)
    if pattern == "extreme":
        return random.choice(np.array([-128, 127], np.int8), whole)
    if pattern == "full":
        return np.full(whole, random.choice([-128, 127]), np.int8)
    rows = random.integers(0, 6, (2, *shape))
    sign = np.sign(WEIGHT_ROWS[rows[0]][..., :, None] * WEIGHT_ROWS[rows[1]][..., None, :])
    return np.where(sign * random.choice([-1, 1]) > 0, 127, -128).astype(np.int8)


patterns = st.sampled_from(["random", "extreme", "full", "transform"])


@checked
@given(sides, sides, fours, fours, patterns, patterns, st.sampled_from([1, 1, 1, 2, 3, 4, 8]), st.integers(0, 2**32))
@example(4, 4, 112, 8, "full", "full", 1, 0)
@example(6, 5, 256, 12, "transform", "transform", 1, 3)
@example(3, 3, 516, 4, "random", "random", 1, 1)
@example(7, 9, 1024, 8, "extreme", "extreme", 2, 1)
def test_a_convolution_is_the_plain_integer_convolution(
    host: WasmEngine, height: int, width: int, inputs: int, outputs: int, numbers: str, factors: str, dilation: int,
    seed: int,
) -> None:  # fmt: skip
    random = np.random.default_rng(seed)
    source = activations(random, (height, width, inputs), numbers)
    weight = weights(random, (outputs, inputs), factors)
    exact = plain_convolution(source, weight, dilation)
    flat = exact.reshape(-1, outputs)

    # the whole range of the sums in 8 bits, and every sum near some pixel's to the last digit
    span = np.maximum(flat.max(0) - flat.min(0), 1)
    views = [(-flat.min(0), (255 / span).astype(np.float32))]
    for _ in range(2):
        chosen = flat[random.integers(0, len(flat), outputs), np.arange(outputs)]
        views.append((128 - chosen, np.ones(outputs, np.float32)))
    for bias, multiplier in views:
        operator = convolution(source, weight, bias.astype(np.int32), multiplier, dilation)
        got, kind = operator.run(host, [source])
        values = (exact + bias).astype(np.float32) * multiplier
        defined = np.abs(values) < 2**22  # beyond, a file is not right
        np.testing.assert_array_equal(got[defined], np.clip(np.rint(values), 0, 255)[defined])
        assert kind == DIRECT or dilation == 1


@pytest.mark.parametrize(("excess", "kind"), [(-1, WINOGRAD), (0, DIRECT)])
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("loud", [0, 5, 11])  # in the lower and upper half of a block of eight, and in one of four
def test_sums_up_to_the_bound_of_the_winograd_kernel(
    host: WasmEngine, excess: int, kind: int, sign: int, loud: int
) -> None:
    """The loader takes the other kernel from |sum| = 2²⁵ on; below it, every sum is right to the last digit."""
    source = np.full((9, 10, 64), 255, np.uint8)
    weight = np.zeros((12, 64, 3, 3), np.int8)
    weight[loud] = sign * 127
    exact = plain_convolution(source, weight, 1)
    bias = np.zeros(12, np.int64)
    bias[loud] = sign * (2**25 + excess) - exact[4, 4, loud]
    multiplier = np.full(12, sign * 2.0**-18, np.float32)
    got, used = convolution(source, weight, bias.astype(np.int32), multiplier).run(host, [source])
    assert used == kind
    np.testing.assert_array_equal(got, np.clip(np.rint((exact + bias).astype(np.float32) * multiplier), 0, 255))


def test_sums_of_the_direct_kernel_fill_32_bits(host: WasmEngine) -> None:
    source = np.full((3, 3, 1024), 255, np.uint8)
    weight = np.full((4, 1024, 3, 3), 127, np.int8)
    exact = plain_convolution(source, weight, 1)
    bias = np.full(4, 2**31 - 1 - exact.max(), np.int64)
    multiplier = np.full(4, 100 / 2**31, np.float32)
    got, used = convolution(source, weight, bias.astype(np.int32), multiplier).run(host, [source])
    assert used == DIRECT
    np.testing.assert_array_equal(got, np.rint((exact + bias).astype(np.float32) * multiplier))


@checked
@given(sides, sides, fours, st.integers(0, 2**32))
def test_pooling(host: WasmEngine, height: int, width: int, channels: int, seed: int) -> None:
    source = np.random.default_rng(seed).integers(0, 256, (height, width, channels)).astype(np.uint8)
    shape = ((height + 1) // 2, (width + 1) // 2, channels)
    got, _ = Single(OperatorKind.POOL, [source.shape], shape, Constants()).run(host, [source])
    for y in range(shape[0]):
        for x in range(shape[1]):
            np.testing.assert_array_equal(got[y, x], source[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].max((0, 1)))


@settings(checked, max_examples=25)
@given(sides, sides, sides, sides, st.booleans(), fours, st.integers(0, 2**32))
def test_resizing(
    host: WasmEngine, height: int, width: int, new_height: int, new_width: int, twice: bool, channels: int, seed: int
) -> None:
    """Against exact fractions; where the size is doubled, also at ties."""
    source = np.random.default_rng(seed).integers(0, 256, (height, width, channels)).astype(np.uint8)
    shape = (2 * height, 2 * width, channels) if twice else (new_height, new_width, channels)
    got, _ = Single(OperatorKind.RESIZE, [source.shape], shape, Constants()).run(host, [source])

    def fraction(position: int, count: int, size: int) -> tuple[int, int, Fraction]:
        place = min(max(Fraction(2 * position + 1, 2) * size / count - Fraction(1, 2), Fraction(0)), Fraction(size - 1))
        return int(place), min(int(place) + 1, size - 1), place - int(place)

    for y in range(shape[0]):
        top, bottom, down = fraction(y, shape[0], height)
        for x in range(shape[1]):
            left, right, along = fraction(x, shape[1], width)
            for c in range(0, channels, 5):
                a, b, d, e = (int(source[i, j, c]) for i in (top, bottom) for j in (left, right))
                exact = (a + (b - a) * along) * (1 - down) + (d + (e - d) * along) * down
                if twice:
                    assert got[y, x, c] == round(exact)  # which rounds ties to even, as the engine does
                else:
                    assert abs(got[y, x, c] - exact) <= Fraction(1, 2) + Fraction(1, 1000)


@given(st.integers(1, 2048), st.integers(1, 2048))
@settings(max_examples=50, deadline=None)
def test_taps_of_resizing_are_exact_fractions(source: int, target: int) -> None:
    left, right, weight = taps(source, target)
    for i in (0, target // 3, target - 1):
        place = min(max(Fraction((2 * i + 1) * source, 2 * target) - Fraction(1, 2), Fraction(0)), Fraction(source - 1))
        assert (left[i], right[i]) == (int(place), min(int(place) + 1, source - 1))
        assert abs(float(weight[i]) - float(place - int(place))) < 1e-7


@checked
@given(sides, sides, fours, st.floats(1 / 128, 2, width=32), st.floats(1 / 128, 2, width=32), st.integers(0, 2**32))
def test_adding(
    host: WasmEngine, height: int, width: int, channels: int, first_scale: float, second_scale: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    first, second = (random.integers(0, 256, (height, width, channels)).astype(np.uint8) for _ in range(2))
    shapes = [first.shape, second.shape]
    operator = Single(OperatorKind.ADD, shapes, first.shape, Constants(), floats=(first_scale, second_scale))
    got, _ = operator.run(host, [first, second])
    exact = first * np.float32(first_scale) + second * np.float32(second_scale)
    np.testing.assert_array_equal(got, np.clip(np.rint(exact), 0, 255))


def test_the_sigmoid_is_within_two_units_of_float32() -> None:
    x = np.concatenate([np.linspace(-100, 100, 200_001), [-1e30, 1e30, 0.0]]).astype(np.float32)
    exact = 1 / (1 + np.exp(-np.clip(x.astype(np.float64), -88, 700)))
    assert np.max(np.abs(sigmoid(x) - exact) / exact) < 2.5e-7

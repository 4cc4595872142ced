"""Small random networks with every operator of the engine, made without ONNX."""

from __future__ import annotations

import numpy as np

from engine.graph import Add, Concat, Convolution, Fuse, Gate, Network, Node, Pool, Resize, Side, SideMap, Stem, Tensor

__all__ = ["random_network", "random_picture"]


def random_picture(seed: int, height: int, width: int) -> np.ndarray:
    """Smooth in some places, noise in others, and beyond what the preprocessing gives in a few."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(-2.1, 2.6, (3, 5, 5))
    smooth = np.kron(coarse, np.ones((height // 5 + 1, width // 5 + 1)))[:, :height, :width]
    picture = smooth + random.normal(size=smooth.shape) * 0.3
    picture[:, 0, :3] = [9.0, -9.0, 2.65]
    return picture.astype(np.float32)


def random_network(seed: int, height: int = 27, width: int = 38, widths: tuple[int, int] = (9, 12),
                   stride: int = 1, kernel: int = 3, gate: bool = True) -> Network:  # fmt: skip
    """A U of two levels with a residual sum, two side maps and, with `gate`, squeeze and excitation on the skip."""
    random = np.random.default_rng(seed)
    one = np.float32(0.02)
    inner, outer = widths
    nodes: list[Node] = []
    high, wide = (height - 1) // stride + 1, (width - 1) // stride + 1

    def tensor(name: str, channels: int, size: tuple[int, int], scale: np.float32 = one) -> Tensor:
        return Tensor(name, channels, *size, scale)

    def conv(source: Tensor, name: str, channels: int, dilation: int = 1, scale: np.float32 = one) -> Tensor:
        output = tensor(name, channels, (source.height, source.width), scale)
        weight = random.integers(-127, 128, (channels, source.channels, 3, 3)).astype(np.int8)
        weight[0] = 0  # a constant channel
        bias = random.integers(-20000, 20000, channels).astype(np.int64)
        bias[1] = -(10**9)  # a dead one
        multiplier = (random.uniform(0.5, 2, channels) / (127 * 40 * np.sqrt(source.channels))).astype(np.float32)
        nodes.append(Convolution(name, source, output, weight, bias, multiplier, dilation))
        return output

    padding = kernel // 2 if stride == 1 else (kernel - 1) // 2
    high, wide = ((side + 2 * padding - kernel) // stride + 1 for side in (height, width))
    size, half = (high, wide), ((high + 1) // 2, (wide + 1) // 2)
    stem = tensor("stem", outer, size)
    weight = (random.normal(size=(outer, 3, kernel, kernel)) / kernel).astype(np.float32)
    nodes.append(Stem(stem, weight, random.normal(size=outer).astype(np.float32), stride, padding))
    first = conv(stem, "first", inner)
    pooled = tensor("pooled", inner, half)
    nodes.append(Pool(first, pooled))
    second = conv(pooled, "second", inner)
    third = conv(second, "third", inner, dilation=2)
    low = tensor("low", 2 * inner, half)
    nodes.append(Concat("low", (third, second), low))
    deep = conv(low, "deep", inner, dilation=3)
    up = tensor("up", inner, size)
    nodes.append(Resize(deep, up))
    skip = first
    if gate:
        skip = tensor("gated", inner, size)
        hidden = 4
        nodes.append(
            Gate(
                first,
                skip,
                random.normal(size=(hidden, inner)).astype(np.float32),
                random.normal(size=hidden).astype(np.float32),
                random.normal(size=(inner, hidden)).astype(np.float32),
                random.normal(size=inner).astype(np.float32),
            )
        )
    joined = tensor("joined", 2 * inner, size)
    nodes.append(Concat("joined", (up, skip), joined))
    last = conv(joined, "last", outer, scale=np.float32(0.03))
    total = tensor("total", outer, size, np.float32(0.04))
    nodes.append(Add(last, stem, total))
    maps: tuple[SideMap, ...] = (SideMap("side1", *size), SideMap("side2", *half))
    for side, inputs in ((maps[0], (last, stem)), (maps[1], (deep,))):
        channels = inputs[0].channels
        weight = (random.normal(size=(channels, 3, 3)) / (3 * np.sqrt(channels))).astype(np.float32)
        nodes.append(Side(inputs, side, weight, float(np.float32(random.normal()))))
    final = conv(total, "final", outer)
    maps = (*maps, SideMap("side3", *size))
    nodes.append(Side((final,), maps[2], (random.normal(size=(outer, 3, 3)) * 0.1).astype(np.float32), 0.25))
    nodes.append(Fuse(maps, random.normal(size=3).astype(np.float32), 0.125, *size))
    return Network("random", (height, width), (height, width), tuple(nodes))

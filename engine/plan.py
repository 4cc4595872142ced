"""Planning the arena: where every buffer lies, so that those needed at one time do not share memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .format import ALIGNMENT

__all__ = ["Lifetime", "place"]


@dataclass(frozen=True)
class Lifetime:
    """A buffer of `size_bytes` that is first written by operator `first` and last used by operator `last`."""

    size_bytes: int
    first: int
    last: int


def place(lifetimes: Mapping[str, Lifetime]) -> tuple[dict[str, int], int]:
    """Offsets by name, and the bytes of the arena: largest first, each as low as the ones before it allow."""
    offsets: dict[str, int] = {}
    placed: list[tuple[int, int, Lifetime]] = []
    total = 0
    for name, lifetime in sorted(lifetimes.items(), key=lambda item: (-item[1].size_bytes, item[0])):
        size = (lifetime.size_bytes + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        offset = _lowest_gap(
            size, [(begin, end) for begin, end, other in placed if _at_one_time(lifetime, other)]
        )  # fmt: skip
        offsets[name] = offset
        placed.append((offset, offset + size, lifetime))
        total = max(total, offset + size)
    return offsets, total


def _at_one_time(a: Lifetime, b: Lifetime) -> bool:
    return a.first <= b.last and b.first <= a.last


def _lowest_gap(size: int, taken: Sequence[tuple[int, int]]) -> int:
    offset = 0
    for begin, end in sorted(taken):
        if offset + size <= begin:
            break
        offset = max(offset, end)
    return offset

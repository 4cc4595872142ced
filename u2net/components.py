"""Step 1 of `postprocess`: subjects and holes of a map, at the network's resolution."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["connected_components", "fill_holes", "keep_components"]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]

SUPPORT = 0.1  # a subject's connected component is where the map is at least this: soft skirts belong to it


def connected_components(mask: npt.NDArray[np.bool_], diagonal: bool) -> tuple[IntArray, int]:
    """Labels, int32 (H, W), of the connected components of `mask`: 0 outside, else 1… in order of their first pixel.

    Row by row from the top, left to right. `diagonal` joins the eight neighbours, otherwise four. Union-find over
    horizontal runs (Wu, Otoo & Suzuki, 2009).
    """
    height, width = mask.shape
    padded = np.zeros((height, width + 2), np.int8)
    padded[:, 1:-1] = mask
    steps = np.diff(padded, axis=1)
    start_row, start = np.nonzero(steps == 1)
    _, stop = np.nonzero(steps == -1)  # one past the run's last pixel; runs come in the same order
    count = len(start)
    parent = list(range(count))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    first = np.searchsorted(start_row, np.arange(height + 1)).tolist()
    starts, stops = start.tolist(), stop.tolist()
    reach = 1 if diagonal else 0
    for row in range(1, height):
        above, above_end = first[row - 1], first[row]
        run, run_end = first[row], first[row + 1]
        while above < above_end and run < run_end:
            if starts[run] < stops[above] + reach and starts[above] < stops[run] + reach:
                a, b = root(above), root(run)
                if a != b:
                    parent[max(a, b)] = min(a, b)
            if stops[above] < stops[run]:
                above += 1
            else:
                run += 1
    labels = np.zeros((height, width), np.int32)
    roots = np.array([root(run) for run in range(count)], np.int64)
    unique, label_of = np.unique(roots, return_inverse=True)
    flat = labels.reshape(-1)
    change = np.zeros(height * width + 1, np.int32)
    change[start_row * width + start] += (label_of + 1).astype(np.int32)
    np.subtract.at(change, start_row * width + stop, (label_of + 1).astype(np.int32))
    flat[:] = np.cumsum(change[:-1])
    return labels, len(unique)


def keep_components(saliency: FloatArray, *, largest: bool, min_area: float) -> FloatArray:
    """`saliency` with the subjects that are too small set to 0.

    Subjects are the 8-connected components of saliency ≥ `SUPPORT`; a subject's area counts its pixels ≥ 0.5. Kept
    are those whose area is at least min_area · (H · W) and, with `largest`, of these only the one with the largest area
    (the first in case of a tie). Everything outside the kept components becomes 0; where all are kept, nothing changes.
    """
    labels, count = connected_components(saliency >= np.float32(SUPPORT), diagonal=True)
    if count == 0:
        return saliency
    areas = np.bincount(labels.reshape(-1), (saliency >= np.float32(0.5)).reshape(-1), count + 1)[1:]
    kept = areas >= min_area * saliency.size
    if largest:
        only = np.zeros_like(kept)
        only[int(np.argmax(areas))] = True
        kept &= only
    if bool(kept.all()):
        return saliency
    table = np.concatenate((np.zeros(1, bool), kept))
    return np.where(table[labels], saliency, np.float32(0))


def fill_holes(saliency: FloatArray, fraction: float) -> FloatArray:
    """`saliency` with small holes set to 1.

    Holes are the 4-connected components of saliency < 0.5 that touch no border of the map and have at most
    fraction · (H · W) pixels.
    """
    labels, count = connected_components(saliency < np.float32(0.5), diagonal=False)
    if count == 0:
        return saliency
    areas = np.bincount(labels.reshape(-1), minlength=count + 1)
    hole = areas <= fraction * saliency.size
    hole[0] = False
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        hole[edge] = False
    return np.where(hole[labels], np.float32(1), saliency)

"""Makes `golden.json` and `golden.bin`: inputs and expected outputs of every step of the pixel specification.

`python -m tests.golden.generate` rewrites them; the tests of both runners read them. `golden.json` lists cases; each
has the name of the function (in `u2net/preprocess.py`, `u2net/postprocess.py` or what that is made of), its parameters,
input and output tensors as {dtype, shape, offset, length} into `golden.bin` (little endian, C order). `tolerance` is
the largest difference that a runner may show; integers that round may differ by one where it says 1.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from u2net import components, foreground, guided, postprocess, preprocess, sampling, second_look
from u2net.composite import Background, composite
from u2net.postprocess import BALANCED, FAST

HERE = Path(__file__).parent


def picture(height: int, width: int, seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """A striped disc with a hole on a noisy gradient, and its matte: uint8 (H, W, 3), float32 (H, W)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    distance = np.hypot((x - 0.45 * width) / width, (y - 0.55 * height) / height)
    alpha = np.clip((0.32 - distance) * 14 + 0.5, 0, 1) * np.clip((distance - 0.08) * 20 + 0.5, 0, 1)
    front = np.stack((200 + 40 * np.sin(x / 3), 60 + 30 * np.cos(y / 5), 40 + 0 * x), -1)
    back = np.stack((40 + 90 * x / width, 90 + 100 * y / height, 160 + 0 * x), -1)
    rgb = front * alpha[..., None] + back * (1 - alpha[..., None]) + rng.normal(0, 4, (height, width, 3))
    return np.clip(rgb + 0.5, 0, 255).astype(np.uint8), alpha.astype(np.float32)


def blobs(size: int, seed: int) -> npt.NDArray[np.float32]:
    """A map with subjects of several sizes, a hole, soft skirts and a faint haze: float32 (size, size)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size].astype(np.float64) / size
    value = np.full((size, size), 0.02)
    for cx, cy, r in ((0.35, 0.4, 0.22), (0.8, 0.2, 0.09), (0.75, 0.8, 0.05), (0.1, 0.9, 0.02)):
        value = np.maximum(value, np.clip((r - np.hypot(x - cx, y - cy)) * 18 + 0.5, 0, 1))
    value *= np.clip((np.hypot(x - 0.36, y - 0.42) - 0.06) * 30 + 0.5, 0, 1)
    value *= np.clip((np.hypot(x - 0.8, y - 0.2) - 0.02) * 60 + 0.5, 0.0, 1)
    return np.clip(value + rng.normal(0, 0.005, value.shape), 0, 1).astype(np.float32)


def look(part: npt.NDArray[np.uint8], mirrored: bool, size: int) -> npt.NDArray[np.float32]:
    """A stand-in for the network in `look_twice`, on steps 1 and 2 of `preprocess` alone: uint8 to (size, size).

    clip((red − green) / 192, 0, 1), each column taken from its left neighbour, the first from itself: looks at
    different parts, and mirrored ones, disagree a little, as a network's do.
    """
    x = preprocess.resize_for_network(part, size)
    if mirrored:
        x = x[:, ::-1]
    v = np.clip((x[..., 0] - x[..., 1]) / np.float32(192), 0, 1)
    v = np.concatenate((v[:, :1], v[:, :-1]), axis=1)
    return np.ascontiguousarray(v[:, ::-1] if mirrored else v)


def red_squares(height: int, width: int, squares: list[tuple[int, int, int, int]]) -> npt.NDArray[np.uint8]:
    """Red on a grey gradient, uint8 (H, W, 3); squares are (left, top, width, height)."""
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.repeat((60 + 60 * x // width + 40 * y // height)[..., None], 3, axis=2).astype(np.uint8)
    for left, top, w, h in squares:
        rgb[top : top + h, left : left + w] = (230, 30, 40)
    return rgb


def steps(settings: postprocess.Refinement) -> dict[str, Any]:
    """The settings of `matte`: those of what comes before it are left out."""
    return {name: value for name, value in asdict(settings).items() if name != "second_look"}


class Book:
    """Collects cases and their tensors."""

    def __init__(self) -> None:
        self.cases: list[dict[str, Any]] = []
        self.data = bytearray()
        self.offsets: dict[bytes, int] = {}

    def tensor(self, array: npt.NDArray[Any]) -> dict[str, Any]:
        raw = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
        if raw not in self.offsets:  # cases share inputs
            self.data += b"\0" * (-len(self.data) % 8)
            self.offsets[raw] = len(self.data)
            self.data += raw
        return {"dtype": str(array.dtype), "shape": list(array.shape), "offset": self.offsets[raw], "length": len(raw)}

    def add(
        self,
        name: str,
        function: str,
        inputs: dict[str, npt.NDArray[Any]],
        output: npt.NDArray[Any],
        parameters: dict[str, Any] | None = None,
        tolerance: float = 0.0,
    ) -> None:
        self.cases.append(
            {
                "name": name,
                "function": function,
                "parameters": parameters or {},
                "inputs": {key: self.tensor(value) for key, value in inputs.items()},
                "output": self.tensor(output),
                "tolerance": tolerance,
            }
        )


def build() -> Book:
    """All cases."""
    book = Book()
    size = 24
    for name, (height, width) in {"wide": (45, 70), "reduced": (110, 151), "thin": (3, 201), "dot": (1, 1)}.items():
        rgb, _ = picture(height, width, 1)
        resized = preprocess.resize_for_network(rgb, size)
        parameters = {"size": size}
        book.add(f"resize-{name}", "resize_for_network", {"rgb": rgb}, resized, parameters, 1e-3)
        book.add(f"tensor-{name}", "to_tensor", {"rgb": rgb}, preprocess.to_tensor(rgb, size), parameters, 1e-4)
        pixels = np.floor(resized + np.float32(0.5)).astype(np.uint8)
        book.add(f"pixels-{name}", "to_pixels", {"rgb": rgb}, pixels, parameters, 1)
    black = np.zeros((5, 7, 3), np.uint8)
    book.add("tensor-black", "to_tensor", {"rgb": black}, preprocess.to_tensor(black, size), {"size": size}, 1e-4)

    map_ = blobs(48, 2)
    for height, width in ((60, 83), (20, 33), (1, 1)):
        parameters = {"height": height, "width": width}
        up = postprocess.upsample_map(map_, height, width)
        book.add(f"upsample-{height}x{width}", "upsample_map", {"saliency": map_}, up, parameters, 1e-5)
    values = np.concatenate((np.linspace(-0.01, 1.01, 1021), np.arange(256) / 255)).astype(np.float32)[None]
    book.add("alpha", "to_alpha", {"values": values}, sampling.to_alpha(values))
    book.add(
        "stretch", "min_max", {"saliency": map_ * np.float32(0.5)}, preprocess.min_max(map_ * np.float32(0.5)), {}, 1e-6
    )

    noise = np.random.default_rng(3).random((40, 53)) < 0.55
    for diagonal in (False, True):
        labels, _ = components.connected_components(noise, diagonal)
        book.add(
            f"components-{8 if diagonal else 4}",
            "connected_components",
            {"mask": noise.astype(np.uint8)},
            labels,
            {"diagonal": diagonal},
        )
    for largest, min_area in ((True, 0.0), (False, 0.01), (False, 0.0), (True, 0.9)):
        kept = components.keep_components(map_, largest=largest, min_area=min_area)
        chosen = {"largest": largest, "min_area": min_area}
        book.add(f"keep-{largest}-{min_area}", "keep_components", {"saliency": map_}, kept, chosen)
    for fraction in (0.001, 0.05):
        filled = components.fill_holes(map_, fraction)
        book.add(f"holes-{fraction}", "fill_holes", {"saliency": map_}, filled, {"fraction": fraction})

    for name, (height, width), squares in (
        ("small", (90, 130), [(70, 30, 21, 26)]),
        ("unsure", (200, 260), [(31, 40, 10, 9)]),
        ("whole", (60, 80), [(4, 4, 70, 50)]),
        ("nothing", (40, 50), []),
        ("disbelieved", (300, 400), [(100, 90, 2, 150)]),
        ("wide", (40, 150), [(90, 8, 14, 26)]),
        ("panorama", (30, 310), [(40, 5, 10, 20), (250, 5, 12, 22)]),
        ("tall", (170, 48), [(12, 90, 20, 25)]),
    ):
        rgb = red_squares(height, width, squares)
        size = 32
        parts = second_look.windows(width, height)
        maps = [look(rgb[top:bottom, left:right], False, size) for left, top, right, bottom in parts]
        parameters = {"size": size, "width": width, "height": height}
        if len(parts) > 1:
            merged = second_look.merge_windows(maps, parts, width, height)
            stacked = {"maps": np.stack(maps)}
            book.add(f"windows-{name}", "merge_windows", stacked, merged, parameters | {"windows": parts}, 1e-6)
        seen = second_look.look_twice(rgb, lambda part, mirrored: look(part, mirrored, 32), size)
        expected = {"windows": parts, "looks": seen.looks, "box": seen.box}
        book.add(f"looks-{name}", "look_twice", {"rgb": rgb}, seen.saliency, parameters | expected, 1e-5)
    wide = blobs(48, 6)[:32]
    for box in ((10, 20, 70, 61), (0, 0, 100, 80)):
        asked: dict[str, Any] = {"box": box, "width": 100, "height": 80, "size": 24}
        part = second_look.sample_box(wide, box, 100, 80, 24)
        book.add(f"sample-{box[0]}", "sample_box", {"saliency": wide}, part, asked, 1e-6)
        inputs = {"saliency": wide, "seen": blobs(24, 7)}
        back = second_look.put_back(wide, inputs["seen"], box, 100, 80)
        book.add(f"put-{box[0]}", "put_back", inputs, back, asked, 1e-6)
    found = second_look.subject_box(wide, 100, 80)
    book.add("box", "subject_box", {"saliency": wide}, np.array(found, np.int32), {"width": 100, "height": 80})

    planes = np.random.default_rng(4).random((2, 23, 31)).astype(np.float32)
    for radius in (1, 4, 40):
        means = sampling.box_mean(planes, radius).astype(np.float32)
        book.add(f"box-{radius}", "box_mean", {"planes": planes}, means, {"radius": radius}, 1e-6)

    for name, (height, width), changes in (
        ("plain", (60, 83), {"working_side": 83}),
        ("reduced", (110, 151), {"working_side": 52}),
        ("other", (60, 83), {"working_side": 32, "radius": 5, "reach": 3, "epsilon": 1e-4, "confidence": 0.0}),
    ):
        rgb, alpha = picture(height, width, 5)
        small = preprocess.resize_bilinear(alpha, 32, 32)
        settings = replace(BALANCED, **dict[str, Any](changes))
        refined = np.concatenate([v for _, v in guided.refine_guided(rgb, small, settings)])
        parameters = steps(settings)
        # The fit divides by determinants near 1e-18: float64 everywhere, and still some room.
        book.add(f"guided-{name}", "refine_guided", {"rgb": rgb, "saliency": small}, refined, parameters, 5e-3)
        whole = postprocess.matte(rgb, small, settings)
        book.add(f"matte-{name}", "matte", {"rgb": rgb, "saliency": small}, whole, parameters, 2)
        own = np.tile(np.linspace(0, 255, width).astype(np.uint8), (height, 1))
        hard = replace(FAST, threshold=0.5, feather=2.0)
        soft = postprocess.matte(rgb, small, hard, own)
        book.add(f"feather-{name}", "matte", {"rgb": rgb, "saliency": small, "alpha": own}, soft, steps(hard), 1)
        eight = sampling.to_alpha(alpha)
        colours = foreground.estimate_foreground(rgb, eight, 52)
        book.add(
            f"colours-{name}", "estimate_foreground", {"rgb": rgb, "alpha": eight}, colours, {"working_side": 52}, 1
        )
        flat = composite(colours, eight, Background((12, 200, 90)))
        book.add(f"composite-{name}", "composite", {"rgb": colours, "alpha": eight}, flat, {"colour": [12, 200, 90]})
    return book


def main() -> None:
    """Write the two files."""
    book = build()
    (HERE / "golden.bin").write_bytes(bytes(book.data))
    text = json.dumps({"version": preprocess.SPECIFICATION_VERSION, "cases": book.cases}, indent=1) + "\n"
    (HERE / "golden.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

"""The folder that transformers.js's `background-removal` pipeline loads unchanged.

transformers.js has no class of its own for U²-Net; `isnet`, the successor by the same authors with the same input and
output, is loaded as a plain encoder, which is just what a U²-Net is. Two differences from the project's own runners
remain, both small: the pipeline divides by 255 and not by the picture's brightest value, and its resize is sharp's.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from u2net.files import write_bytes, write_json
from u2net.preprocess import MEAN, STD

__all__ = ["write_huggingface_folder"]

#: Precision → the file name that transformers.js derives from its `dtype` option.
FILE_NAMES = {"fp32": "model.onnx", "fp16": "model_fp16.onnx", "int8": "model_quantized.onnx"}


def write_huggingface_folder(folder: Path, models: dict[str, Path], size: int, card: str) -> None:
    """Write `config.json`, `preprocessor_config.json`, `README.md` and `onnx/` into `folder`.

    `models` maps a precision ("fp32", "fp16", "int8") to an ONNX file with the `tensor` interface; `card` is the model
    card in Markdown, which gets the hub's front matter.
    """
    for precision, path in models.items():
        target = folder / "onnx" / FILE_NAMES[precision]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    write_json(folder / "config.json", {"architectures": ["ISNetModel"], "model_type": "isnet"})
    write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "ViTImageProcessor",  # the plain one: resize, rescale, normalise
            "do_normalize": True,
            "do_pad": False,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": list(MEAN),
            "image_std": list(STD),
            "keep_aspect_ratio": False,
            "resample": 2,
            "rescale_factor": 1 / 255,
            "size": {"height": size, "width": size},
        },
    )
    front_matter = "\n".join(
        (
            "---",
            "library_name: transformers.js",
            "pipeline_tag: image-segmentation",
            "license: apache-2.0",
            "tags:",
            "- background-removal",
            "- salient-object-detection",
            "- onnx",
            "---",
            "",
            "",
        )
    )
    write_bytes(folder / "README.md", (front_matter + card).encode())

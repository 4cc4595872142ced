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

#: Precision → transformers.js's `dtype`, and the file name that it derives from it.
DTYPES = {"int8": ("q8", "model_quantized.onnx"), "fp16": ("fp16", "model_fp16.onnx"), "fp32": ("fp32", "model.onnx")}
_README = """\
---
library_name: transformers.js
pipeline_tag: image-segmentation
license: apache-2.0
tags:
- background-removal
- salient-object-detection
- onnx
---

With [transformers.js](https://github.com/huggingface/transformers.js), `npm install @huggingface/transformers`:

```js
import {{ pipeline }} from "@huggingface/transformers";

const remove = await pipeline("background-removal", "YOUR-NAME/{name}", {{ dtype: "{dtype}" }});
const cutout = await remove("photo.jpg");
await cutout.save("cutout.png"); // in a page: document.body.append(cutout.toCanvas())
```

| `dtype` | file | bytes |
|---|---|---|
{rows}

{card}"""


def write_huggingface_folder(folder: Path, name: str, models: dict[str, Path], size: int, card: str) -> None:
    """Write `config.json`, `preprocessor_config.json`, `README.md` and `onnx/` into `folder`.

    `models` maps a precision ("fp32", "fp16", "int8") to an ONNX file with the `tensor` interface; `name` is what the
    repository on the hub will be called; `card` is the model card in Markdown, which gets the hub's front matter, code
    to copy and a list of the files.
    """
    rows = []
    for precision, (dtype, file_name) in DTYPES.items():
        if precision in models:
            target = folder / "onnx" / file_name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(models[precision], target)
            rows.append(f"| `{dtype}` | `onnx/{file_name}` | {target.stat().st_size:,} |")
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
    dtype = next(dtype for precision, (dtype, _) in DTYPES.items() if precision in models)
    readme = _README.format(name=name, dtype=dtype, rows="\n".join(rows), card=card)
    write_bytes(folder / "README.md", readme.encode())

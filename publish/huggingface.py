"""The folder that transformers.js's `background-removal` pipeline loads unchanged.

transformers.js has no class of its own for U²-Net; `isnet`, the successor by the same authors with the same input and
output, is loaded as a plain encoder, which is just what a U²-Net is. Two differences from the project's own runners
remain, both small: the pipeline divides by 255 and not by the picture's brightest value, and its resize is sharp's.
"""

from __future__ import annotations

from pathlib import Path

from u2net.files import write_bytes, write_json
from u2net.preprocess import MEAN, STD

__all__ = ["ONNX_FILES", "write_huggingface_folder"]

#: Precision → transformers.js's name of it (`dtype`), and the file that it then asks for.
DTYPES = {"int8": "q8", "fp16": "fp16", "fp32": "fp32"}
ONNX_FILES = {"int8": "onnx/model_quantized.onnx", "fp16": "onnx/model_fp16.onnx", "fp32": "onnx/model.onnx"}
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


def write_huggingface_folder(folder: Path, name: str, size: int, card: str) -> None:
    """Write `config.json`, `preprocessor_config.json` and `README.md` around the models that lie in `folder`.

    Those are ONNX files with the `tensor` interface, named as in `ONNX_FILES`; `name` is what the repository on the hub
    will be called; `card` is the model card in Markdown, which gets the hub's front matter, code to copy and a list of
    the files.
    """
    there = [precision for precision, path in ONNX_FILES.items() if (folder / path).is_file()]
    rows = [
        f"| `{DTYPES[precision]}` | `{ONNX_FILES[precision]}` | {(folder / ONNX_FILES[precision]).stat().st_size:,} |"
        for precision in there
    ]
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
    readme = _README.format(name=name, dtype=DTYPES[there[0]], rows="\n".join(rows), card=card)
    write_bytes(folder / "README.md", readme.encode())

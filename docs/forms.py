"""Write `forms.md` beside this file: forms of checkpoints and graphs, and what the project does with each.

    python docs/forms.py            (make docs)

Each form is made of a small random network and read. `tests/u2net/network/test_forms.py` and
`tests/quantize/test_intake.py` hold the file against the program.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.forms import CHECKPOINTS, GRAPHS, checkpoint_outcome, graph_outcome, wide_network  # noqa: E402
from u2net.files import write_bytes  # noqa: E402

PAGE = Path(__file__).with_name("forms.md")


def page() -> str:
    """The whole document."""
    model = wide_network()
    lines = [
        "# Forms of a U²-Net",
        "",
        "Written by `make docs`: every form is made of a small random network, and read.",
        "",
        "## Checkpoints",
        "",
        "| what `--weights` is given | what comes of it |",
        "|---|---|",
    ]
    for form in CHECKPOINTS:
        with tempfile.TemporaryDirectory() as folder:
            lines.append(f"| {form} | {checkpoint_outcome(form, model, Path(folder))} |")
    lines += [
        "",
        "## Graphs of other exporters",
        "",
        "As `torch.onnx.export` writes them. `export --weights` reads the weights and makes a graph of its own; "
        "`quantize`",
        "takes the graph itself. Both run it and compare.",
        "",
        "| the graph | `export --weights` | `quantize` |",
        "|---|---|---|",
    ]
    for form in GRAPHS:
        with tempfile.TemporaryDirectory() as folder:
            lines.append("| " + " | ".join((form, *graph_outcome(form, model, Path(folder) / "given.onnx"))) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    write_bytes(PAGE, page().encode())

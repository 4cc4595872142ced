"""Changes to an exported graph, one small pass per file.

A pass is an `onnx_ir.passes.InPlacePass`: called with a model, it returns the model and whether it changed anything.
"""

from __future__ import annotations

from .half_weights import HalfWeights
from .image_interface import ImageInterface
from .strided_stem import StridedStem
from .strip_provenance import StripProvenance

__all__ = ["HalfWeights", "ImageInterface", "StridedStem", "StripProvenance"]

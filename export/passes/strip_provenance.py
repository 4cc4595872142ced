"""Forget how a graph was made: doc strings, stack traces, module paths and whatever else exporters attach.

What is left depends on the network and the settings alone, so that equal inputs give equal bytes, and no path of the
machine that exported a model travels with it.
"""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["StripProvenance"]


class StripProvenance(ir.passes.InPlacePass):
    """Clear every doc string and metadata property of the model, its graphs, nodes and values."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = self._clear(model)
        for function in model.functions.values():
            modified |= self._clear(function)
        modified |= self._clear(model.graph)
        for value in (*model.graph.inputs, *model.graph.initializers.values()):
            modified |= self._clear(value)
            if value.const_value is not None:
                modified |= self._clear(value.const_value)
        for node in model.graph.all_nodes():
            modified |= self._clear(node)
            for value in node.outputs:
                modified |= self._clear(value)
        return ir.passes.PassResult(model, modified)

    @staticmethod
    def _clear(thing: object) -> bool:
        modified = False
        if getattr(thing, "doc_string", None):
            thing.doc_string = None  # type: ignore[attr-defined]
            modified = True
        properties = getattr(thing, "metadata_props", None)
        if properties:
            properties.clear()
            modified = True
        return modified

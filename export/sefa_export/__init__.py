"""Bake a generator and its direction bank into one graph, export it and verify the result.

>>> import sefa, sefa_export
>>> generator = sefa.load("netG.pth")
>>> sefa_export.export_onnx(generator, sefa.factorize(generator), "netG.onnx")
PosixPath('netG.onnx')
"""

from sefa_export.bake import EditGraph, bake
from sefa_export.errors import ExportError, VerificationError
from sefa_export.onnx_graph.onnx_export import export_onnx
from sefa_export.torch_archives.pt2_export import export_pt2
from sefa_export.torch_archives.torchscript_export import export_torchscript

__all__ = [
    "EditGraph",
    "ExportError",
    "VerificationError",
    "bake",
    "export_onnx",
    "export_pt2",
    "export_torchscript",
]

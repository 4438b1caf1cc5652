"""Files for other serving systems: a Triton model repository, a KServe InferenceService.

They are written from the model's own description alone, so the serving machine itself can do it, without torch or onnx.

>>> from pathlib import Path
>>> from sefa_runtime.deploy.triton import TritonOptions, write_repository
>>> write_repository({"faces": Path("faces.onnx")}, Path("repo"), TritonOptions(gpus=1))
"""

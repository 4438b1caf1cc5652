"""What other serving systems need to serve an exported model: a Triton model repository, a KServe InferenceService.

Made from the model's own description alone, so that it can be done on the machine that serves, without torch and onnx.

>>> from pathlib import Path
>>> from sefa_runtime.deploy.triton import TritonOptions, write_repository
>>> write_repository({"faces": Path("faces.onnx")}, Path("repo"), TritonOptions(gpus=1))
"""

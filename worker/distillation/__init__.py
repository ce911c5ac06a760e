"""The engine: distils one network into another, in plain PyTorch.

Belongs here: the command, the interfaces of methods, and the folders below. Does not: anything that knows an address, a
row or a queue: it gets files and answers with files and JSON lines. May import torch, torchvision, timm, safetensors,
and for exports and reports onnx and what the extra `worker` lists; nothing of the service.
"""

"""The engine: distils one network into another, in plain PyTorch.

Belongs here: the command, the interfaces of methods, and the folders below. Does not: code that uses a URL, a database
row or a queue; the engine reads files, and writes files and JSON lines. May import torch, torchvision, timm, safetensors,
and, for exports and reports, onnx and other packages of the extra `worker`; nothing of the service.
"""

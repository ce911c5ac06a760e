"""Runs for a machine with a GPU that is lent for minutes: one command per run, bounded by a clock, resumable (docs/gpu.md).

Belongs here: the four parts, what they share, and the script that fills the folder that is carried to the machine. Does not: what
runs on a CPU as well (`benchmarks/loop`). May import the engine and the other benchmarks, and beyond them torch, torchvision, timm
and safetensors alone.
"""

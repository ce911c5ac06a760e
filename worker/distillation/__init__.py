"""The engine: distils one network into another, in plain PyTorch. It knows nothing of the service around it."""

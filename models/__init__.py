"""What the API and the workers agree on.

Belongs here: rows, settings, specs, storage, the queue, and the order in which work is claimed. Does not: HTTP (`api`),
running anything (`worker`). May import neither `api` nor `worker`, and never torch.
"""

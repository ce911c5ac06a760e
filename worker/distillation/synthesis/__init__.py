"""What synthesisers share: generators, losses on them, the image pool, and the watch for their failures."""

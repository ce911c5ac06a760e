"""How long an `Idempotency-Key` holds."""

KEPT_SECONDS = 24 * 3600.0
"""After it, the same key makes a new job. docs/api.md publishes it."""

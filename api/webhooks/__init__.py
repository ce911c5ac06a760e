"""Webhooks: the secret that signs them, and what was delivered."""

"""Trained networks that users upload."""

"""Distillation jobs: what users ask for, and what comes of it."""

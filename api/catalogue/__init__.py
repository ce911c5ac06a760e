"""What the engine can do."""

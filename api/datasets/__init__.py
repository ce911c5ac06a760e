"""Images with labels that users upload."""

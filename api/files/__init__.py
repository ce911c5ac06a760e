"""Other inputs of jobs that users upload."""

"""HTTP in; rows and a bell out. Never imports torch."""

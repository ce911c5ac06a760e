"""Keys over HTTP and, by `python -m api.keys`, on the command line."""

"""Sources, one file each: where training batches come from. The file's name is the source's.

Belongs here: a class that yields batches, from a dataset or synthesised. Does not: code that several synthesisers need
(`synthesis/`), reading files (`data/`). May import the interface, `synthesis/`, `data/`, `distributed/`,
`introspection/` and `uploads/`; never another source.
"""

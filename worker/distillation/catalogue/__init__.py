"""The catalogue: what the engine declares, as the plain data from which the API builds its types, and as a page of the docs.

`python -m worker.distillation.catalogue` writes models/spec/catalogue.json and docs/methods.md.

Belongs here: turning declarations into data. Does not: the declarations, which stand with what they declare. May import
everything of the engine; nothing of it imports this.
"""

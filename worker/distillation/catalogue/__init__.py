"""The catalogue: the engine's declarations, as plain data from which the API builds its types, and as a page of the
docs.

`python -m worker.distillation.catalogue` writes models/spec/catalogue.json and docs/methods.md.

Belongs here: converting declarations to data. Does not: the declarations, which are next to what they declare. May
import everything of the engine; nothing of it imports this.
"""

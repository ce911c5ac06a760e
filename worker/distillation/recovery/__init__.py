"""Finding out what network a bare state dict is of, with labelled images.

A state dict of a chain of convolutions, norms and linear layers has their shapes, and not how they are joined. Few strides,
paddings and poolings meet the first linear layer; labelled images tell which of them is right, with which activation and
which normalisation.

Belongs here: the chain read from a state dict, its geometries, and the search. Does not: reading files (`uploads/`), the list
of normalisations (`contract_check/`). May import `contract_check/`, `contract.py`, `errors.py` and `process/`.
"""

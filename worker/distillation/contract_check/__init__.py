"""Whether a network gets its images and its classes as it was trained: measured on labelled images.

Belongs here: the list of usual normalisations, the comparison of them, and the matching of class names. Does not: what a job
does with the result (`trainer/teacher_check.py`), how an unknown network is found (`recovery/`). May import `contract.py`,
`errors.py` and `process/`.
"""

"""What several procedures share: making stages, a teacher that is trained first, architecture search.

Belongs here: plain data about stages. Does not: training (`trainer/`), the procedures themselves (`procedures/`). May
import the interfaces, `registry.py` and `randomness.py`.
"""

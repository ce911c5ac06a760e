"""What several procedures share: how stages are made, a teacher that is trained first, the search of architectures.

Belongs here: plain data about stages. Does not: training (`trainer/`), the procedures themselves (`procedures/`). May
import the interfaces, `registry.py` and `randomness.py`.
"""

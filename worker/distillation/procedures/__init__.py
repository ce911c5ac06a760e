"""Procedures, one file each: which stages run, on which networks, from which weights. The file's name is the procedure's.

Belongs here: a class whose `next` is a pure function of the finished stages. Does not: what a second procedure needs
(`planning/`), training (`trainer/`). May import the interface, `planning/` and `registry.py`; never another procedure.
"""

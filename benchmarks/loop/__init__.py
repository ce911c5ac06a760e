"""The training loop beside others: steps of the same networks on the same images, by this engine and by loops written by hand.

Belongs here: the loops, and the script that times them in turns. Does not: measurements on a GPU (`benchmarks/gpu`). May import
the engine.
"""

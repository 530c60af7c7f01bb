"""`mlip bench`: how fast an artifact runs, beside another artifact or the framework that it came from.

Two things are compared only when they were measured alternately, pair by pair, in one run: a ratio then survives
another program on the machine.
"""

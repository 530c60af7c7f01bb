"""Does the artifact compute, in the engine where it runs, what the original model computes?"""

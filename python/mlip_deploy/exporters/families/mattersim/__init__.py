"""MatterSim."""

"""Runs of prepared folders: the engine's process, its table, what the table says, and the report."""

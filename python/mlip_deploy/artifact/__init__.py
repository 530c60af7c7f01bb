"""The file: its contract, its reference frames, the record of its validation, and how they are read without torch."""

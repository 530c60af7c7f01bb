"""`mlip compare`: several artifacts side by side."""

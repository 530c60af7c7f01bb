"""The domain of a model: fitted to frames that it was shown to know, stored in its file, the base of grades."""

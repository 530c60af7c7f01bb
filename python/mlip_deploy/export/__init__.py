"""Export: a checkpoint of a training framework becomes an artifact. One adapter per family, one shared wrapper."""

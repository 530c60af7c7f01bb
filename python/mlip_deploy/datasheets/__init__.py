"""`mlip datasheet` and `mlip atlas`: six open questions on foundation models, answered with evidence for each model."""

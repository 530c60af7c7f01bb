"""SO3LR."""

"""The families of models: one folder each, whose `adapter` knows its framework and no engine."""

"""TensorNet of MatGL."""

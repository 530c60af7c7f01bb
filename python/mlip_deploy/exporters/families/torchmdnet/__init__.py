"""TensorNet of TorchMD-Net."""

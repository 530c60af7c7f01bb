"""What a model is written as: TorchScript, code compiled by AOTInductor, a file for TorchForce."""

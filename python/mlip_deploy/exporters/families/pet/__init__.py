"""PET, the Point-Edge Transformer."""

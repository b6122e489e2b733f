"""FLUX.2 and FLUX.2 klein."""

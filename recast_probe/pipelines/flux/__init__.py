"""FLUX.1 Kontext and what the FLUX models share."""

"""IP-Adapters of FLUX.1."""

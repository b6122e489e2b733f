"""recast_probe: find out how an in-context diffusion transformer uses its reference image."""

__version__ = "0.1.0"

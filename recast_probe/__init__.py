"""recast_probe: find out how an in-context diffusion transformer uses its reference image."""

import lazy_loader

from recast_probe._utils.quiet_loading import expect_no_torchvision

# Names are loaded when first used, so that `import recast_probe` does not wait for torch. They are
# listed in __init__.pyi, which type checkers and editors read as well.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"

expect_no_torchvision()

"""Which reference tokens stay, and how many."""

import lazy_loader

# budgets are numbers, and rankings ask for torch
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

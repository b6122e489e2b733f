"""Loading without words that help nobody: of packages that are not needed, and of small files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

SPEAKER = "transformers.utils.import_utils"


def expect_no_torchvision() -> None:
    """Keep transformers from telling, once an image processor, that it reads pictures without
    torchvision: that is how it is meant here. Everything else that it says stays."""
    logger = logging.getLogger(SPEAKER)
    if _of_torchvision not in logger.filters:
        logger.addFilter(_of_torchvision)


def _of_torchvision(record: logging.LogRecord) -> bool:
    return "requires torchvision (not installed)" not in record.getMessage()


@contextmanager
def without_loading_bars() -> Iterator[None]:
    """The progress bars of diffusers and transformers off, for what is loaded in a second."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    shown = [each for each in (of_diffusers, of_transformers) if each.is_progress_bar_enabled()]
    for each in shown:
        each.disable_progress_bar()
    try:
        yield
    finally:
        for each in shown:
            each.enable_progress_bar()

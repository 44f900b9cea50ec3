"""The setting `loglevel`: what the client says about itself, through the standard logger "modal"."""

from __future__ import annotations

import logging

logger = logging.getLogger("modal")


def apply_level() -> None:
    """Set the logger to the configured level. What the program has set up for logging itself is left alone.

    Raises:
        InvalidError: the configuration cannot be read.
    """
    from .config import config

    logger.setLevel(config.get("loglevel"))
    if not logger.handlers and not logging.getLogger().handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)

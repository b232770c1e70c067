"""The log of every process of ours: key=value lines on standard error, times in UTC."""

from __future__ import annotations

import logging
import sys
import time


def log_to_stderr(level: str) -> None:
    """Log from `level` on (debug, info, warning, error)."""
    logging.basicConfig(
        stream=sys.stderr,
        level=level.upper(),
        format="ts=%(asctime)s.%(msecs)03dZ level=%(levelname)s logger=%(name)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
    for handler in logging.getLogger().handlers:
        if handler.formatter is not None:
            handler.formatter.converter = time.gmtime

"""Import of Keras and TensorFlow without their log messages."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def import_keras() -> None:
    """Import Keras and TensorFlow without the messages that their libraries write on import.

    Call it in notebooks before any other part of the package that needs Keras.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _silent_native_stderr():
        importlib.import_module("keras")
    logger = logging.getLogger("tensorflow")
    if _is_no_retracing_warning not in logger.filters:
        logger.addFilter(_is_no_retracing_warning)


def _is_no_retracing_warning(record: logging.LogRecord) -> bool:
    """Return whether a message of TensorFlow is not the warning about repeated tracing.

    TensorFlow identifies functions by their addresses, which are reused. So it mistakes the
    functions of several networks in one process for one function that is traced repeatedly.
    """
    return "triggered tf.function retracing" not in record.getMessage()


@contextmanager
def _silent_native_stderr() -> Iterator[None]:
    """Discard what TensorFlow's libraries write to file descriptor 2 whatever the log level."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)

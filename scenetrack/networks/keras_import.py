"""Import Keras and TensorFlow quietly."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def import_keras() -> None:
    """Import Keras and TensorFlow without the messages that their libraries write on the way.

    For notebooks, before any other part of the package that needs Keras.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _silent_native_stderr():
        importlib.import_module("keras")
    logger = logging.getLogger("tensorflow")
    if _is_worth_saying not in logger.filters:
        logger.addFilter(_is_worth_saying)


def _is_worth_saying(record: logging.LogRecord) -> bool:
    """Whether a message of TensorFlow is more than advice to the author of a training loop.

    TensorFlow takes the functions of several networks in one process for one function that is
    traced again and again, because it tells them apart by addresses, which are reused.
    """
    return "triggered tf.function retracing" not in record.getMessage()


@contextmanager
def _silent_native_stderr() -> Iterator[None]:
    """TensorFlow's libraries write to file descriptor 2 on import, whatever its log level says."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)

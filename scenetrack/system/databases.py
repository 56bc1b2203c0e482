"""Errors of databases in their own words, and which of them say that a program has locked it."""

from __future__ import annotations

import re

from sqlalchemy.exc import DBAPIError

# SQLite, MySQL, PostgreSQL, SQL Server.
_LOCKED = re.compile(
    r"database (table |schema )?is locked|lock wait timeout|lock timeout|deadlock", re.IGNORECASE
)


def is_locked(error: BaseException) -> bool:
    """Return whether an error of a database says that another program has locked it.

    Args:
        error: of SQLAlchemy, or of a library that raised its own error because of that one.
    """
    return _LOCKED.search(driver_message(error)) is not None


def driver_message(error: BaseException) -> str:
    """Return the database's own words in one line, without the SQL that SQLAlchemy adds."""
    for cause in (error, error.__cause__):
        if isinstance(cause, DBAPIError):
            return " ".join(str(cause.orig).split())
    return " ".join(str(error).split())

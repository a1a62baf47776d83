"""Keystone's WSGI application, with every SQLite transaction taking the write lock at its start.

oslo.db begins transactions "deferred": one that has read and then wants to write while another process
writes is told "database is locked" at once, whatever the time-out, and Keystone answers 500. Begun
"immediate", it waits. Two Keystone processes on one SQLite file need that; nothing else is changed.
"""

from keystone.wsgi.api import application
from sqlalchemy import event
from sqlalchemy.engine import Engine

__all__ = ["application"]


@event.listens_for(Engine, "before_cursor_execute", retval=True)
def _begin_immediate(
    _connection: object, _cursor: object, statement: str, parameters: object, *_: object
) -> tuple[str, object]:
    return ("BEGIN IMMEDIATE" if statement == "BEGIN" else statement), parameters

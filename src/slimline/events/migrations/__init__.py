"""Alembic's migrations of the event store. Each must leave a store that the version before it can still write to."""

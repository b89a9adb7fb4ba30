"""What alembic runs: the migrations, in the transaction that ``slimline.events.migrate`` opened and locked."""

from __future__ import annotations

from alembic import context

from slimline.events.schema import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA, transactional_ddl=True)
context.run_migrations()

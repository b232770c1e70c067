"""Alembic entry: the caller's connection, or one to FAIRLEAD_DATABASE_URL; offline it prints the SQL."""

import os

from alembic import context

from fairlead.store import tables
from fairlead.store.engine import connect

DEFAULT_URL = "sqlite:///fairlead.sqlite"


def run() -> None:
    """Run the migrations in one transaction."""
    given = context.config.attributes.get("connection")
    if context.is_offline_mode():
        dialect = context.config.attributes.get("dialect", "postgresql")
        context.configure(dialect_name=dialect, target_metadata=tables.metadata, literal_binds=True)
        with context.begin_transaction():
            context.run_migrations()
    elif given is not None:
        context.configure(connection=given, target_metadata=tables.metadata, compare_type=True)
        context.run_migrations()  # the caller owns the transaction
    else:
        engine = connect(os.environ.get("FAIRLEAD_DATABASE_URL", DEFAULT_URL))
        with engine.begin() as connection:
            context.configure(connection=connection, target_metadata=tables.metadata, compare_type=True)
            context.run_migrations()


run()

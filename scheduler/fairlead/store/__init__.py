"""The database: journal and ledger, append-only. SQLAlchemy is imported here, in `migrations/`, and nowhere else."""

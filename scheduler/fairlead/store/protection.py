"""What protects a table besides its keys: triggers, and who owns it and may do what. Read, and made again elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from fairlead.errors import BooksDoNotVerify

Grant = tuple[str, str, bool]
"""(role, privilege, whether it may be passed on)."""


@dataclass(frozen=True, slots=True)
class Protection:
    """`triggers` are the statements that make them; SQLite knows neither owners nor grants."""

    triggers: tuple[str, ...]
    owner: str = ""
    grants: frozenset[Grant] = frozenset()


def of(connection: sa.Connection, table: str) -> Protection:
    """Return what protects a table.

    Raises
    ------
    BooksDoNotVerify
        Row security, grants on columns or a publication are on it: those are not made again.
    """
    if connection.dialect.name == "sqlite":
        query = "SELECT sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ? ORDER BY name"
        return Protection(tuple(connection.exec_driver_sql(query, (table,)).scalars()))
    lost = connection.exec_driver_sql(
        "SELECT relrowsecurity OR EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attacl IS NOT NULL) "
        "OR EXISTS (SELECT FROM pg_publication_rel WHERE prrelid = c.oid) FROM pg_class c WHERE oid = %s::regclass",
        (table,),
    ).scalar_one()
    if lost:
        raise BooksDoNotVerify(
            f"{table}: row security, grants on columns or a publication would be lost; take them away first"
        )
    # in the order in which they are made again, which is not how the catalog keeps them
    found = connection.exec_driver_sql(
        "SELECT statement FROM (SELECT 1, tgname, pg_get_triggerdef(oid) FROM pg_trigger "
        "WHERE tgrelid = %s::regclass AND NOT tgisinternal "
        "UNION ALL SELECT 2, tgname, format('ALTER TABLE %%s ENABLE ALWAYS TRIGGER %%I', tgrelid::regclass, tgname) "
        "FROM pg_trigger WHERE tgrelid = %s::regclass AND tgenabled = 'A' AND NOT tgisinternal"
        ") AS made (step, name, statement) ORDER BY step, name",
        (table, table),
    )
    triggers = tuple(found.scalars())
    owner = connection.exec_driver_sql(
        "SELECT relowner::regrole::text FROM pg_class WHERE oid = %s::regclass", (table,)
    ).scalar_one()
    return Protection(triggers, str(owner), _grants(connection, table))


def restore(connection: sa.Connection, table: str, before: Protection) -> None:
    """Make on the table of this name all that `of` found on the one before it."""
    is_sqlite = connection.dialect.name == "sqlite"
    for statement in before.triggers:
        connection.exec_driver_sql(statement if is_sqlite else statement.replace("%", "%%"))
    if is_sqlite:
        return
    connection.exec_driver_sql(f"ALTER TABLE {table} OWNER TO {before.owner}")
    now = _grants(connection, table)
    for role, privilege, _ in sorted(now - before.grants):
        connection.exec_driver_sql(f"REVOKE {privilege} ON {table} FROM {role}")
    for role, privilege, passed_on in sorted(before.grants - now):
        with_option = " WITH GRANT OPTION" if passed_on else ""
        connection.exec_driver_sql(f"GRANT {privilege} ON {table} TO {role}{with_option}")


def _grants(connection: sa.Connection, table: str) -> frozenset[Grant]:
    """Return the privileges on a table, the owner's own too."""
    found = connection.exec_driver_sql(
        "SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END, a.privilege_type, "
        "a.is_grantable FROM pg_class c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a "
        "WHERE c.oid = %s::regclass",
        (table,),
    )
    return frozenset((str(role), str(privilege), bool(passed_on)) for role, privilege, passed_on in found)

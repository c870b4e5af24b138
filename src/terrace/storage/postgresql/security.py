"""The second wall: PostgreSQL itself shows a transaction the rows of one tenant only. See decision 0013."""

from sqlalchemy import Connection

APP_ROLE = "terrace_app"  # who works, where the role we connect as would walk through walls
TENANT = "(SELECT current_setting('terrace.tenant', true))"  # in a query of its own it is asked for once, not per row
OPEN_TABLES = """
SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND a.attname = 'tenant_id'
AND NOT a.attisdropped AND NOT c.relforcerowsecurity ORDER BY c.relname"""
# Roles belong to the whole server: another database's migration may make it at this moment.
MAKE_ROLE = f"""
DO $$ BEGIN
  CREATE ROLE {APP_ROLE} NOLOGIN NOSUPERUSER NOBYPASSRLS;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$"""
MAY_WALK_THROUGH = "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"


def secure(connection: Connection) -> None:
    """Wall in every table that says whose its rows are, and let the role in that cannot walk through walls."""
    for name in connection.exec_driver_sql(OPEN_TABLES).scalars().all():
        table = connection.dialect.identifier_preparer.quote(name)
        connection.exec_driver_sql(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
        connection.exec_driver_sql(
            f"CREATE POLICY own_tenant ON {table} USING (tenant_id = {TENANT} OR {TENANT} = '*')"
        )
    if connection.exec_driver_sql(MAY_WALK_THROUGH).scalar():
        _let_in(connection)


def _let_in(connection: Connection) -> None:
    connection.exec_driver_sql(MAKE_ROLE)
    schema = connection.exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one()
    for grant in (
        f"GRANT USAGE ON SCHEMA {schema} TO {APP_ROLE}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE, REFERENCES, TRIGGER ON ALL TABLES IN SCHEMA {schema} TO {APP_ROLE}",
        f"GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA {schema} TO {APP_ROLE}",
    ):
        connection.exec_driver_sql(grant)

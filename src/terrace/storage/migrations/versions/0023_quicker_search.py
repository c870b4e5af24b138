"""What lets PostgreSQL search quicker: what each word adds to a chunk's score, and walls that ask only once whose rows
may be seen."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision: str | None = "0022"

POLICIES = "SELECT tablename FROM pg_policies WHERE schemaname = current_schema() AND policyname = 'own_tenant'"
TENANT = "current_setting('terrace.tenant', true)"
# As `terrace.knowledge.index.postgres.words` writes them: 0 times is said of lists that are no words.
IMPACTS = """
CREATE FUNCTION pg_temp.impacts(words bigint[], times bytea) RETURNS sparsevec LANGUAGE sql AS $$
    SELECT ('{' || coalesce(string_agg(place || ':' || round(most * 2.2 / (most + 2.4), 4), ','), '')
        || '}/536870912')::sparsevec
    FROM (
        SELECT (word & 536870911) + 1 AS place, max(get_byte(times, nth::int - 1)) AS most
        FROM unnest(words) WITH ORDINALITY AS each(word, nth) GROUP BY 1
    ) found WHERE most > 0
$$"""


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    _walls(f"(SELECT {TENANT})")
    op.execute(IMPACTS)
    op.execute("ALTER TABLE chunk_words ADD COLUMN impacts sparsevec")
    # Writes the table and its indexes anew, where an update would leave every row behind once more.
    op.execute("ALTER TABLE chunk_words ALTER impacts TYPE sparsevec USING pg_temp.impacts(words, times)")
    op.execute("ALTER TABLE chunk_words ALTER impacts SET NOT NULL")
    op.execute("DROP FUNCTION pg_temp.impacts")


def downgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    op.drop_column("chunk_words", "impacts")
    _walls(TENANT)


def _walls(tenant: str) -> None:
    for table in op.get_bind().execute(sa.text(POLICIES)).scalars().all():
        op.execute(f"ALTER POLICY own_tenant ON \"{table}\" USING (tenant_id = {tenant} OR {tenant} = '*')")

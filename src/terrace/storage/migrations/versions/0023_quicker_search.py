"""What lets PostgreSQL search quicker: what each word adds to a chunk's score, the signs of a document's vectors in one
row, and walls that ask only once whose rows may be seen."""

import sqlalchemy as sa
from alembic import op

from terrace.errors import Unavailable

revision = "0023"
down_revision: str | None = "0022"

NEEDED = (0, 8)  # pgvector
VERSION = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
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
# The signs of a document's vectors, and the numbers of their chunks, as bytes one behind the other. PostgreSQL itself
# keeps them as `chunk_vectors` says, whoever writes there.
SIGNS = """
INSERT INTO vector_signs (tenant_id, model, document_id, dimensions, numbers, signs)
SELECT tenant_id, model, document_id, vector_dims(vector), string_agg(int8send(number), ''::bytea ORDER BY number),
    string_agg(substring(bit_send(binary_quantize(vector)) FROM 5), ''::bytea ORDER BY number)
FROM {rows} GROUP BY tenant_id, model, document_id, vector_dims(vector)"""
DOCUMENTS = "(SELECT DISTINCT tenant_id, model, document_id FROM gone) g"
KEPT = f"""
CREATE FUNCTION add_vector_signs() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    {SIGNS.format(rows="came")};
    RETURN NULL;
END $$;
CREATE FUNCTION renew_vector_signs() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    DELETE FROM vector_signs s USING {DOCUMENTS}
    WHERE s.tenant_id = g.tenant_id AND s.model = g.model AND s.document_id = g.document_id;
    {SIGNS.format(rows=f"chunk_vectors JOIN {DOCUMENTS} USING (tenant_id, model, document_id)")};
    RETURN NULL;
END $$;
CREATE TRIGGER add_signs AFTER INSERT ON chunk_vectors REFERENCING NEW TABLE AS came
    FOR EACH STATEMENT EXECUTE FUNCTION add_vector_signs();
CREATE TRIGGER renew_signs AFTER UPDATE ON chunk_vectors REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION renew_vector_signs();
CREATE TRIGGER drop_signs AFTER DELETE ON chunk_vectors REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION renew_vector_signs()"""


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    _check_extension()
    _walls(f"(SELECT {TENANT})")
    op.execute(IMPACTS)
    op.execute("ALTER TABLE chunk_words ADD COLUMN impacts sparsevec")  # an older version still running writes none
    # Writes the table and its indexes anew, where an update would leave every row behind once more.
    op.execute("ALTER TABLE chunk_words ALTER impacts TYPE sparsevec USING pg_temp.impacts(words, times)")
    op.execute("DROP FUNCTION pg_temp.impacts")
    op.create_table(
        "vector_signs",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=True),
        sa.Column("tenant_id", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("document_id", sa.String, nullable=False),
        sa.Column("dimensions", sa.Integer, nullable=False),
        sa.Column("numbers", sa.LargeBinary, nullable=False),
        sa.Column("signs", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_vector_signs_document", "vector_signs", ["tenant_id", "model", "document_id"])
    # Whole in their rows where they fit; nothing makes them smaller.
    op.execute("ALTER TABLE vector_signs SET (toast_tuple_target = 8160)")
    op.execute("ALTER TABLE vector_signs ALTER numbers SET STORAGE EXTERNAL, ALTER signs SET STORAGE EXTERNAL")
    op.execute(SIGNS.format(rows="chunk_vectors"))
    op.execute(KEPT)


def downgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    for trigger in ("add_signs", "renew_signs", "drop_signs"):
        op.execute(f"DROP TRIGGER {trigger} ON chunk_vectors")
    op.execute("DROP FUNCTION add_vector_signs(), renew_vector_signs()")
    op.drop_table("vector_signs")
    op.drop_column("chunk_words", "impacts")
    _walls(TENANT)


def _check_extension() -> None:
    version = str(op.get_bind().execute(sa.text(VERSION)).scalar_one())
    if tuple(int(part) for part in version.split(".")[:2]) < NEEDED:
        raise Unavailable(
            f"The database has pgvector {version}, and Terrace needs 0.8 or later: install it on the database's "
            "server, then run ALTER EXTENSION vector UPDATE in this database.",
            code="extension_old",
        )


def _walls(tenant: str) -> None:
    for table in op.get_bind().execute(sa.text(POLICIES)).scalars().all():
        op.execute(f"ALTER POLICY own_tenant ON \"{table}\" USING (tenant_id = {tenant} OR {tenant} = '*')")

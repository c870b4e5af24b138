"""The house of docs/architecture.md: rooms import downwards, siblings never, vendors stay in their room."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "terrace"

# A room may import what stands above it in this list, never what stands beside or below it.
FLOORS = [
    {"errors", "stopping", "types"},
    {"settings"},
    {"storage", "outbound"},
    {"telemetry"},
    {"accounts", "jobs"},
    {"models", "webhooks", "schedules"},
    {"knowledge", "peers"},
    {"chat", "analysis", "campaigns", "batches", "experiments"},
    {"moving"},
    {"web", "cli", "inference"},
    {"assembly", "__main__"},
]
# The command line starts an assembled house; assembly names every implementation, the web one included.
DOORS = {("cli", "assembly"), ("__main__", "cli")}

ROOMS_WITH_TABLES = {
    "storage", "telemetry", "accounts", "jobs", "webhooks", "schedules", "knowledge", "chat", "analysis", "campaigns",
    "batches", "moving",
}  # fmt: skip
VENDORS = {
    "aiobotocore": {"storage/blobs"},
    "aiohttp": {"models/transport", "outbound"},
    "aiosmtplib": {"accounts"},
    "alembic": {"storage"},
    "argon2": {"accounts"},
    "authlib": {"accounts"},
    "botocore": {"storage/blobs"},
    "bson": {"moving/mongo_qdrant/sources"},
    "celery": {"jobs/engines/celery"},
    "croniter": {"schedules"},
    "cryptography": {"accounts"},
    "fastapi": {"web"},
    "feedparser": {"knowledge/sources"},
    "httptools": {"models/transport", "web"},
    "httpx2": {"accounts"},
    "joserfc": {"accounts"},
    "jsonschema": {"analysis"},
    "jwt": {"accounts"},
    "keyring": {"cli"},
    "kombu": {"jobs/engines/celery"},
    "lxml": {"campaigns/contacts/reading", "knowledge/parsers"},
    "markdown_it": {"web"},
    "nh3": {"web"},
    "numpy": {"knowledge", "chat/cache", "moving"},
    "onnx": {"knowledge/embedding"},
    "onnxruntime": {"knowledge/embedding"},
    "openpyxl": {"campaigns/contacts/reading", "knowledge/parsers"},
    "platformdirs": {"settings", "cli"},
    "psycopg": {"campaigns/databases", "storage/postgresql"},
    "pymongo": {"moving/mongo_qdrant/sources"},
    "pymysql": {"campaigns/databases"},
    "prometheus_client": {"telemetry"},
    "pydantic_settings": {"settings"},
    "pypdfium2": {"knowledge/parsers", "analysis"},
    "qdrant_client": {"moving/mongo_qdrant/sources"},
    "redis": {"accounts/limits/shared", "jobs/carriers"},
    "rich": {"cli"},
    "selectolax": {"knowledge/parsers", "knowledge/sources"},
    "sqlalchemy": ROOMS_WITH_TABLES,
    "sqlmodel": ROOMS_WITH_TABLES,
    "starlette": {"web"},
    "tokenizers": {"knowledge/embedding"},
    "typer": {"cli"},
    "uvloop": {"web", "cli"},
    "xllamacpp": {"models/providers"},
    "zxcvbn": {"accounts"},
}
BANNED_NAMES = {"utils", "helpers", "common", "manager", "misc"}
HANDLER_STATEMENTS = 8

FILES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "terrace" and len(parts) > 1 else None


@cache
def imports(path: Path) -> list[str]:
    """Every imported module, lazy and type-only ones included."""
    return list(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide direction"
            base = node.module or ""
            yield from (f"{base}.{alias.name}" for alias in node.names) if base == "terrace" else (base,)


def floor(room: str) -> int:
    return next(index for index, rooms in enumerate(FLOORS) if room in rooms)


def home(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").as_posix()


# Of hundreds of files, each question is one test, which tells all that are in its way.


def test_rooms_import_downwards_only() -> None:
    wrong = []
    for path in FILES:
        room = home(path).split("/")[0]
        for module in imports(path):
            target = room_of(module)
            if target is None or target in ("__version__", room) or (room, target) in DOORS:
                continue
            if floor(target) >= floor(room):
                wrong.append(f"{home(path)} imports {module}, which is not below it")
    assert wrong == []


def test_vendors_stay_in_their_room() -> None:
    wrong = []
    for path in FILES:
        where = home(path)
        for module in imports(path):
            allowed = VENDORS.get(module.split(".")[0])
            if allowed is None or where.split("/")[0] == "assembly":
                continue
            if not any(where == room or where.startswith(f"{room}/") for room in allowed):
                wrong.append(f"{where} imports {module}; only {', '.join(sorted(allowed))} may")
    assert wrong == []


def test_every_room_has_a_floor() -> None:
    rooms = {
        path.name.removesuffix(".py")
        for path in SOURCE.iterdir()
        if not path.name.startswith(("__init__", "__pycache__", "py.typed"))
    }
    assert rooms <= set().union(*FLOORS), rooms - set().union(*FLOORS)


def test_names_say_what_a_file_holds() -> None:
    assert [home(path) for path in FILES if path.stem in BANNED_NAMES] == []
    assert [home(path) for path in FILES if path.stem.endswith(("_v2", "_new", "_old"))] == []


def test_route_handlers_stay_small() -> None:
    paths = sorted((SOURCE / "web" / "api").glob("*.py"))
    assert paths
    large = []
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef) and any(map(_is_route, node.decorator_list)):
                statements = [each for each in node.body if not isinstance(each, ast.Expr) or not _is_docstring(each)]
                if len(statements) > HANDLER_STATEMENTS:
                    large.append(f"{home(path)}: {node.name} has {len(statements)} statements")
    assert large == []


def _is_route(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Call) and ast.unparse(decorator.func).startswith("router.")


def _is_docstring(node: ast.Expr) -> bool:
    return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)

"""`terrace ask` and `terrace chat`."""

import sys
from typing import Annotated, Any

import typer

from terrace.cli.client import Client, Server, connect
from terrace.cli.output import JSONFlag, console, emit, errors
from terrace.errors import Internal, Invalid, TerraceError, Unavailable

Model = Annotated[str | None, typer.Option("--model", "-m", help="Which model answers.")]
Collection = Annotated[list[str] | None, typer.Option("--collection", "-c", help="Answer from these collections.")]
Tag = Annotated[list[str] | None, typer.Option("--tag", "-t", help="Answer from documents with these tags.")]
Documents = Annotated[bool | None, typer.Option("--documents/--no-documents", help="Answer from documents or not.")]


def register(app: typer.Typer) -> None:
    app.command()(ask)
    app.command()(chat)


def ask(
    question: Annotated[str, typer.Argument(help="The question; - reads it from standard input.")],
    model: Model = None,
    collection: Collection = None,
    tag: Tag = None,
    documents: Documents = None,
    json: JSONFlag = False,
    server: Server = None,
) -> None:
    """Ask once; the answer streams, its sources follow."""
    if question == "-":
        question = sys.stdin.read()
    if not question.strip():
        raise Invalid('Ask something: terrace ask "What does the contract say about notice?"')
    body = _body(question, model, collection, tag, documents)
    with connect(server) as client:
        if json:
            emit(client.post("/api/chat", body))
        else:
            _answer(client, body)


def chat(
    model: Model = None,
    collection: Collection = None,
    tag: Tag = None,
    documents: Documents = None,
    server: Server = None,
) -> None:
    """Talk; the conversation is kept. An empty line or Ctrl-D ends it."""
    with connect(server) as client:
        conversation: str | None = None
        while True:
            try:
                message = console.input("[bold]you:[/] ")
            except EOFError:
                return
            if not message.strip():
                return
            body = _body(message, model, collection, tag, documents)
            if conversation:
                body["conversation_id"] = conversation
            try:
                conversation = _answer(client, body)
            except TerraceError as error:
                errors.print(error.message, style="red", markup=False)


def _body(
    message: str, model: str | None, collections: list[str] | None, tags: list[str] | None, documents: bool | None
) -> dict[str, Any]:
    body: dict[str, Any] = {"message": message, "collections": collections or [], "tags": tags or [], "stream": True}
    if model:
        body["model"] = model
    if documents is not None:
        body["use_rag"] = documents
    return body


def _answer(client: Client, body: dict[str, Any]) -> str:
    """Print an answer as it comes, then its sources; returns the conversation's id."""
    conversation, shown, sources = "", "", []
    for kind, data in client.events("/api/chat", body):
        if kind == "start":
            conversation = data["conversation_id"]
        elif kind == "reset" and shown:
            sys.stdout.write("\n[the answer begins again]\n")
            shown = ""
        elif kind == "text":
            shown += data["text"]
            sys.stdout.write(data["text"])
            sys.stdout.flush()
        elif kind == "answer":
            sources = data["sources"]
        elif kind == "error":
            sys.stdout.write("\n" if shown else "")
            raise (Invalid if data["kind"] == "invalid" else Unavailable)(data["message"], code=data["code"])
        elif kind == "done" and data.get("state") == "failed":
            raise Internal("The answer failed; `terrace jobs` tells why.")
    sys.stdout.write("\n")
    for source in sources:
        page = f", page {source['page']}" if source.get("page") else ""
        console.print(
            f"  [{source['n']}] {source['title'] or source['document_name']}{page}", markup=False, style="dim"
        )
    return conversation

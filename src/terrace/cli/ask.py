"""`terrace ask` and `terrace chat`."""

import sys
from contextlib import ExitStack
from typing import Annotated, Any

import typer

from terrace.cli.client import Client, path
from terrace.cli.connecting import Server, Tenant, connect
from terrace.cli.output import JSONFlag, complain, console, emit, plain, say, waiting
from terrace.errors import BY_KIND, Internal, Invalid, TerraceError

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
    tenant: Tenant = None,
) -> None:
    """Ask once; the answer streams, its sources follow. Ctrl-C stops it."""
    if question == "-":
        question = sys.stdin.buffer.read().decode("utf-8", "replace")
    if not question.strip():
        raise Invalid('Ask something: terrace ask "What does the contract say about notice?"')
    with connect(server, tenant, working=True) as client:
        answer = Answer(client, _body(question, model, collection, tag, documents), quiet=json)
        answer.follow()
        if json:
            emit({**client.get(path("jobs", answer.job))["result"], "job_id": answer.job})


def chat(
    model: Model = None,
    collection: Collection = None,
    tag: Tag = None,
    documents: Documents = None,
    server: Server = None,
    tenant: Tenant = None,
) -> None:
    """Talk; the conversation is kept. Ctrl-C stops an answer; an empty line or Ctrl-D ends it."""
    conversation = ""
    with connect(server, tenant, working=True) as client:
        while message := _said():
            body = _body(message, model, collection, tag, documents)
            answer = Answer(client, body | ({"conversation_id": conversation} if conversation else {}))
            try:
                answer.follow()
            except TerraceError as error:
                complain(error.message)
            except KeyboardInterrupt:
                say("[stopped]", "dim")
            conversation = answer.conversation or conversation


def _said() -> str:
    """The next line, or nothing at the end."""
    try:
        return (console.input("[bold]you:[/] ") if sys.stdin.isatty() else input()).strip()
    except (EOFError, KeyboardInterrupt):
        if sys.stdin.isatty():
            console.print()
        return ""


def _body(
    message: str, model: str | None, collections: list[str] | None, tags: list[str] | None, documents: bool | None
) -> dict[str, Any]:
    body: dict[str, Any] = {"message": message, "collections": collections or [], "tags": tags or [], "stream": True}
    if model:
        body["model"] = model
    if documents is not None:
        body["use_rag"] = documents
    return body


class Answer:
    """One answer, printed as it comes, then its sources."""

    def __init__(self, client: Client, body: dict[str, Any], *, quiet: bool = False) -> None:
        self.job = ""
        self.conversation = ""
        self._client = client
        self._body = body
        self._quiet = quiet
        self._shown = ""
        self._sources: list[dict[str, Any]] = []

    def follow(self) -> None:
        """To its end. Raises the error that ended it; KeyboardInterrupt stops it on the server, too."""
        try:
            with ExitStack() as until_text:
                until_text.enter_context(waiting("Reading and thinking"))
                for kind, data in self._client.events("/api/chat", self._body, on_job=self._begun):
                    if kind in ("text", "error", "done"):
                        until_text.close()
                    self._take(kind, data)
        except KeyboardInterrupt:
            self._break()
            if self.job:
                self._client.post(path("jobs", self.job, "cancel"))
            raise
        if not self._quiet:
            self._finish()

    def _begun(self, job: str) -> None:
        self.job = job

    def _take(self, kind: str, data: dict[str, Any]) -> None:
        match kind:
            case "start":
                self.conversation = data["conversation_id"]
            case "reset" if self._shown:
                self._print("\n[the answer begins again]\n")
                self._shown = ""
            case "text":
                self._shown += data["text"]
                self._print(data["text"])
            case "answer":
                self._sources = data["sources"]
            case "error":
                self._break()
                raise BY_KIND.get(data["kind"], Internal)(data["message"], code=data["code"])
            case "done" if data.get("state") != "succeeded":
                self._break()
                raise Internal(f"The answer was not finished; `terrace jobs show {self.job}` tells why.")

    def _print(self, text: str) -> None:
        if not self._quiet:
            sys.stdout.write(plain(text))
            sys.stdout.flush()

    def _break(self) -> None:
        if self._shown:
            self._print("\n")

    def _finish(self) -> None:
        self._print("\n")
        for source in self._sources:
            page = f", page {source['page']}" if source.get("page") else ""
            say(f"  [{source['n']}] {source['title'] or source['document_name']}{page}", "dim")

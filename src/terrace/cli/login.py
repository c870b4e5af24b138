"""`terrace login`, `terrace logout` and `terrace whoami`."""

from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from terrace.cli.asking import PasswordStdin, line, secret
from terrace.cli.client import Client
from terrace.cli.connecting import NEAR, Server, Tenant, connect, find
from terrace.cli.credentials import PATIENCE, Access, Key, Login, Terminal
from terrace.cli.logins import Logins, Saved
from terrace.cli.output import JSONFlag, complain, emit, say
from terrace.errors import Invalid, TerraceError, Unauthenticated

NAMELESS = {"terminal": "The operator", "key": "A key that is nobody's"}


def register(app: typer.Typer) -> None:
    app.command()(login)
    app.command()(logout)
    app.command()(whoami)


def login(
    email: Annotated[str | None, typer.Option("--email", help="Your e-mail address.")] = None,
    password_stdin: PasswordStdin = False,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Work in this one of your tenants.")] = None,
    server: Server = None,
) -> None:
    """Log in to a server; the login is kept in the system's keyring, or in a file only you can read."""
    client = _server(server)
    parts = urlsplit(client.url)
    if parts.scheme == "http" and parts.hostname not in NEAR:
        complain(f"Take care: the password goes to {client.url} without encryption; https would keep it private.")
    body = {"email": email or line("E-mail"), "password": secret("Password", stdin=password_stdin)}
    tokens = client.post("/api/auth/login", body)
    if tenant and tenant not in (tokens["tenant"]["id"], tokens["tenant"]["name"]):
        tokens = _switched(client.url, tokens, tenant)
    logins = Logins()
    with logins.lock(client.url):
        _end(client, logins)
        where = logins.put(Saved(client.url, tokens["user"]["email"], tokens["refresh_token"]))
    say(f"Logged in to {client.url} as {tokens['user']['email']}, {tokens['role']} of {tokens['tenant']['name']}.")
    say(f"The login is kept in {where}")


def _switched(url: str, tokens: dict[str, Any], tenant: str) -> dict[str, Any]:
    client = Client(url, Access(tokens["access_token"]), timeout=PATIENCE)
    mine = client.get("/api/auth/session")["tenants"]
    for each in mine:
        if tenant in (each["id"], each["name"]):
            switched: dict[str, Any] = client.post("/api/auth/switch", {"tenant": each["id"]})
            return switched
    client.post("/api/auth/logout", {"refresh_token": tokens["refresh_token"]})
    raise Invalid(f"You are no member of {tenant}; you may log in to {', '.join(each['name'] for each in mine)}.")


def logout(server: Server = None) -> None:
    """End the login at a server, there and here."""
    client = _server(server)
    logins = Logins()
    with logins.lock(client.url):
        ended = _end(client, logins)
    say(f"Logged out of {client.url}." if ended else f"You were not logged in to {client.url}.")


def _server(server: str | None) -> Client:
    found = find(server)
    if found is None:
        raise Invalid("Which server? Name it with --server or TERRACE_SERVER, or start one with `terrace serve`.")
    return Client(found.url, timeout=PATIENCE)


def _end(client: Client, logins: Logins) -> bool:
    """Whether there was a login. It is forgotten here even when the server can't be told."""
    try:
        saved = logins.get(client.url)
    except TerraceError as error:
        complain(f"The old login could not be read and is forgotten here alone: {error.message}")
        saved = None
    logins.remove(client.url)
    if saved is None:
        return False
    try:
        client.post("/api/auth/logout", {"refresh_token": saved.refresh_token})
    except Unauthenticated:
        pass  # it had ended there
    except TerraceError as error:
        complain(f"The login is forgotten here, but {client.url} could not be told: {error.message}")
    return True


def whoami(json: JSONFlag = False, server: Server = None, tenant: Tenant = None) -> None:
    """Who a server takes you for, and how it knows."""
    with connect(server, tenant) as client:
        session = client.get("/api/auth/session")
        if session["mode"] == "accounts" and session["role"] is None:
            raise Unauthenticated(client.credential.advice(client.url))
        session.pop("csrf", None)
        session = {"server": client.url, "by": _by(client), **session}
    if json:
        emit(session)
        return
    say(_told(session))
    if len(session["tenants"]) > 1:
        say(f"Your tenants: {', '.join(each['name'] for each in session['tenants'])}")


def _by(client: Client) -> str:
    match client.credential:
        case Key():
            return "key"
        case Login():
            return "login"
        case Terminal():
            return "terminal"
    return "nothing"


def _told(session: dict[str, Any]) -> str:
    """One sentence."""
    if session["mode"] != "accounts":
        return f"{session['server']} has no accounts yet; `terrace user add --owner` makes the first."
    user, tenant = session["user"], session["tenant"]
    how = {"key": "by the key in TERRACE_API_KEY", "login": "by login", "terminal": "by owning its data folder"}
    name = f"{user['name']} <{user['email']}>" if user else NAMELESS.get(session["by"], "somebody")
    where = f", {session['role']} of {tenant['name']}" if tenant and session["role"] else ""
    return f"{name}{where}, at {session['server']} {how.get(session['by'], '')}".rstrip() + "."

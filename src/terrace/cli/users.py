"""`terrace user`: the members of a tenant, invitations, and the accounts behind them."""

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import typer

from terrace.cli.asking import PasswordStdin, Yes, confirm, line, secret
from terrace.cli.client import Client, path
from terrace.cli.connecting import NEAR, Server, Tenant, connect
from terrace.cli.credentials import Terminal
from terrace.cli.naming import user_id
from terrace.cli.output import JSONFlag, details, emit, note, say, secret_out, table
from terrace.errors import Conflict, Invalid

Role = Literal["viewer", "member", "admin", "owner"]
User = Annotated[str, typer.Argument(metavar="USER", help="E-mail address, id, or me.")]
Email = Annotated[str | None, typer.Argument(metavar="[EMAIL]", help="Whom alone it lets in.")]
AsRole = Annotated[Role, typer.Option("--role", help="What they may do.")]

user = typer.Typer(help="People: list, add, invite, change, remove.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(user, name="user")


@user.command("list")
def list_users(json: JSONFlag = False, server: Server = None, tenant: Tenant = None) -> None:
    """The members of the tenant."""
    with connect(server, tenant) as client:
        members = list(client.items("/api/members"))
    if json:
        emit(members)
        return
    if not members:
        say("There are no members; `terrace user add --owner` makes the first account.")
        return
    table(("id", "e-mail", "name", "role", "last login", ""), (_row(each) for each in members))


def _row(member: dict[str, Any]) -> tuple[Any, ...]:
    who = member["user"]
    seen = (who["last_login_at"] or "never")[:10]
    return who["id"], who["email"], who["name"], member["role"], seen, "disabled" if who["disabled"] else ""


@user.command()
def add(
    email: Annotated[str | None, typer.Argument(metavar="[EMAIL]", help="Their e-mail address.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Their name.")] = None,
    role: AsRole = "member",
    owner: Annotated[bool, typer.Option("--owner", help="As owner; makes the first account, too.")] = False,
    by_invitation: Annotated[bool, typer.Option("--invite", help="Print a link; they choose the password.")] = False,
    password_stdin: PasswordStdin = False,
    json: JSONFlag = False,
    server: Server = None,
    tenant: Tenant = None,
) -> None:
    """Make an account. On a fresh installation --owner makes the first, who owns it."""
    role = "owner" if owner else role
    with connect(server, tenant) as client:
        session = client.get("/api/auth/session")
        fresh = session["mode"] != "accounts"
        if fresh and role != "owner":
            raise Invalid("There are no accounts yet, and the first one owns the installation: say --owner.")
        if by_invitation:
            if fresh:
                raise Conflict("The first account can't be invited: make it without --invite.", code="no_account")
            _invited(client, email, role, json=json)
            return
        email = email or line("E-mail")
        body = {"name": name or email.partition("@")[0], "email": email}
        body["password"] = secret("Password", stdin=password_stdin, again=True)
        if fresh:
            if session["setup_code_needed"] and not isinstance(client.credential, Terminal):
                body["setup_code"] = secret("Setup code (the server prints it)", stdin=password_stdin)
            made = client.post("/api/users", body)
        else:
            made = _registered(client, body, role)
    if json:
        emit(made)
    else:
        say(f"{made['email']} is here as {role}: {made['id']}")


def _registered(client: Client, body: dict[str, Any], role: str) -> Any:
    """By an invitation used at once: who may not invite may not add, whatever the rules of registration."""
    given = client.post("/api/invitations", {"email": body["email"], "role": role})
    try:
        return client.post("/api/users", {**body, "invitation": given["token"]})
    except BaseException:
        client.send("DELETE", path("invitations", given["invitation"]["id"]))
        raise


@user.command()
def invite(
    email: Email = None,
    role: AsRole = "member",
    json: JSONFlag = False,
    server: Server = None,
    tenant: Tenant = None,
) -> None:
    """Print a link that lets somebody join: the link alone on standard output."""
    with connect(server, tenant) as client:
        _invited(client, email, role, json=json)


def _invited(client: Client, email: str | None, role: str, *, json: bool) -> None:
    made = client.post("/api/invitations", {"role": role, **({"email": email} if email else {})})
    if json:
        emit(made)
        return
    until = str(made["invitation"]["expires_at"])[:16].replace("T", " ")
    _link_out(made["url"], f"Good once, until {until}, to join as {role}" + (f", for {email} alone:" if email else ":"))


@user.command()
def invitations(
    revoke: Annotated[str | None, typer.Option("--revoke", metavar="ID", help="Take this one back.")] = None,
    json: JSONFlag = False,
    server: Server = None,
    tenant: Tenant = None,
) -> None:
    """Invitations nobody has used yet."""
    with connect(server, tenant) as client:
        if revoke:
            client.send("DELETE", path("invitations", revoke))
        items = list(client.items("/api/invitations"))
    if json:
        emit(items)
        return
    columns = ("id", "for", "role", "until")
    table(columns, ((each["id"], each["email"] or "anybody", each["role"], each["expires_at"][:10]) for each in items))


@user.command()
def show(who: User, json: JSONFlag = False, server: Server = None, tenant: Tenant = None) -> None:
    """Everything about one account."""
    with connect(server, tenant) as client:
        found = client.get(path("users", user_id(client, who)))
    if json:
        emit(found)
    else:
        details(found)


@user.command()
def role(who: User, role: Role, json: JSONFlag = False, server: Server = None, tenant: Tenant = None) -> None:
    """Change what somebody may do in the tenant."""
    with connect(server, tenant) as client:
        found = user_id(client, who)
        client.send("PATCH", path("members", found), {"role": role})
    if json:
        emit({"id": found, "role": role})
    else:
        say(f"{who} is {role} now.")


@user.command()
def remove(who: User, yes: Yes = False, server: Server = None, tenant: Tenant = None) -> None:
    """Take somebody out of the tenant; their account stays."""
    with connect(server, tenant) as client:
        found = user_id(client, who)
        confirm(f"{who} would leave the tenant, and their API keys in it end.", yes=yes)
        client.send("DELETE", path("members", found))
    say(f"{who} is no member any more.")


@user.command("reset-link")
def reset_link(who: User, json: JSONFlag = False, server: Server = None, tenant: Tenant = None) -> None:
    """Print a link to a new password: the link alone on standard output."""
    with connect(server, tenant) as client:
        made = client.post(path("users", user_id(client, who), "reset-link"))
    if json:
        emit(made)
        return
    _link_out(made["url"], f"Good once, until {str(made['expires_at'])[:16].replace('T', ' ')}, for {who}:")


@user.command()
def disable(
    who: User,
    enable: Annotated[bool, typer.Option("--enable", help="Let them in again.")] = False,
    json: JSONFlag = False,
    server: Server = None,
    tenant: Tenant = None,
) -> None:
    """Let somebody in no more, in any tenant; --enable takes it back."""
    with connect(server, tenant) as client:
        changed = client.send("PATCH", path("users", user_id(client, who)), {"disabled": not enable})
    if json:
        emit(changed)
    else:
        say(f"{who} may log in again." if enable else f"{who} is disabled.")


@user.command()
def erase(who: User, yes: Yes = False, server: Server = None, tenant: Tenant = None) -> None:
    """Delete an account and all that is theirs; what they used stays counted, without their name."""
    with connect(server, tenant) as client:
        found = user_id(client, who)
        confirm(f"The account {who} and all that is theirs would be deleted.", yes=yes)
        client.send("DELETE", path("users", found))
    say(f"{who} is erased.")


def _link_out(url: str, what: str) -> None:
    """A link for somebody, alone on standard output; `what` it is and whether they can open it on standard error."""
    note(what)
    if urlsplit(url).hostname in NEAR:
        note(
            "It opens on the server's own machine only. For others, set TERRACE_WEB__PUBLIC_URL to the address "
            "by which they reach it and start the server again, or put that address in the link yourself."
        )
    secret_out(url)

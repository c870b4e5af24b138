"""`terrace usage prices`: what a million tokens of a model cost."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from terrace.cli.connecting import Server, connect
from terrace.cli.output import JSONFlag, emit, say, table

Model = Annotated[str, typer.Argument(metavar="MODEL", help="Such as openai/gpt-4o-mini.")]
MOST = 1_000_000.0  # dollars

prices = typer.Typer(help="Prices, in dollars a million tokens.", invoke_without_command=True)


@prices.callback()
def list_prices(
    context: typer.Context,
    search: Annotated[str | None, typer.Option("--search", "-q", help="Part of a model's name.")] = None,
    json: JSONFlag = False,
    server: Server = None,
) -> None:
    """The prices in force."""
    context.obj = server or context.obj
    if context.invoked_subcommand:
        return
    with connect(context.obj) as client:
        items = [each for each in client.get("/api/prices")["items"] if not search or search in each["model"]]
    if json:
        emit(items)
    else:
        columns = ("model", "input", "cached", "output", "as of", "source")
        table(columns, (_row(each) for each in items))


def _row(price: dict[str, Any]) -> tuple[Any, ...]:
    dollars = (f"${price[name]:g}" for name in ("input", "cached", "output"))
    return price["model"], *dollars, price["dated"], price["source"]


@prices.command("set")
def set_price(
    context: typer.Context,
    model: Model,
    input: Annotated[float, typer.Option("--input", min=0.0, max=MOST, help="What goes in.")],
    output: Annotated[float, typer.Option("--output", min=0.0, max=MOST, help="What comes out.")],
    cached: Annotated[
        float | None, typer.Option("--cached", min=0.0, max=MOST, help="What goes in and the provider knew.")
    ] = None,
    json: JSONFlag = False,
    server: Server = None,
) -> None:
    """Set a model's price, in dollars a million tokens; it counts for calls from now on."""
    body = {"input": input, "output": output, **({"cached": cached} if cached is not None else {})}
    with connect(server or context.obj) as client:
        price = client.send("PUT", _path(model), body)
    if json:
        emit(price)
    else:
        say(f"{model} costs ${input:g} in and ${output:g} out, a million tokens.")


@prices.command()
def remove(context: typer.Context, model: Model, server: Server = None) -> None:
    """Forget a price that was set; one that is shipped counts again."""
    with connect(server or context.obj) as client:
        client.send("DELETE", _path(model))
    say(f"The price that was set for {model} is forgotten.")


def _path(model: str) -> str:
    return f"/api/prices/{quote(model, safe='/')}"

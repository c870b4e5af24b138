"""Canaille, a real OpenID provider, in a process of its own: `python provider.py <client id> <secret> <redirect uri>`.

Prints its address as one line and ends when its standard input does. Instead of a password, a browser says who sits
before it in the header `X-User`. `ada` has an e-mail address that is verified, `bob` one that is not.
"""

import datetime
import os
import sys
import threading
import uuid
from wsgiref.simple_server import WSGIRequestHandler, make_server

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"  # loopback has no https

from canaille import create_app
from canaille.app import models
from canaille.app.session import UserSession
from canaille.backends import Backend
from flask import g, request
from joserfc.jwk import RSAKey

SCOPES = ["openid", "email", "profile"]


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def main(client_id: str, secret: str, redirect_uri: str) -> None:
    server = make_server("127.0.0.1", 0, lambda environ, start: [], handler_class=Quiet)
    host = f"127.0.0.1:{server.server_port}"
    key = RSAKey.generate_key(2048, {"kid": "first", "alg": "RS256", "use": "sig"})
    app = create_app(
        config={
            "TESTING": True,
            "ENV_FILE": None,
            "SECRET_KEY": str(uuid.uuid4()),
            "WTF_CSRF_ENABLED": False,
            "PREFERRED_URL_SCHEME": "http",
            "SERVER_NAME": host,
            "CANAILLE": {"DATABASE": "memory", "JAVASCRIPT": False, "ACL": {"DEFAULT": {"PERMISSIONS": ["use_oidc"]}}},
            "CANAILLE_OIDC": {"ACTIVE_JWKS": [key.as_dict(private=True)]},
        }
    )
    verified = "{% if user.user_name == 'ada' %}true{% endif %}"
    app.config["CANAILLE_OIDC"]["USERINFO_MAPPING"]["EMAIL_VERIFIED"] = verified
    with app.app_context():
        people = {name: person(name) for name in ("ada", "bob")}
        client = models.Client(
            client_id=client_id,
            client_secret=secret,
            client_name="Terrace",
            client_uri="http://127.0.0.1",
            redirect_uris=[redirect_uri],
            grant_types=["authorization_code"],
            response_types=["code"],
            scope=SCOPES,
            token_endpoint_auth_method="client_secret_basic",
            id_token_signed_response_alg="RS256",
            client_id_issued_at=datetime.datetime.now(datetime.UTC),
        )
        Backend.instance.save(client)
        client.audience = [client]
        Backend.instance.save(client)
        for each in people.values():
            agreed = models.Consent(
                consent_id=str(uuid.uuid4()),
                client=client,
                subject=each,
                scope=SCOPES,
                issue_date=datetime.datetime.now(datetime.UTC),
            )
            Backend.instance.save(agreed)

    @app.before_request
    def forget_codes() -> None:
        """Its memory finds a code by its client alone, any of those waiting: so there is never more than one."""
        if request.path == "/oauth/authorize":
            for code in Backend.instance.query(models.AuthorizationCode):
                Backend.instance.delete(code)

    @app.before_request
    def log_in() -> None:
        user = people.get(request.headers.get("X-User", ""))
        if user is not None:
            g.session = UserSession(user=user, last_login_datetime=datetime.datetime.now(datetime.UTC))

    @app.after_request
    def log_out(response: object) -> object:
        g.session = None
        return response

    server.set_app(app)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://{host}", flush=True)
    sys.stdin.read()
    server.shutdown()


def person(name: str) -> models.User:
    user = models.User(
        user_name=name,
        formatted_name=f"{name.title()} Example",
        family_name="Example",
        emails=[f"{name}@example.org"],
    )
    Backend.instance.save(user)
    return user


if __name__ == "__main__":
    main(*sys.argv[1:])

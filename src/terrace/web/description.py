"""The OpenAPI document: what FastAPI knows of the routes, and who may call each."""

from typing import Any

from fastapi import FastAPI

from terrace.web.rules import RULES

SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An access token or an API key (`trc_...`)."},
    "token": {"type": "apiKey", "in": "header", "name": "x-access-token", "description": "An access token."},
    "key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "An API key."},
}
ANY: list[dict[str, list[str]]] = [{name: []} for name in SCHEMES]
"""Any one of them will do."""


class Described(FastAPI):
    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            document.setdefault("components", {})["securitySchemes"] = SCHEMES
            for name, rule in RULES.items():
                method, _, path = name.replace(":path}", "}").partition(" ")
                operation = document["paths"].get(path, {}).get(method.lower())
                if operation is not None and rule != "public":
                    operation["security"] = ANY
                    if rule != "anyone":
                        operation["x-permission"] = rule
        assert self.openapi_schema is not None
        return self.openapi_schema

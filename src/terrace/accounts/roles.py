"""What each role may do. This table is the only one; docs/accounts.md shows it, `web.access` asks it."""

from typing import Literal, get_args

Permission = Literal[
    "chat",  # ask, and keep one's own conversations and questions; /v1
    "documents:read",  # read and search what the tenant has
    "documents:write",  # add, change and delete it
    "analyses",  # have documents analysed
    "campaigns",  # contacts, templates, and messages written in bulk
    "sources",  # schedules, watched folders and sites, the index's health and generations
    "webhooks",  # where the tenant's events go
    "keys",  # make API keys of one's own
    "jobs:all",  # see that others' jobs run, stop and repeat them; not what they say
    "members",  # invite, change roles, remove; see and revoke everybody's keys
    "limits",  # set the limits of the tenant's users and keys
    "usage:all",  # what everybody of the tenant used
    "audit",  # read the audit log
    "tenant",  # rename and export the tenant
    "operator",  # all tenants, their limits and bills; prices; models; metrics
]
Role = Literal["viewer", "member", "admin", "owner"]

PERMISSIONS: frozenset[Permission] = frozenset(get_args(Permission))

_VIEWER: frozenset[Permission] = frozenset({"documents:read"})
_MEMBER: frozenset[Permission] = _VIEWER | {"chat", "documents:write", "analyses", "campaigns", "keys"}
_ADMIN: frozenset[Permission] = _MEMBER | {"sources", "webhooks", "jobs:all", "members", "limits", "usage:all"}
_OWNER: frozenset[Permission] = _ADMIN | {"audit", "tenant"}

ROLES: dict[Role, frozenset[Permission]] = {"viewer": _VIEWER, "member": _MEMBER, "admin": _ADMIN, "owner": _OWNER}
"""An owner of the tenant `default` is the installation's operator too."""

FAMILIES: dict[str, frozenset[Permission]] = {
    "documents": frozenset({"documents:read", "documents:write"}),
    "admin": frozenset({"jobs:all", "members", "limits", "usage:all", "audit", "tenant", "operator"}),
}
"""Short names for several, in the scopes of a key."""

RANK: dict[Role, int] = {"viewer": 0, "member": 1, "admin": 2, "owner": 3}
"""Nobody gives or takes a role above their own."""


def permissions(role: Role, *, operator: bool = False) -> frozenset[Permission]:
    return ROLES[role] | {"operator"} if operator else ROLES[role]

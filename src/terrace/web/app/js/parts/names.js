// Who stands behind an id: members and keys, read once when somebody may see them.

import { accounts } from "../accounts.js";
import { can, session } from "../session.js";

const people = new Map();
const keys = new Map();
let reading = null;

// Reads what may be read. `fresh` reads it again.
export function learnNames(fresh = false) {
  if (fresh) reading = null;
  reading ??= Promise.all([
    can("members") && session().mode === "accounts"
      ? accounts.members({ limit: 200 }).then(({ items }) => items.forEach(({ user }) => people.set(user.id, user)))
      : null,
    accounts
      .keys({ all: can("members") ? "true" : null, limit: 200 })
      .then(({ items }) => items.forEach((key) => keys.set(key.id, key))),
  ]).catch(() => {
    reading = null; // names are a courtesy; without them the ids are shown
  });
  return reading;
}

export const knownPeople = () => [...people.values()];
export const knownKeys = () => [...keys.values()];

// The name behind an id: `by` makes "by you" of it.
export function nameOf(id, { by = false } = {}) {
  const { user, tenant } = session();
  const said = (name) => (by ? `by ${name}` : name);
  if (!id) return said("nobody");
  if (id === "terminal") return by ? "at the terminal" : "The terminal";
  if (id === "local") return by ? "before there were accounts" : "Local use";
  if (id === user?.id) return by ? "by you" : "You";
  if (id === tenant?.id) return said(tenant.name);
  if (people.has(id)) return said(people.get(id).name);
  if (keys.has(id)) return said(`the key ${keys.get(id).name}`);
  if (id.startsWith("usr_")) return said(can("members") ? `a former member (${id})` : "an administrator");
  if (id.startsWith("key_")) return said(`the key ${id}`);
  return said(id);
}

// "tenant", "user:usr_...", "key:key_..." as a heading.
export function subjectName(subject) {
  const { user, tenant } = session();
  const [kind, id] = subject.split(":");
  if (kind === "tenant") return session().mode === "local" ? "This installation" : (tenant?.name ?? "The tenant");
  if (kind === "key") return keys.get(id)?.name ?? id;
  return id === user?.id ? `${user.name} (you)` : (people.get(id)?.name ?? id);
}

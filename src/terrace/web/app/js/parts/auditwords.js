// Acts of the audit log as sentences.

import { h } from "../dom.js";
import { roleName } from "../words.js";
import { LIMITS } from "./limitwords.js";
import { nameOf } from "./names.js";

// What one may filter by: the first part of an action.
export const KINDS = {
  user: "People",
  session: "Logins",
  password: "Passwords",
  member: "Members",
  invitation: "Invitations",
  key: "Keys",
  limits: "Limits",
  tenant: "Tenants",
  price: "Prices",
};

const whom = (entry) => (entry.subject === entry.actor ? "their own account" : nameOf(entry.subject));
const key = ({ subject, detail }) => `the key ${detail.name ?? nameOf(subject).replace(/^the key /, "")}`;
const role = ({ detail }) => roleName(detail.role).toLowerCase();

// action -> what was done, said after the name of whoever did it.
const DONE = {
  "user.registered": () => "made an account",
  "user.created": () => "made an account",
  "user.renamed": (entry) => `changed the name of ${whom(entry)}`,
  "user.disabled": (entry) => `disabled ${nameOf(entry.subject)}`,
  "user.enabled": (entry) => `enabled ${nameOf(entry.subject)} again`,
  "user.erased": (entry) => `erased ${entry.subject === entry.actor ? "their account" : "an account"}`,
  "session.opened": () => "logged in",
  "session.revoked": () => "ended a login",
  "session.reused": () => "lost a login: its refresh token was used twice",
  "password.changed": () => "changed their password",
  "password.reset": () => "chose a new password by a link",
  "password.link": (entry) => `made a link to a new password for ${nameOf(entry.subject)}`,
  "member.added": (entry) => `became ${role(entry)}`,
  "member.joined": (entry) => `joined as ${role(entry)}`,
  "member.role": (entry) => `made ${nameOf(entry.subject)} ${role(entry)}`,
  "member.removed": (entry) => `removed ${nameOf(entry.subject)}`,
  "invitation.created": ({ detail }) => `invited ${detail.email ?? "somebody"} as ${roleName(detail.role).toLowerCase()}`,
  "invitation.revoked": () => "took back an invitation",
  "invitation.accepted": () => "accepted an invitation",
  "key.created": (entry) => `made ${key(entry)}`,
  "key.changed": (entry) => `changed ${key(entry)}`,
  "key.rotated": (entry) => `gave ${key(entry)} a new secret`,
  "key.revoked": (entry) => `revoked ${key(entry)}`,
  "limits.changed": (entry) => `set limits for ${subject(entry.subject)}${values(entry.detail)}`,
  "tenant.created": ({ detail }) => `made the tenant ${detail.name ?? ""}`.trim(),
  "tenant.renamed": ({ detail }) => `renamed the tenant${detail.name ? ` to ${detail.name}` : ""}`,
  "tenant.changed": () => "changed the tenant",
  "tenant.disabled": () => "disabled the tenant",
  "tenant.enabled": () => "enabled the tenant again",
  "tenant.deleted": ({ detail }) => `deleted the tenant ${detail.name ?? ""}`.trim(),
  "tenant.exported": () => "exported the tenant",
  "price.set": ({ subject: model }) => `set the price of ${model}`,
  "price.removed": ({ subject: model }) => `took away the price of ${model}`,
};

const subject = (text) => (text.includes(":") ? nameOf(text.split(":")[1]) : nameOf(text) === text ? "the tenant" : nameOf(text));

// ": 60 requests a minute, no more limit of documents", from {name: value or null}.
function values(detail) {
  const named = Object.entries(detail.values ?? detail).filter(([name]) => LIMITS[name]);
  const words = named.map(([name, value]) => {
    const { label, format } = LIMITS[name];
    return value === null ? `no limit of ${label.toLowerCase()}` : `${label.toLowerCase()} ${format(value)}`;
  });
  return words.length ? `: ${words.join(", ")}` : "";
}

// An act as nodes: who, what. What this page doesn't know yet is told as it is stored.
export function sentence(entry) {
  const who = h("b", null, nameOf(entry.actor));
  const by = entry.key_id && entry.key_id !== entry.subject ? ` (with ${nameOf(entry.key_id)})` : "";
  const done = DONE[entry.action];
  return done ? [who, by, ` ${done(entry)}`] : [who, by, " ", h("code", null, entry.action), ` ${nameOf(entry.subject)}`];
}

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
  job: "Jobs",
};

const own = ({ subject, actor }) => subject === actor;
const named = ({ subject }) => nameOf(subject);
const key = ({ subject, detail }) => `the key ${detail.name ?? nameOf(subject).replace(/^the key /, "")}`;
const roleWord = (role) => roleName(role).toLowerCase();

// action -> what was done, said after the name of whoever did it.
const DONE = {
  "user.registered": (act) => `made an account${own(act) ? "" : ` for ${named(act)}`} as ${roleWord(act.detail.role)}`,
  "user.renamed": (act) => `changed ${own(act) ? "their name" : `the name of ${named(act)}`}`,
  "user.disabled": (act) => `disabled ${named(act)}`,
  "user.enabled": (act) => `enabled ${named(act)} again`,
  "user.erased": (act) => `erased ${own(act) ? "their account" : "an account"}`,
  "user.reset_link": (act) => `made a link to a new password for ${named(act)}`,
  "session.reused": () => "lost a login: its refresh token was used twice",
  "password.changed": () => "changed their password",
  "password.reset": () => "chose a new password by a link",
  "member.joined": ({ detail }) => `joined as ${roleWord(detail.role)}`,
  "member.role_changed": (act) =>
    `made ${named(act)} ${roleWord(act.detail.after)} (was ${roleWord(act.detail.before)})`,
  "member.removed": (act) => (own(act) ? "left" : `removed ${named(act)}`),
  "invitation.created": ({ detail }) => `invited somebody as ${roleWord(detail.role)}`,
  "invitation.revoked": () => "took back an invitation",
  "key.created": (act) => `made ${key(act)}`,
  "key.changed": (act) => `changed ${key(act)}`,
  "key.rotated": (act) => `gave ${key(act)} a new secret`,
  "key.revoked": (act) => `revoked ${key(act)}`,
  "limits.changed": (act) => `set limits for ${limited(act)}${values(act.detail)}`,
  "tenant.created": ({ detail }) => `made the tenant ${detail.name}`,
  "tenant.changed": (act) => changed(act),
  "tenant.exported": ({ detail }) => `exported ${detail.in_tenant ? `the tenant ${detail.in_tenant}` : "the tenant"}`,
  "tenant.deleted": ({ detail }) => `deleted the tenant ${detail.name}`,
  "price.set": ({ subject: model, detail }) => `set the price of ${model}: $${detail.input} in, $${detail.output} out`,
  "job.cancelled": () => "stopped a job of somebody else",
  "job.retried": () => "ran a job of somebody else again",
  "price.removed": ({ subject: model }) => `took away the price of ${model}`,
};

function changed({ subject: id, detail }) {
  const tenant = detail.in_tenant ?? nameOf(id);
  if (detail.disabled === true) return `disabled the tenant ${tenant}`;
  if (detail.disabled === false) return `enabled the tenant ${tenant} again`;
  const models = detail.models && `its models to ${detail.models.join(", ") || "all"}`;
  return `changed the tenant ${tenant}: ${[detail.name && `its name to ${detail.name}`, models].filter(Boolean).join(", ")}`;
}

// Whose limits, with the tenant where it is another than one's own.
function limited({ subject, detail }) {
  if (subject.includes(":")) return `${nameOf(subject.split(":")[1])}${detail.in_tenant ? ` of ${detail.in_tenant}` : ""}`;
  return `the tenant${detail.in_tenant ? ` ${detail.in_tenant}` : ""}`;
}

// Acts whose sentences don't say by themselves in which other tenant they were done.
const PLACELESS = ["invitation.created", "invitation.revoked", "user.registered"];
const place = ({ action, detail }) => (detail.in_tenant && PLACELESS.includes(action) ? ` in ${detail.in_tenant}` : "");

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
  return done
    ? [who, by, ` ${done(entry)}${place(entry)}`]
    : [who, by, " ", h("code", null, entry.action), ` ${nameOf(entry.subject)}`];
}

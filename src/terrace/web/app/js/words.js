// Permissions, roles and refusals in plain words.

import { session } from "./session.js";

// What a key may be given, and what that means. In the order in which they are offered.
export const PERMISSIONS = {
  chat: ["Ask", "Chat, questions and the OpenAI-compatible /v1"],
  "documents:read": ["Read documents", "List, open and search what is in the collections"],
  "documents:write": ["Change documents", "Upload, tag, move and delete"],
  analyses: ["Analyse documents", "Have files looked at by a model, and read the results"],
  campaigns: ["Run campaigns", "Contacts, templates, and messages written in bulk"],
  sources: ["Manage sources", "Schedules, watched folders and sites, other databases, and the index's health"],
  webhooks: ["Manage webhooks", "Where the tenant's events go"],
  keys: ["Manage keys", "Make, change and revoke API keys of yours"],
  "jobs:all": ["See all jobs", "See, stop and repeat what others have running"],
  members: ["Manage members", "Invite, change roles, remove, and revoke anybody's keys"],
  limits: ["Set limits", "For the tenant's members and keys"],
  "usage:all": ["See all usage", "What everybody used and what it cost"],
  audit: ["Read the audit log", "Every administrative act"],
  tenant: ["Manage the tenant", "Rename, export and delete it"],
  operator: ["Operate the installation", "All tenants, their limits and bills, prices and models"],
};

// Short names for several permissions, as programs give them to keys.
export const FAMILIES = {
  documents: { name: "All of documents", has: ["documents:read", "documents:write"] },
  admin: {
    name: "All of administration",
    has: ["jobs:all", "members", "limits", "usage:all", "audit", "tenant", "operator"],
  },
};

export const ROLES = {
  viewer: ["Viewer", "reads and searches documents"],
  member: ["Member", "asks, adds and analyses documents, runs campaigns, makes keys of their own"],
  admin: ["Admin", "also manages sources, webhooks, members, limits and everybody's jobs and usage"],
  owner: ["Owner", "everything, the audit log and the tenant itself included"],
};
const RANKS = Object.keys(ROLES);

export const roleName = (role) => ROLES[role]?.[0] ?? role;

// The roles one may give: none above one's own.
export const rolesToGive = () => RANKS.slice(0, RANKS.indexOf(session().role ?? "owner") + 1);

const WHO = {
  operator: "an operator of this installation",
  tenant: "an owner",
  audit: "an owner",
  keys: "a member, an admin or an owner",
  chat: "a member, an admin or an owner",
  "documents:write": "a member, an admin or an owner",
};

// What is missing, to whoever was refused.
export function lacks({ permission, message }) {
  if (!permission) return message;
  const [name] = PERMISSIONS[permission] ?? [permission];
  const { role, tenant } = session();
  const mine = role ? ` You are ${article(roleName(role).toLowerCase())} of ${tenant?.name ?? "this tenant"}.` : "";
  return `“${name}” is for ${WHO[permission] ?? "an admin or an owner"}.${mine}`;
}

const article = (word) => (/^[aeiou]/.test(word) ? `an ${word}` : `a ${word}`);

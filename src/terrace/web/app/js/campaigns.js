// The calls of campaigns: contacts, templates, databases, and the campaigns themselves.

import { get, id, problemOf, query, request } from "./api.js";
import { send } from "./http.js";

const post = (path, body = {}, headers = {}) => request("POST", path, { body, headers });
const patch = (path, body) => request("PATCH", path, { body });
const remove = (path) => request("DELETE", path);
const at = (key, rest = "") => `/api/campaigns/${id(key)}${rest}`;
const message = (key, one, rest = "") => at(key, `/messages/${id(one)}${rest}`);

// A table of people in a file: `fields` are {list, mapping, dry_run, ...}.
async function sendFile(file, fields, signal) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  form.append("file", file, file.name);
  const headers = { Accept: "application/json" };
  const response = await send("/api/contacts/import", { method: "POST", body: form, headers, signal });
  if (!response.ok) throw await problemOf(response);
  return response.json();
}

export const campaigns = {
  list: (params, signal) => get("/api/campaigns", params, signal),
  create: (body, key) => post("/api/campaigns", body, { "Idempotency-Key": key }),
  get: (key, signal) => get(at(key), null, signal),
  change: (key, body) => patch(at(key), body),
  remove: (key) => remove(at(key)),
  preview: (key, body) => post(at(key, "/preview"), body),
  act: (key, verb) => post(at(key, `/${verb}`)), // start, pause, resume, cancel, retry, approve
  eventsUrl: (key) => at(key, "/events"),
  exportUrl: (key, params) => query(at(key, "/export"), params),
  messages: (key, params, signal) => get(at(key, "/messages"), params, signal),
  message: (key, one, signal) => get(message(key, one), null, signal),
  edit: (key, one, text) => patch(message(key, one), { text }),
  approve: (key, one) => post(message(key, one, "/approve")),
  regenerate: (key, one) => post(message(key, one, "/regenerate")),
};

export const templates = {
  list: (params, signal) => get("/api/templates", params, signal),
  get: (key, version, signal) => get(`/api/templates/${id(key)}`, { version }, signal),
  versions: (key, params, signal) => get(`/api/templates/${id(key)}/versions`, params, signal),
  create: (body) => post("/api/templates", body),
  change: (key, body) => patch(`/api/templates/${id(key)}`, body),
  remove: (key) => remove(`/api/templates/${id(key)}`),
  check: (body, signal) => request("POST", "/api/templates/check", { body, signal }),
};

export const contacts = {
  list: (params, signal) => get("/api/contacts", params, signal),
  get: (key, signal) => get(`/api/contacts/${id(key)}`, null, signal),
  create: (body) => post("/api/contacts", body),
  change: (key, body) => patch(`/api/contacts/${id(key)}`, body),
  remove: (key) => remove(`/api/contacts/${id(key)}`),
  fields: (list, signal) => get("/api/contacts/fields", { list }, signal),
  lists: (signal) => get("/api/contact-lists", null, signal),
  removeList: (key) => remove(`/api/contact-lists/${id(key)}`),
};

export const databases = {
  list: (signal) => get("/api/databases", null, signal),
  add: (body) => post("/api/databases", body),
  remove: (key) => remove(`/api/databases/${id(key)}`),
  query: (key, text) => post(`/api/databases/${id(key)}/query`, { query: text }),
};

// Where people come in from: `examine(mapping)` says what an import would do, `bring(mapping, list)` begins it.
export const fromFile = (file) => ({
  name: file.name,
  examine: (mapping, signal) => sendFile(file, { mapping: JSON.stringify(mapping), dry_run: "true" }, signal),
  bring: (mapping, list) => sendFile(file, { mapping: JSON.stringify(mapping), list }),
});

export const fromDatabase = (database, text) => ({
  name: database.name,
  examine: (mapping) => post(`/api/databases/${id(database.id)}/import`, { query: text, mapping, dry_run: true }),
  bring: (mapping, list) => post(`/api/databases/${id(database.id)}/import`, { query: text, mapping, list }),
});

// The public HTTP API. Every failure becomes a Problem whose message is a sentence for the person.

import { connection } from "./connection.js";
import { send } from "./http.js";

// `fields` are the errors of single fields ({field, message}); `limit` tells what is used up ({limit, subject, ...}).
export class Problem extends Error {
  constructor(message, { status = 0, code = "unreachable", kind = "unavailable", ...rest } = {}) {
    super(message);
    Object.assign(this, { retryAfter: null, permission: null, fields: [], limit: null, ...rest, status, code, kind });
  }
}

export async function problemOf(response) {
  let body = {};
  try {
    body = await response.json();
  } catch {
    /* not ours: a proxy's page, say */
  }
  const message =
    body.detail || body.error?.message || `The server answered ${response.status} ${response.statusText}.`;
  return new Problem(message, {
    status: response.status,
    code: body.code,
    kind: body.kind,
    retryAfter: Number(body.retry_after ?? response.headers.get("retry-after")) || null,
    permission: body.permission ?? null,
    fields: body.errors ?? [],
    limit: body.limit ? body : null,
  });
}

export async function request(method, path, { body, signal, headers } = {}) {
  let response;
  try {
    response = await send(path, {
      method,
      signal,
      headers: {
        Accept: "application/json",
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        ...headers,
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    connection.lost();
    throw new Problem("The server can't be reached. Is it still running?");
  }
  connection.found();
  if (!response.ok) throw await problemOf(response);
  return response.status === 204 ? null : response.json();
}

export function query(path, params) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(params ?? {})) {
    if (value !== null && value !== undefined && value !== "") search.set(name, value);
  }
  const text = search.toString();
  return text ? `${path}?${text}` : path;
}

export const get = (path, params, signal) => request("GET", query(path, params), { signal });
export const id = encodeURIComponent;

export const api = {
  status: (signal) => get("/api/status", null, signal),
  models: (signal) => get("/api/models", null, signal),
  pull: (model) => request("POST", "/api/models/pull", { body: { model } }),

  conversations: (params, signal) => get("/api/conversations", params, signal),
  conversation: (key, signal) => get(`/api/conversations/${id(key)}`, null, signal),
  changeConversation: (key, body) => request("PATCH", `/api/conversations/${id(key)}`, { body }),
  deleteConversation: (key) => request("DELETE", `/api/conversations/${id(key)}`),
  exportUrl: (key, format) => `/api/conversations/${id(key)}/export?format=${format}`,
  regenerate: (key, body) => request("POST", `/api/conversations/${id(key)}/regenerate`, { body }),

  documents: (params, signal) => get("/api/documents", params, signal),
  document: (key, signal) => get(`/api/documents/${id(key)}`, null, signal),
  changeDocument: (key, body) => request("PATCH", `/api/documents/${id(key)}`, { body }),
  deleteDocument: (key) => request("DELETE", `/api/documents/${id(key)}`),
  reprocess: (key) => request("POST", `/api/documents/${id(key)}/reprocess`),
  originalUrl: (key) => `/api/documents/${id(key)}/original`,
  text: (key, start, end, signal) => get(`/api/documents/${id(key)}/text`, { start, end }, signal),
  pages: (key, signal) => get(`/api/documents/${id(key)}/pages`, null, signal),
  pageUrl: (key, page, params) => query(`/api/documents/${id(key)}/pages/${page}.png`, params),
  marks: (key, page, params, signal) => get(`/api/documents/${id(key)}/pages/${page}/marks`, params, signal),

  collections: (signal) => get("/api/collections", null, signal),
  createCollection: (name) => request("POST", "/api/collections", { body: { name } }),
  deleteCollection: (key) => request("DELETE", `/api/collections/${id(key)}`),
  tags: (signal) => get("/api/tags", null, signal),
  search: (body, signal) => request("POST", "/api/search", { body, signal }),

  jobs: (params, signal) => get("/api/jobs", params, signal),
  job: (key, signal) => get(`/api/jobs/${id(key)}`, null, signal),
  cancelJob: (key) => request("POST", `/api/jobs/${id(key)}/cancel`),
  retryJob: (key) => request("POST", `/api/jobs/${id(key)}/retry`),
  jobEventsUrl: (key) => `/api/jobs/${id(key)}/events`,
};

// A list may come as a page or as a bare array.
export const items = (answer) => (Array.isArray(answer) ? answer : (answer.items ?? []));

// The calls of what goes on by itself: sources, schedules, the index's health and generations, webhooks.

import { get, id, request } from "./api.js";

const post = (path, body = {}) => request("POST", path, { body });
const patch = (path, body) => request("PATCH", path, { body });
const remove = (path) => request("DELETE", path);
const source = (key, rest = "") => `/api/sources/${id(key)}${rest}`;
const schedule = (key, rest = "") => `/api/schedules/${id(key)}${rest}`;
const webhook = (key, rest = "") => `/api/webhooks/${id(key)}${rest}`;
const delivery = (key, one, rest = "") => webhook(key, `/deliveries/${id(one)}${rest}`);

export const sources = {
  list: (params, signal) => get("/api/sources", params, signal),
  create: (body) => post("/api/sources", body),
  change: (key, body) => patch(source(key), body),
  remove: (key, documents) => remove(source(key, documents ? "?documents=true" : "")),
  run: (key, confirm = false) => post(source(key, "/run"), { confirm }),
  items: (key, params, signal) => get(source(key, "/items"), params, signal),
};

export const schedules = {
  list: (params, signal) => get("/api/schedules", params, signal),
  actions: (signal) => get("/api/schedules/actions", null, signal),
  check: (body, signal) => request("POST", "/api/schedules/check", { body, signal }),
  create: (body) => post("/api/schedules", body),
  change: (key, body) => patch(schedule(key), body),
  remove: (key) => remove(schedule(key)),
  run: (key) => post(schedule(key, "/run")),
  runs: (key, params, signal) => get(schedule(key, "/runs"), params, signal),
};

export const health = {
  get: (signal) => get("/api/index/health", null, signal),
  check: () => post("/api/index/health/check"),
  repair: (kinds) => post("/api/index/health/repair", { kinds }),
};

export const generations = {
  list: (signal) => get("/api/index/generations", null, signal),
  create: (body) => post("/api/index/generations", body),
  switchTo: (key) => post(`/api/index/generations/${id(key)}/switch`),
  drop: (key) => remove(`/api/index/generations/${id(key)}`),
};

export const webhooks = {
  list: (params, signal) => get("/api/webhooks", params, signal),
  events: (signal) => get("/api/webhooks/events", null, signal),
  create: (body) => post("/api/webhooks", body),
  change: (key, body) => patch(webhook(key), body),
  remove: (key) => remove(webhook(key)),
  test: (key) => post(webhook(key, "/test")),
  rotate: (key, overlap) => post(webhook(key, "/rotate"), { overlap }),
  deliveries: (key, params, signal) => get(webhook(key, "/deliveries"), params, signal),
  delivery: (key, one, signal) => get(delivery(key, one), null, signal),
  redeliver: (key, one) => post(delivery(key, one, "/redeliver")),
};

// The calls of analyses.

import { get, id, query, request } from "./api.js";
import { sendForm } from "./sendfile.js";

const at = (key, rest = "") => `/api/analyses/${id(key)}${rest}`;

export const analyses = {
  list: (params, signal) => get("/api/analyses", params, signal),
  types: (signal) => get("/api/analyses/types", null, signal),
  one: (key, signal) => get(at(key), null, signal),
  // With its markdown as HTML, where the server renders it.
  whole: (key, signal) => get(at(key), { render: "html" }, signal),
  remove: (key) => request("DELETE", at(key)),
  retry: (key) => request("POST", at(key, "/retry")),
  toDocument: (key, body) => request("POST", at(key, "/document"), { body }),
  eventsUrl: (key) => at(key, "/events"),
  originalUrl: (key) => at(key, "/original"),
  // `turn` tells pictures apart that were drawn by different attempts.
  pageUrl: (key, number, turn) => query(at(key, `/pages/${number}.png`), { turn }),

  // One file. With the same `key` it is analysed once, however often it is sent.
  send(file, { type, prompt, schema, model }, key, progress) {
    const form = new FormData();
    for (const [name, value] of Object.entries({ type, prompt, schema, model })) if (value) form.append(name, value);
    form.append("file", file, file.name);
    return sendForm("/api/analyses", form, { progress, headers: { "Idempotency-Key": key } });
  },
};

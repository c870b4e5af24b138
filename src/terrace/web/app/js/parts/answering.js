// Which model answers, read once and shared; anyone may ask for it anew.

import { api } from "../api.js";

let known = null;
const changes = new EventTarget();

export async function models(fresh = false) {
  if (!known || fresh) {
    known = api.models();
    known.then(
      () => changes.dispatchEvent(new Event("change")),
      () => {
        known = null;
      },
    );
  }
  return known;
}

export const onModels = (run, signal) => changes.addEventListener("change", run, { signal });

export const chatModels = (answer) => answer.items.filter((model) => (model.kind ?? "chat") === "chat");

export const quotes = (answer) => /^quote(\/|$)/.test(answer.answering?.model ?? "");

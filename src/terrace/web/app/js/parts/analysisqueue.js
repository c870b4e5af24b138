// Files on their way to be analysed: two at a time, also while one looks at another view.

import { announce } from "../dom.js";
import { analyses } from "../analyses.js";
import { withNames } from "./limitwords.js";

const AT_A_TIME = 2;
const entries = [];
const changes = new EventTarget();
let running = 0;

export const onTheirWay = () => [...entries];

// `changed(entry)` when one moved; `started(analysis, entry)` when the server has taken it.
export function onQueue({ changed, started }, signal) {
  changes.addEventListener("changed", (event) => changed(event.detail), { signal });
  changes.addEventListener("started", (event) => started(...event.detail), { signal });
}

const key = () =>
  [...crypto.getRandomValues(new Uint8Array(16))].map((each) => each.toString(16).padStart(2, "0")).join("");
const tell = (entry) => changes.dispatchEvent(new CustomEvent("changed", { detail: entry }));

// `wish`: {type, prompt, schema, model}. Gives the entries.
export function analyseFiles(files, wish) {
  const added = files.map((file) => ({ key: key(), file, wish, state: "waiting", part: 0, error: null }));
  entries.push(...added);
  for (const entry of added) tell(entry);
  pump();
  return added;
}

export function again(entry) {
  Object.assign(entry, { state: "waiting", part: 0, error: null });
  tell(entry);
  pump();
}

export function forget(entry) {
  const index = entries.indexOf(entry);
  if (index >= 0) entries.splice(index, 1);
  tell(entry);
}

function pump() {
  for (const entry of entries) {
    if (running >= AT_A_TIME) return;
    if (entry.state === "waiting") send(entry);
  }
}

async function send(entry) {
  running += 1;
  entry.state = "sending";
  tell(entry);
  try {
    const analysis = await analyses.send(entry.file, entry.wish, entry.key, (part) => {
      entry.part = part;
      tell(entry);
    });
    entries.splice(entries.indexOf(entry), 1);
    changes.dispatchEvent(new CustomEvent("started", { detail: [analysis, entry] }));
  } catch (error) {
    entry.state = "failed";
    entry.error = { code: error.code, message: withNames(error.message) };
    if (error.name !== "AbortError") announce(`${entry.file.name}: ${entry.error.message}`);
    tell(entry);
  }
  running -= 1;
  pump();
}

addEventListener("beforeunload", (event) => {
  if (running) event.preventDefault();
});

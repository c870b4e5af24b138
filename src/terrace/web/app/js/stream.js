// Server-sent events over fetch: resumes with Last-Event-ID, backs off, and notices a silent line.

import { connection } from "./connection.js";
import { problemOf } from "./api.js";
import { send } from "./http.js";

const SILENCE = 40_000; // ms; the server sends a comment at least every 15 s
const FIRST_WAIT = 300;
const LONGEST_WAIT = 5_000;

// Splits a growing text into events, as the HTML standard says (section 9.2.6).
export class EventParser {
  #rest = "";
  #event = { id: null, type: "", data: [] };

  // Whole events in `text` together with what came before it.
  push(text) {
    const events = [];
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (this.#event.data.length) events.push({ ...this.#event, data: this.#event.data.join("\n") });
        this.#event = { id: null, type: "", data: [] };
      } else this.#field(line);
    }
    return events;
  }

  #field(line) {
    if (line.startsWith(":")) return;
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") this.#event.data.push(value);
    else if (name === "event") this.#event.type = value;
    else if (name === "id" && !value.includes("\0")) this.#event.id = value;
  }
}

// Reads one response to its end; every event goes to `take({id, type, data})`.
export async function readEvents(response, take, alive = () => {}) {
  const parser = new EventParser();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    alive();
    for (const event of parser.push(value)) take({ ...event, data: JSON.parse(event.data) });
  }
}

const pause = (wait, signal) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, wait);
    signal.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        resolve();
      },
      { once: true },
    );
  });

// Follows `url` until `take` returns true (the last event), the signal aborts, or the server refuses.
// `take(event)` sees each event once; `opened()` runs after every (re)connection; `last` is the id of the event that was
// seen last. Throws Problem when refused.
export async function follow(url, take, { signal, opened = () => {}, last = null }) {
  let wait = FIRST_WAIT;
  let over = false;
  let fault = null; // what `take` threw: ours to tell, not the line's
  while (!over && !signal.aborted) {
    const line = new AbortController();
    const hangUp = () => line.abort();
    signal.addEventListener("abort", hangUp, { once: true });
    let watchdog = setTimeout(hangUp, SILENCE);
    const alive = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(hangUp, SILENCE);
    };
    try {
      const headers = { Accept: "text/event-stream", ...(last ? { "Last-Event-ID": last } : {}) };
      const response = await send(url, { headers, signal: line.signal });
      if (!response.ok && response.status !== 429 && response.status < 500) throw await problemOf(response);
      if (response.ok) {
        connection.found();
        opened();
        await readEvents(
          response,
          (event) => {
            if (over) return;
            wait = FIRST_WAIT;
            if (event.id) last = event.id;
            try {
              over = take(event) === true;
            } catch (error) {
              fault = error;
              over = true;
            }
            if (over) hangUp();
          },
          alive,
        );
      }
    } catch (error) {
      if (error.status) throw error;
      if (!over && !signal.aborted && error.name !== "AbortError") connection.lost();
    } finally {
      clearTimeout(watchdog);
      signal.removeEventListener("abort", hangUp);
    }
    if (fault) throw fault;
    if (over || signal.aborted) return;
    await pause(wait * (0.75 + Math.random() / 2), signal);
    wait = Math.min(wait * 2, LONGEST_WAIT);
  }
}

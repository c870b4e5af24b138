// Asking, and following an answer while it is written. The answer is a job: leaving loses nothing.

import { problemOf, api, Problem } from "../api.js";
import { send as sendTo } from "../http.js";
import { follow, readEvents } from "../stream.js";
import { connection } from "../connection.js";
import { announce } from "../dom.js";
import { duration } from "../format.js";

const PAUSE = 2_500; // ms between two pieces read aloud

let unsent = null; // the question whose sending broke off, with its key, should it be sent again

// `crypto.randomUUID` is missing on plain http beyond this machine.
const newKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map((each) => each.toString(16)).join("-");

// Sends a question; resolves with the `start` event's data as soon as the answer is under way.
export async function ask(body, signal) {
  const line = new AbortController();
  signal.addEventListener("abort", () => line.abort(), { once: true });
  const content = JSON.stringify({ ...body, stream: true });
  if (unsent?.content !== content) unsent = { content, key: newKey() };
  const { key } = unsent;
  const send = () =>
    sendTo("/api/chat", {
      method: "POST",
      signal: line.signal,
      headers: { "Content-Type": "application/json", Accept: "text/event-stream", "Idempotency-Key": key },
      body: content,
    });
  let response;
  try {
    response = await send().catch((error) => {
      if (error.name === "AbortError") throw error;
      return send(); // the same key: a question that did arrive is not asked again
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    connection.lost();
    throw new Problem("The server can't be reached. Your words are back in the box. Is it still running?");
  }
  unsent = null;
  if (!response.ok) throw await problemOf(response);
  let started = null;
  let failed = null;
  try {
    await readEvents(response, (event) => {
      if (event.type === "start") {
        started = event.data;
        line.abort();
      }
      if (event.type === "error") failed = event.data;
    });
  } catch (error) {
    if (!started && error.name === "AbortError") throw error;
  }
  if (!started && !failed && !signal.aborted) started = await startOf(response.headers.get("x-job-id"), signal);
  if (started) return started;
  throw new Problem(failed?.message ?? "The answer did not begin. Look at Jobs for the reason.");
}

// The `start` of a job whose first stream broke off: the question is stored, so it is not asked again.
async function startOf(job, signal) {
  let started = null;
  if (job)
    await follow(
      api.jobEventsUrl(job),
      ({ type, data }) => {
        if (type === "start") started = data;
        return type === "start" || type === "done";
      },
      { signal },
    );
  return started;
}

// Reads aloud what is finished of an answer (paragraphs, list, tables as they are shown, not as Markdown), every few
// seconds, so that a screen reader keeps up and isn't flooded. `blocks()` are the pieces shown so far.
function speaker(blocks) {
  let said = 0;
  let due = 0;
  const say = (until) => {
    const text = blocks(said, until).join("\n").trim();
    said = until;
    if (!text) return;
    announce(text);
    due = Date.now() + PAUSE;
  };
  return {
    grown(count) {
      if (Date.now() > due && count - 1 > said) say(count - 1);
    },
    end: (count) => say(count),
    reset() {
      said = 0;
    },
  };
}

// Follows a running answer into `view` (a message's `stream`). Resolves when it is over.
export async function watch(message, view, { signal, sources }) {
  const speech = speaker(view.blocks);
  await follow(
    `${api.jobEventsUrl(message.job_id)}?render=html`,
    ({ type, data }) => {
      switch (type) {
        case "reset":
          message.content = "";
          view.reset();
          speech.reset();
          break;
        case "state":
          if (data.state === "queued" && data.expected_wait > 2)
            view.note(`waits its turn, about ${duration(data.expected_wait)}`);
          break;
        case "start":
          message.model = data.model;
          break;
        case "sources":
          view.note(data.sources.length ? `is reading ${data.sources.length} passages` : "is thinking");
          sources(data.sources);
          break;
        case "reasoning":
          view.reasoning(data.text);
          break;
        case "text":
          message.content = (message.content ?? "") + data.text;
          view.note("");
          view.text(data.text);
          break;
        case "render":
          speech.grown(view.render(data.html));
          break;
        case "answer":
          Object.assign(message, { content: data.content, html: data.html, sources: data.sources, usage: data.usage });
          message.cached_at = data.cached_at;
          speech.end(view.render(data.html));
          break;
        case "error":
          message.error = data;
          announce(data.message);
          break;
        case "done":
          return true;
        default:
      }
      return false;
    },
    { signal },
  );
}

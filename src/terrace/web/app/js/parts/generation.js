// Asking, and following an answer while it is written. The answer is a job: leaving loses nothing.

import { problemOf, api, Problem } from "../api.js";
import { follow, readEvents } from "../stream.js";
import { announce } from "../dom.js";
import { duration } from "../format.js";

// Sends a question; resolves with the `start` event's data as soon as the answer is under way.
export async function ask(body, signal) {
  const line = new AbortController();
  signal.addEventListener("abort", () => line.abort(), { once: true });
  let response;
  try {
    response = await fetch("/api/chat", {
      method: "POST",
      signal: line.signal,
      cache: "no-store",
      headers: { "Content-Type": "application/json", Accept: "text/event-stream" },
      body: JSON.stringify({ ...body, stream: true }),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The server can't be reached, so nothing was sent. Is it still running?");
  }
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
    if (!started)
      throw error.name === "AbortError" ? error : new Problem("The connection broke off before the answer began.");
  }
  if (started) return started;
  throw new Problem(failed?.message ?? "The answer did not begin. Look at Jobs for the reason.");
}

// Reads aloud whole sentences, every few seconds, so that a screen reader keeps up and isn't flooded.
function speaker() {
  let unsaid = "";
  let due = 0;
  const say = (all) => {
    const end = all
      ? unsaid.length
      : Math.max(unsaid.lastIndexOf(". "), unsaid.lastIndexOf("\n"), unsaid.lastIndexOf("? ")) + 1;
    if (end < 1) return;
    announce(unsaid.slice(0, end).replace(/\[\d+\]|[*_#`]/g, ""));
    unsaid = unsaid.slice(end);
    due = Date.now() + 2500;
  };
  return {
    text(more) {
      unsaid += more;
      if (Date.now() > due) say(false);
    },
    end: () => say(true),
    reset() {
      unsaid = "";
    },
  };
}

// Follows a running answer into `view` (a message's `stream`). Resolves when it is over.
export async function watch(message, view, { signal, sources }) {
  const speech = speaker();
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
          speech.text(data.text);
          break;
        case "render":
          view.render(data.html);
          break;
        case "answer":
          Object.assign(message, { content: data.content, html: data.html, sources: data.sources, usage: data.usage });
          speech.end();
          break;
        case "error":
          message.error = data;
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

// One live feed of all jobs for the whole page, open only while somebody listens and the tab is seen
// (browsers allow six connections to a host over all tabs).

import { follow } from "./stream.js";

const listeners = new Set();
let line = null;

function connect() {
  if (line || !listeners.size || document.hidden) return;
  const controller = new AbortController();
  line = controller;
  follow(
    "/api/jobs/events",
    (event) => {
      if (event.type === "job") for (const listener of listeners) listener.job(event.data);
    },
    {
      signal: controller.signal,
      opened: () => {
        for (const listener of listeners) listener.opened?.();
      },
    },
  )
    .catch(() => {
      /* refused: lists still load, only not live */
    })
    .finally(() => {
      if (line === controller) line = null;
    });
}

function disconnect() {
  line?.abort();
  line = null;
}

document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));

// `job(job)` for every change; `opened()` when the feed (re)connects and lists should be read again.
export function watchJobs(listener, signal) {
  listeners.add(listener);
  if (line) listener.opened?.();
  connect();
  signal.addEventListener(
    "abort",
    () => {
      listeners.delete(listener);
      if (!listeners.size) disconnect();
    },
    { once: true },
  );
}

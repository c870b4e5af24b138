// Whether the server can be reached, told to the person once and taken back by itself.

import { h } from "./dom.js";

let badge = null;
let probe = null;
const back = new EventTarget();

async function look() {
  try {
    const response = await fetch("/health", { cache: "no-store", signal: AbortSignal.timeout(4000) });
    if (response.ok) connection.found();
  } catch {
    /* still away; the next look tells */
  }
}

export const connection = {
  lost() {
    if (badge) return;
    badge = h(
      "div",
      { class: "offline", role: "status" },
      h("span", { class: "spinner" }),
      "Server not reachable. Trying again…",
    );
    document.body.append(badge);
    probe = setInterval(look, 1500);
  },
  found() {
    if (!badge) return;
    badge.remove();
    badge = null;
    clearInterval(probe);
    back.dispatchEvent(new Event("back"));
  },
  // Runs `run` whenever the server has come back.
  onReturn(run, signal) {
    back.addEventListener("back", run, { signal });
  },
};

// Limits in words: their names, units, and the sentence that tells somebody there is no room.

import { announce, h } from "../dom.js";
import { bytes, money, number } from "../format.js";
import { icon } from "./icons.js";
import { nameOf } from "./names.js";

const count = (value) => number(Math.round(value));

// name -> {label, unit (of a field), format, noun (in a sentence), factor (of a field to the value)}
export const LIMITS = {
  requests_per_minute: { label: "Requests a minute", format: count, noun: "requests a minute" },
  tokens_per_minute: { label: "Tokens a minute", format: count, noun: "tokens a minute" },
  tokens_per_day: { label: "Tokens a day", format: count, noun: "tokens a day" },
  money_per_day: { label: "Money a day", unit: "$", format: money, noun: "a day", step: "any" },
  money_per_month: { label: "Money a month", unit: "$", format: money, noun: "a month", step: "any" },
  concurrent_requests: { label: "Answers at a time", format: count, noun: "answers at a time" },
  stored_bytes: { label: "Stored files", unit: "MB", format: bytes, noun: "of stored files", factor: 1e6, step: "any" },
  documents: { label: "Documents", format: count, noun: "documents" },
};

// When room comes again, as people say it: "in 12 seconds", "in 5 minutes", "at 14:00", "on 1 December".
export function whenRoom(seconds, from = Date.now()) {
  if (seconds < 90) return `in ${Math.ceil(seconds)} ${Math.ceil(seconds) === 1 ? "second" : "seconds"}`;
  if (seconds < 3600) return `in ${Math.ceil(seconds / 60)} minutes`;
  const at = new Date(from + seconds * 1000);
  const time = at.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
  if (at.toDateString() === new Date(from).toDateString()) return `at ${time}`;
  return `on ${at.toLocaleDateString(undefined, { day: "numeric", month: "long" })} at ${time}`;
}

const AGAIN = / There (is|may be) room again? [^.]*\.$/; // told by the countdown instead

// The server's sentence, with the name of whoever set a limit in the place of an id.
export const withNames = (text) => text.replace(/\bby (usr_\w+)/g, (_, id) => nameOf(id, { by: true }));

// A notice with the sentence, a countdown where waiting helps, and what may be done: `acts` are buttons; those in
// `later` wait for room.
export function limitNotice(problem, { later = [], acts = [], signal } = {}) {
  const wait = problem.retry_after ?? null;
  const started = Date.now();
  const when = h("span", { class: "nums" });
  const freed = () => {
    when.textContent = "There is room again.";
    for (const button of later) button.disabled = false;
  };
  if (wait) {
    const tick = () => {
      const left = wait - (Date.now() - started) / 1000;
      if (left > 0) when.textContent = `There is room again ${left < 3600 ? whenRoom(left) : whenRoom(wait, started)}.`;
      else {
        clearInterval(timer);
        freed();
        if (when.isConnected) announce("There is room again.");
      }
    };
    const timer = setInterval(tick, 1000);
    signal?.addEventListener("abort", () => clearInterval(timer));
    for (const button of later) button.disabled = true;
    tick();
  } else if (["stored_bytes", "documents"].includes(problem.limit))
    when.textContent = "Delete documents, or ask for a higher limit.";
  return h(
    "div",
    { class: "notice warn limitnotice" },
    icon("clock"),
    h(
      "div",
      { class: "grow" },
      h("p", null, withNames(problem.detail).replace(AGAIN, "")),
      h("p", { class: "soft" }, when),
    ),
    [...later, ...acts],
  );
}

// How a schedule's runs ended: a row of ticks, and the whole of it in a drawer.

import { fill, h } from "../dom.js";
import { schedules } from "../automation.js";
import { ago, duration, exact, plural } from "../format.js";
import { drawer } from "./dialog.js";
import { attempt } from "./toast.js";

export const TICKS = 24;
const STATES = {
  running: ["Running", "busy"],
  succeeded: ["Done", "good"],
  failed: ["Failed", "bad"],
  cancelled: ["Stopped", ""],
  skipped: ["Skipped", "warn"],
};
// A source's own schedule has its id behind its name, so that two may be called the same.
export const nameOf = ({ name }) => name.replace(/ \(src_\w+\)$/, "");
export const runWords = (run) => STATES[run.state][0];

// The latest at the right. `runs`: newest first.
export function ticks(schedule, runs) {
  if (!runs.length) return h("span", { class: "small faint" }, "Not run yet");
  const counts = new Map();
  for (const run of runs) counts.set(run.state, (counts.get(run.state) ?? 0) + 1);
  const sums = [...counts].map(([state, count]) => `${count} ${STATES[state][0].toLowerCase()}`).join(", ");
  return h(
    "button",
    {
      type: "button",
      class: "ticks",
      "aria-label": `History of ${nameOf(schedule)}: ${sums}`,
      onclick: () => showRuns(schedule),
    },
    runs
      .slice(0, TICKS)
      .reverse()
      .map((run) => h("i", { class: run.state, title: told(run) })),
  );
}

const told = (run) => [`${exact(run.started_at)}: ${runWords(run)}`, run.note].filter(Boolean).join(". ");

export function showRuns(schedule) {
  const stop = new AbortController();
  const list = h("ul", { class: "itemlist", "aria-label": "Runs" });
  let all = [];
  let next = null;
  const more = h(
    "button",
    { type: "button", class: "button", hidden: true, onclick: () => attempt(() => load(true)) },
    "Show older",
  );
  async function load(older = false) {
    const answer = await schedules.runs(schedule.id, { limit: 50, cursor: older ? next : null }, stop.signal);
    all = older ? [...all, ...answer.items] : answer.items;
    next = answer.next;
    more.hidden = !next;
    fill(list, all.map(line));
    if (!all.length) fill(list, h("li", { class: "soft" }, "It has not run yet."));
  }
  const dialog = drawer(
    `History of ${nameOf(schedule)}`,
    h("p", { class: "soft" }, schedule.sentence),
    list,
    h("div", { class: "row" }, more),
  );
  dialog.addEventListener("close", () => stop.abort());
  attempt(() => load());
}

function atItsTime(run) {
  const late = Math.round((new Date(run.started_at) - new Date(run.due_at)) / 60_000);
  return late > 0 ? `Due ${exact(run.due_at)}, ${plural(late, "minute")} late` : "At its time";
}

function line(run) {
  const [words, tone] = STATES[run.state];
  const seconds = run.finished_at ? (new Date(run.finished_at) - new Date(run.started_at)) / 1000 : null;
  return h(
    "li",
    null,
    h(
      "p",
      { class: "row" },
      h("span", { class: `badge ${tone}` }, words),
      h("time", { class: "small faint", datetime: run.started_at, title: exact(run.started_at) }, ago(run.started_at)),
    ),
    h(
      "p",
      { class: "small soft" },
      [
        run.by_hand ? "Run by hand" : atItsTime(run),
        seconds !== null && run.state !== "skipped" && `took ${duration(seconds)}`,
      ]
        .filter(Boolean)
        .join(", "),
    ),
    run.note && h("p", { class: "small" }, run.note),
  );
}

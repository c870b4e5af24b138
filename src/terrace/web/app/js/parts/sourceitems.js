// What a source brought, and what it left out and why.

import { fill, h } from "../dom.js";
import { sources } from "../automation.js";
import { ago, exact } from "../format.js";
import { drawer } from "./dialog.js";
import { attempt } from "./toast.js";

const OUTCOMES = {
  found: ["Found, not read yet", "warn"],
  added: ["New", "good"],
  changed: ["Changed", "good"],
  unchanged: ["As before", ""],
  removed: ["Taken out", ""],
  failed: ["Failed", "bad"],
  skipped: ["Left out", "warn"],
};
const TABS = [
  ["", "All"],
  ["failed", "Failed"],
  ["skipped", "Left out"],
  ["added", "New"],
  ["changed", "Changed"],
  ["removed", "Taken out"],
];

export function showItems(source, outcome = "") {
  const stop = new AbortController();
  const list = h("ul", { class: "itemlist", "aria-label": "Items" });
  const tabs = h("div", { class: "tabs", role: "group", "aria-label": "Which items" });
  let shown = outcome;
  let all = [];
  let next = null;
  const more = h(
    "button",
    { type: "button", class: "button", hidden: true, onclick: () => attempt(() => load(true)) },
    "Show more",
  );

  async function load(add = false) {
    const params = { outcome: shown, limit: 50, cursor: add ? next : null };
    const answer = await sources.items(source.id, params, stop.signal);
    all = add ? [...all, ...answer.items] : answer.items;
    next = answer.next;
    more.hidden = !next;
    fill(list, all.map(line));
    if (!all.length)
      fill(list, h("li", { class: "soft" }, shown ? "None at the last look." : "Nothing yet: run it once."));
  }

  function draw() {
    fill(
      tabs,
      TABS.map(([value, label]) =>
        h(
          "button",
          {
            type: "button",
            "aria-pressed": String(value === shown),
            onclick: () => {
              shown = value;
              draw();
              tabs.querySelector("[aria-pressed=true]").focus();
              attempt(() => load());
            },
          },
          label,
        ),
      ),
    );
  }
  draw();
  const dialog = drawer(source.name, h("div", { class: "toolbar" }, tabs), list, h("div", { class: "row" }, more));
  dialog.addEventListener("close", () => stop.abort());
  dialog.addEventListener("click", (event) => event.target.closest("a") && dialog.close()); // it leads elsewhere
  attempt(() => load());
}

function line(item) {
  const unread = item.document_state === "failed";
  const [words, tone] = unread ? ["Could not be read", "bad"] : OUTCOMES[item.outcome];
  const why = item.reason || (unread && item.error?.message);
  const name = h("span", null, item.key);
  return h(
    "li",
    null,
    h(
      "p",
      { class: "key" },
      item.document_id && item.outcome !== "removed"
        ? h("a", { href: `/documents/${item.document_id}` }, name)
        : name,
    ),
    h(
      "p",
      { class: "row" },
      h("span", { class: `badge ${tone}` }, words),
      item.checked_at && h("span", { class: "small faint", title: exact(item.checked_at) }, ago(item.checked_at)),
    ),
    why && h("p", { class: "small soft" }, why),
  );
}

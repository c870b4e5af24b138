// Every administrative act, in sentences.

import { fill, h } from "../dom.js";
import { accounts } from "../accounts.js";
import { exact } from "../format.js";
import { select } from "../parts/form.js";
import { icon } from "../parts/icons.js";
import { KINDS, sentence } from "../parts/auditwords.js";
import { learnNames } from "../parts/names.js";
import { page } from "../parts/page.js";
import { attempt } from "../parts/toast.js";

export async function view(main, _params, { signal, search }) {
  let entries = [];
  let next = null;
  const list = h("ol", { class: "acts-log", "aria-label": "Acts, newest first" });
  const more = h(
    "button",
    { type: "button", class: "button", hidden: true, onclick: () => attempt(() => load(true)) },
    "Show older",
  );
  const kind = select({
    label: "Show",
    name: "action",
    required: false,
    value: search.get("action") ?? "",
    options: [["", "Everything"], ...Object.entries(KINDS)],
  });
  kind.input.addEventListener("change", () => {
    history.replaceState(null, "", kind.value ? `/audit?action=${kind.value}` : "/audit");
    attempt(() => load());
  });
  page(
    main,
    { name: "Audit log", lead: "Who did what, and when. Nobody can change or delete a line, not even here." },
    h(
      "div",
      { class: "toolbar" },
      h("label", { class: "inlinelabel", for: kind.input.id }, "Show"),
      kind.element.querySelector(".selectwrap"),
    ),
    list,
    h("div", { class: "row" }, more),
  );

  async function load(older = false) {
    const answer = await accounts.audit({ action: kind.value, limit: 50, cursor: older ? next : null }, signal);
    entries = older ? [...entries, ...answer.items] : answer.items;
    next = answer.next;
    more.hidden = !next;
    fill(list, byDay(entries));
    if (!entries.length)
      fill(
        list,
        h(
          "li",
          { class: "empty" },
          icon("shield"),
          h("h2", null, "Nothing here"),
          h("p", null, "No such act was done yet."),
        ),
      );
  }
  await Promise.all([learnNames(), load()]);
  fill(list, entries.length ? byDay(entries) : [...list.children]); // the names are here now
}

const dayOf = (moment) =>
  new Date(moment).toLocaleDateString(undefined, { weekday: "long", day: "numeric", month: "long", year: "numeric" });
const timeOf = (moment) => new Date(moment).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });

function byDay(entries) {
  const days = new Map();
  for (const entry of entries) days.set(dayOf(entry.at), [...(days.get(dayOf(entry.at)) ?? []), entry]);
  return [...days].map(([day, acts]) => h("li", null, h("h2", null, day), h("ol", null, acts.map(line))));
}

function line(entry) {
  return h(
    "li",
    null,
    h("time", { class: "nums faint", datetime: entry.at, title: exact(entry.at) }, timeOf(entry.at)),
    h("p", null, sentence(entry), entry.address && h("span", { class: "small faint" }, ` from ${entry.address}`)),
  );
}

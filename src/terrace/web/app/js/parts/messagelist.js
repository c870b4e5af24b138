// The messages of a campaign: as they come, newest first, or page by page; no more than KEPT in the page.

import { fill, h } from "../dom.js";
import { campaigns } from "../campaigns.js";
import { number } from "../format.js";
import { called, under } from "./campaignwords.js";
import { icon } from "./icons.js";
import { attempt } from "./toast.js";

const KEPT = 200;
const PAGE = 50;
const LOOKED_THROUGH = 20; // pages of 200 at a time, for what the server does not pick out

// name -> [label, what the server picks out, whether a message belongs]
export const FILTERS = {
  all: ["All", {}, () => true],
  failed: ["Failed", { state: "failed" }, (message) => message.state === "failed"],
  approval: [
    "Needs approval",
    { state: "done", approved: "false" },
    (message) => message.state === "done" && !message.approved_at,
  ],
  edited: ["Edited", { state: "done" }, (message) => Boolean(message.edited_at)],
};

const EMPTY = {
  all: "Messages appear here as they are written.",
  failed: "No message failed.",
  approval: "Nothing waits for your approval.",
  edited: "You have edited no message.",
};

export class MessageList {
  #rows = new Map(); // id -> {message, element}, in the order shown
  #pending = new Map();
  #next = null;
  #left = 0; // messages that came and went out of the page again
  #drawn = 0;

  constructor({ campaign, open, signal }) {
    Object.assign(this, { key: campaign, open, signal, filter: "all", live: false });
    this.element = h("ul", { class: "messagelist", "aria-label": "Messages" });
    this.more = h(
      "button",
      { type: "button", class: "button", hidden: true, onclick: () => attempt(() => this.#load(true)) },
      "Show more",
    );
    this.note = h("p", { class: "small faint", hidden: true });
    signal.addEventListener("abort", () => cancelAnimationFrame(this.#drawn));
  }

  // `live`: only what comes from now on, of which the feed tells.
  async show(filter, { live = false } = {}) {
    this.filter = filter;
    this.live = live;
    this.#left = 0;
    this.#next = null;
    if (live) this.#reset();
    else await this.#load();
  }

  get #fits() {
    return FILTERS[this.filter][2];
  }

  #reset() {
    this.#rows.clear();
    this.#pending.clear();
    this.more.hidden = true;
    fill(this.element);
    this.#nothing();
  }

  async #load(add = false) {
    const [, picked, fits] = FILTERS[this.filter];
    const wanted = this.filter;
    const found = [];
    let cursor = add ? this.#next : null;
    for (let turn = 0; turn < LOOKED_THROUGH; turn += 1) {
      const limit = wanted === "edited" ? 200 : PAGE;
      const { items, next } = await campaigns.messages(this.key, { ...picked, limit, cursor }, this.signal);
      found.push(...items.filter(fits));
      cursor = next;
      if (!next || found.length >= PAGE || wanted !== "edited") break;
    }
    if (this.filter !== wanted) return; // another filter was chosen meanwhile
    if (!add) this.#reset();
    this.#next = cursor;
    const fresh = found.filter((each) => !this.#rows.has(each.id));
    for (const message of fresh) this.#rows.set(message.id, this.#row(message));
    this.element.querySelector(".empty")?.remove();
    this.element.append(...fresh.map((each) => this.#rows.get(each.id).element));
    this.more.hidden = !cursor;
    this.#nothing();
  }

  // From the feed: drawn with the next picture.
  take(message) {
    this.#pending.delete(message.id);
    this.#pending.set(message.id, message);
    if (this.#pending.size > 4 * KEPT) {
      for (const key of this.#pending.keys()) {
        if (this.#pending.size <= 2 * KEPT) break;
        if (this.#rows.has(key)) continue;
        this.#pending.delete(key);
        this.#left += 1;
      }
    }
    this.#drawn ||= requestAnimationFrame(() => {
      this.#drawn = 0;
      this.#flush();
    });
  }

  #flush() {
    const fresh = [];
    for (const message of this.#pending.values()) {
      if (this.#rows.has(message.id)) this.put(message);
      else if (this.live && this.#fits(message)) fresh.push(message);
    }
    this.#pending.clear();
    if (!fresh.length) return;
    const shown = fresh.slice(-KEPT);
    this.#left += fresh.length - shown.length;
    const rows = shown.map((message) => [message.id, this.#row(message)]);
    this.element.querySelector(".empty")?.remove();
    this.element.prepend(...rows.map(([, row]) => row.element).reverse());
    for (const [key, row] of rows) this.#rows.set(key, row);
    this.#trim();
  }

  // A message that changed: in its place, or gone where it does not belong any more.
  put(message) {
    const row = this.#rows.get(message.id);
    if (!row) return;
    if (!this.#fits(message)) {
      const beside = row.element.nextElementSibling ?? row.element.previousElementSibling;
      const focused = row.element.contains(document.activeElement);
      row.element.remove();
      this.#rows.delete(message.id);
      if (focused) beside?.querySelector("button")?.focus();
      this.#nothing();
      return;
    }
    row.message = message;
    this.#paint(row);
  }

  // The one after (1) or before (-1) in the list.
  beside(message, way) {
    const element = this.#rows.get(message.id)?.element;
    const next = way > 0 ? element?.nextElementSibling : element?.previousElementSibling;
    return next ? [...this.#rows.values()].find((row) => row.element === next)?.message : null;
  }

  focus(message) {
    this.#rows.get(message.id)?.element.querySelector("button").focus();
  }

  #trim() {
    while (this.live && this.element.childElementCount > KEPT) {
      const last = this.element.lastElementChild;
      if (last.contains(document.activeElement)) break; // whoever reads it stays where they are
      this.#rows.delete(last.dataset.id);
      last.remove();
      this.#left += 1;
    }
    this.note.hidden = !this.#left;
    this.note.textContent = `The newest ${number(this.#rows.size)} are shown here; the export has all.`;
  }

  #nothing() {
    this.note.hidden = !this.#left;
    if (this.#rows.size || this.element.querySelector(".empty")) return;
    fill(this.element, h("li", { class: "empty" }, icon("letters"), h("p", null, EMPTY[this.filter])));
  }

  #row(message) {
    const button = h("button", { type: "button", onclick: () => this.open(row.message) });
    const row = { message, element: h("li", { data: { id: message.id } }, button) };
    this.#paint(row);
    return row;
  }

  #paint({ message, element }) {
    const { contact, text, error } = message;
    fill(
      element.firstElementChild,
      h(
        "span",
        { class: "whom" },
        h("b", { class: "clip" }, called(contact)),
        h("span", { class: "small faint clip" }, under(contact)),
      ),
      h("span", { class: "says" }, text ?? error?.message ?? ""),
      h("span", { class: "marks" }, marks(message)),
    );
  }
}

const STATES = {
  waiting: ["badge", "Waiting"],
  writing: ["badge busy", "Being written"],
  failed: ["badge bad", "Failed"],
  skipped: ["badge", "Left out"],
};

// What became of a message, in badges.
export function marks({ state, edited_at: edited, approved_at: approved }) {
  const [look, name] = STATES[state] ?? [];
  return [
    name && h("span", { class: look }, name),
    edited && h("span", { class: "tag" }, "Edited"),
    approved && h("span", { class: "badge good" }, "Approved"),
    state === "done" && !approved && !edited && h("span", { class: "badge half" }, "Written"),
  ];
}

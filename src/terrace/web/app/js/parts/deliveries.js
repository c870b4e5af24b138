// The log of an endpoint: what was sent, how often it was tried, what was answered.

import { fill, h } from "../dom.js";
import { webhooks } from "../automation.js";
import { ago, exact, plural } from "../format.js";
import { drawer } from "./dialog.js";
import { bad } from "./form.js";
import { icon } from "./icons.js";
import { lively, redraw } from "./lively.js";
import { soon } from "./times.js";
import { attempt } from "./toast.js";

const STATES = { queued: ["On its way", "warn"], delivered: ["Delivered", "good"], dead: ["Given up", "bad"] };
const TABS = [
  ["", "All"],
  ["delivered", "Delivered"],
  ["queued", "On their way"],
  ["dead", "Given up"],
];

export function showDeliveries(endpoint) {
  const log = new Log(endpoint);
  const dialog = drawer(
    "Deliveries",
    h("p", { class: "small soft place-of" }, endpoint.url),
    h("div", { class: "toolbar" }, log.tabs),
    log.list,
    h("div", { class: "row" }, log.more),
  );
  dialog.addEventListener("close", () => log.stop.abort());
  attempt(() => log.load()).then(() => log.follow());
}

class Log {
  #deliveries = [];
  #next = null;
  #state = "";

  constructor(endpoint) {
    this.endpoint = endpoint;
    this.stop = new AbortController();
    this.list = h("ul", { class: "itemlist", "aria-label": "Deliveries, newest first" });
    this.tabs = h("div", { class: "tabs", role: "group", "aria-label": "Which deliveries" });
    this.more = h(
      "button",
      { type: "button", class: "button", hidden: true, onclick: () => attempt(() => this.load(true)) },
      "Show older",
    );
    this.#drawTabs();
  }

  follow() {
    // One that waits for its next try is not looked for all the time.
    const near = ({ state, next_at: at }) => state === "queued" && (!at || new Date(at) - Date.now() < 10_000);
    this.live = lively(() => this.load(), { busy: () => this.#deliveries.some(near), signal: this.stop.signal });
  }

  async load(older = false) {
    const limit = older ? 50 : Math.min(200, Math.max(50, this.#deliveries.length));
    const params = { state: this.#state, limit, cursor: older ? this.#next : null };
    const answer = await webhooks.deliveries(this.endpoint.id, params, this.stop.signal);
    this.#deliveries = older ? [...this.#deliveries, ...answer.items] : answer.items;
    this.#next = answer.next;
    this.more.hidden = !this.#next;
    if (this.#deliveries.length) redraw(this.list, this.#deliveries, (delivery) => this.line(delivery));
    else
      fill(
        this.list,
        h("li", { class: "soft" }, this.#state ? "None is in this state." : "Nothing was sent yet. Send a test."),
      );
  }

  #drawTabs() {
    fill(
      this.tabs,
      TABS.map(([value, label]) =>
        h(
          "button",
          {
            type: "button",
            "aria-pressed": String(value === this.#state),
            onclick: () => {
              this.#state = value;
              this.#drawTabs();
              this.tabs.querySelector("[aria-pressed=true]").focus();
              attempt(() => this.load());
            },
          },
          label,
        ),
      ),
    );
  }

  line(delivery) {
    const { type, created_at: at, state, attempts, status, error, duration, next_at: next } = delivery;
    const [words, tone] = STATES[state];
    const inside = h("div", { class: "sent" });
    const details = h(
      "details",
      { class: "more small", ontoggle: () => details.open && this.detail(delivery, inside) },
      h("summary", null, "What was sent and answered"),
      inside,
    );
    return h(
      "li",
      null,
      h(
        "p",
        { class: "row spread" },
        h("code", null, type),
        h("time", { class: "small faint", datetime: at, title: exact(at) }, ago(at)),
      ),
      h(
        "p",
        { class: "row small soft" },
        h("span", { class: `badge ${tone}` }, words),
        [
          plural(attempts, "attempt"),
          status && `answered ${status}`,
          duration !== null && `${Math.max(1, Math.round(duration * 1000)).toLocaleString()} ms`,
          state === "queued" && next && attempts > 0 && `tried again ${soon(next)}`,
        ]
          .filter(Boolean)
          .join(" · "),
      ),
      error && h("p", { class: "small wrongwords" }, error),
      details,
      state !== "queued" &&
        h(
          "div",
          null,
          h(
            "button",
            {
              type: "button",
              class: "button little",
              "aria-label": `Send again: ${type} of ${exact(at)}`,
              onclick: () => this.again(delivery),
            },
            icon("redo"),
            "Send again",
          ),
        ),
    );
  }

  async detail(delivery, place) {
    try {
      const { body, answer, tries } = await webhooks.delivery(this.endpoint.id, delivery.id, this.stop.signal);
      fill(
        place,
        h("h3", null, "Sent"),
        block(JSON.stringify(body, null, 2), "What was sent"),
        h("p", { class: "faint" }, "webhook-id: ", h("code", null, delivery.event_id)),
        answer && [h("h3", null, "Answered"), block(answer, "What was answered")],
        tries.length > 0 && [
          h("h3", null, "Attempts"),
          h(
            "ol",
            { class: "tries", "aria-label": "Attempts" },
            tries.map((each) =>
              h(
                "li",
                null,
                h("time", { class: "faint", datetime: each.at }, exact(each.at)),
                h("span", null, each.error || `Answered ${each.status}`),
              ),
            ),
          ),
        ],
      );
    } catch (error) {
      if (error.name !== "AbortError") fill(place, bad(error.message));
    }
  }

  async again(delivery) {
    if (!(await attempt(() => webhooks.redeliver(this.endpoint.id, delivery.id), "It is sent again"))) return;
    await attempt(() => this.load());
    this.live?.soon(400);
  }
}

const block = (text, label) => h("pre", { class: "wire", tabindex: "0", role: "region", "aria-label": label }, text);

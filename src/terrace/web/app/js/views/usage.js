// What was used and what it cost: by day, by model, by user and by key.

import { fill, h } from "../dom.js";
import { accounts } from "../accounts.js";
import { COLOURS } from "../chart.js";
import { number, plural } from "../format.js";
import { can, isLocal } from "../session.js";
import { select } from "../parts/form.js";
import { icon } from "../parts/icons.js";
import { knownKeys, knownPeople, learnNames } from "../parts/names.js";
import { page, section } from "../parts/page.js";
import { RANGES, range } from "../parts/ranges.js";
import { attempt } from "../parts/toast.js";
import { breakdown, byDay, summary, unpricedNotice } from "../parts/usagecharts.js";

export async function view(main, _params, { signal, search }) {
  await new Usage(main, signal, search).show();
}

class Usage {
  constructor(main, signal, search) {
    this.signal = signal;
    this.span = RANGES.some(([name]) => name === search.get("range")) ? search.get("range") : "30";
    this.user = search.get("user") ?? "";
    this.key = search.get("key") ?? "";
    this.measure = "cost";
    this.ranges = h("div", { class: "tabs", role: "group", "aria-label": "Days" });
    this.filters = h("div", { class: "filters" });
    this.download = h("a", { class: "button", download: "" }, icon("download"), "CSV");
    this.body = h("div", { class: "settings", "aria-live": "off" });
    page(
      main,
      {
        name: "Usage",
        lead:
          isLocal() || can("usage:all")
            ? "Tokens and money, each model call counted."
            : "What you used, each model call counted.",
        actions: [this.download],
      },
      h("div", { class: "toolbar spread" }, this.ranges, this.filters),
      this.body,
    );
  }

  async show() {
    await learnNames();
    this.drawRanges();
    this.drawFilters();
    await this.load();
  }

  get all() {
    return can("usage:all");
  }

  get params() {
    return { ...range(this.span), user: this.user, key: this.key };
  }

  drawRanges() {
    fill(
      this.ranges,
      RANGES.map(([name, label]) =>
        h(
          "button",
          {
            type: "button",
            "aria-pressed": String(name === this.span),
            onclick: () => {
              this.span = name;
              this.drawRanges();
              this.ranges.querySelector("[aria-pressed=true]").focus();
              this.changed();
            },
          },
          label,
        ),
      ),
    );
  }

  drawFilters() {
    const people = this.all ? knownPeople().map(({ id, name }) => [id, name]) : [];
    const choice = (label, name, options) => {
      const made = select({ label, name, required: false, value: this[name], options: [["", label], ...options] });
      made.input.addEventListener("change", () => {
        this[name] = made.value;
        this.changed();
      });
      made.input.setAttribute("aria-label", label);
      return made.element.querySelector(".selectwrap");
    };
    fill(
      this.filters,
      people.length > 1 && choice("Everybody", "user", people),
      knownKeys().length > 0 &&
        choice(
          "With any key or none",
          "key",
          knownKeys().map(({ id, name }) => [id, name]),
        ),
    );
  }

  changed() {
    const given = Object.entries({ range: this.span === "30" ? "" : this.span, user: this.user, key: this.key });
    const query = new URLSearchParams(given.filter(([, value]) => value)).toString();
    history.replaceState(null, "", query ? `/usage?${query}` : "/usage");
    attempt(() => this.load());
  }

  async load() {
    const { params } = this;
    this.download.href = accounts.usageUrl({ ...params, by: "day" });
    const groups = ["model", this.all && !isLocal() && !this.user && "user", !this.key && "key"].filter(Boolean);
    this.body.setAttribute("aria-busy", "true");
    const [daily, ...rest] = await Promise.all(
      ["day", ...groups].map((by) => accounts.usage({ ...params, by }, this.signal)),
    );
    const grouped = Object.fromEntries(groups.map((by, index) => [by, rest[index]]));
    const stacks = await this.stacks(grouped.model.rows, params);
    this.body.removeAttribute("aria-busy");
    this.draw(daily, stacks, grouped);
  }

  // The days of the models that come to most, by money and by tokens.
  async stacks(models, params) {
    const tokens = (row) => row.input_tokens + row.output_tokens;
    const ranked = [...models].sort((one, two) => two.cost - one.cost || tokens(two) - tokens(one));
    return Promise.all(
      ranked.slice(0, COLOURS).map(async ({ group: model }) => {
        const { rows } = await accounts.usage({ ...params, by: "day", model }, this.signal);
        return { name: model, rows };
      }),
    );
  }

  draw(daily, stacks, groups) {
    const { total } = daily;
    if (!total.calls) {
      const ask = h("a", { class: "button", href: "/" }, "Ask something");
      const text = "In these days no model was asked. What you use will show here at once.";
      fill(
        this.body,
        h("div", { class: "empty" }, icon("chart"), h("h2", null, "Nothing used"), h("p", null, text), ask),
      );
      return;
    }
    const chart = h("div");
    const paint = () => fill(chart, byDay(daily, stacks, range(this.span), this.measure));
    paint();
    fill(
      this.body,
      h(
        "div",
        { class: "overview" },
        summary(total),
        total.unpriced > 0 && unpricedNotice(total, groups.model.rows, () => this.load()),
      ),
      section("days", "By day", this.measures(paint), chart),
      section(
        "models",
        "By model",
        breakdown(groups.model, "Model", () => this.load()),
      ),
      groups.user && section("users", "By person", breakdown(groups.user, "Person")),
      groups.key?.rows.some((row) => row.group) && section("keys", "By key", breakdown(groups.key, "Key")),
      h(
        "p",
        { class: "small faint" },
        `Days are UTC. ${plural(total.calls, "model call")}, ${number(total.failed)} of them failed.`,
      ),
    );
  }

  measures(paint) {
    const group = h("div", { class: "tabs", role: "group", "aria-label": "What the chart shows" });
    const draw = () =>
      fill(
        group,
        [
          ["cost", "Cost"],
          ["tokens", "Tokens"],
          ["calls", "Calls"],
        ].map(([name, label]) =>
          h(
            "button",
            {
              type: "button",
              "aria-pressed": String(this.measure === name),
              onclick: () => {
                this.measure = name;
                draw();
                group.querySelector("[aria-pressed=true]").focus();
                paint();
              },
            },
            label,
          ),
        ),
      );
    draw();
    return h("div", null, group);
  }
}

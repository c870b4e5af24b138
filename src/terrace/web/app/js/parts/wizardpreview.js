// The third step: five messages to look at, what the whole may cost, and how much it may.

import { announce, fill, h } from "../dom.js";
import { campaigns } from "../campaigns.js";
import { money, number, plural } from "../format.js";
import { estimated } from "./campaignwords.js";
import { bad, field } from "./form.js";
import { icon } from "./icons.js";
import { previewCard } from "./letter.js";
import { limitNotice } from "./limitwords.js";

export class PreviewStep {
  name = "Preview";
  heading = "Look at a few before all are written";

  constructor({ draft, signal, ready }) {
    Object.assign(this, { draft, signal, ready });
    const { budget, concurrency } = draft.now;
    this.told = h("div", { role: "alert" });
    this.acts = h("div", { class: "row" });
    this.shown = h("div", { class: "previewed", "aria-live": "off" });
    this.budget = field({
      label: "Budget in dollars",
      name: "budget",
      type: "number",
      min: 0,
      step: "any",
      required: false,
      value: budget ?? "",
      hint: "Writing pauses before it is exceeded.",
    });
    this.concurrency = field({
      label: "Messages written at a time",
      name: "concurrency",
      type: "number",
      min: 1,
      max: 1000,
      step: 1,
      required: false,
      value: concurrency ?? "",
      hint: "Chat stays quick meanwhile; 50 is usual.",
    });
    for (const each of [this.budget, this.concurrency])
      each.input.addEventListener("input", () => draft.set({ [each.name]: each.value }));
    this.element = h(
      "div",
      { class: "stepbody" },
      this.acts,
      this.told,
      this.shown,
      h("div", { class: "pair limits" }, this.budget.element, this.concurrency.element),
    );
  }

  get problem() {
    return "";
  }

  get #old() {
    return this.draft.now.previewed !== this.draft.basis;
  }

  async show() {
    this.campaign = await campaigns.get(this.draft.now.campaign, this.signal);
    this.#draw();
  }

  #draw() {
    const { preview } = this.campaign;
    const free = this.campaign.mode === "fill";
    fill(
      this.acts,
      h(
        "button",
        {
          type: "button",
          class: preview && !this.#old ? "button" : "button primary",
          onclick: () => this.#look(false),
        },
        icon(preview ? "redo" : "eye"),
        `${free ? "Show" : "Write"} five ${preview ? "again" : "messages"}`,
      ),
      !free &&
        h(
          "button",
          { type: "button", class: "button plain", onclick: () => this.#look(true) },
          "Show what would be asked, at no cost",
        ),
    );
    fill(this.shown, preview ? this.#preview(preview) : this.#nothing(free));
  }

  #nothing(free) {
    return h(
      "p",
      { class: "soft" },
      free
        ? "The first five contacts' messages, with every place filled."
        : "The first five contacts' messages are really written, so that what you see is what they would get. They cost what they cost.",
    );
  }

  #preview({ messages, estimate, dry }) {
    const [figure, basis] = estimated(estimate, estimate.basis === "messages");
    const cost = messages.reduce((sum, each) => sum + each.cost, 0);
    const unknown = messages.some((each) => each.unpriced);
    return [
      this.#old &&
        h(
          "p",
          { class: "notice warn" },
          icon("warn"),
          "The text, the list or the model has changed since. Write them again.",
        ),
      h(
        "dl",
        { class: "figures threefigures" },
        h("div", null, h("dt", null, "All messages may cost"), h("dd", null, figure)),
        h("div", null, h("dt", null, "Messages"), h("dd", null, number(estimate.messages))),
        h(
          "div",
          null,
          h("dt", null, dry ? "This look cost" : `These ${messages.length} cost`),
          h("dd", null, unknown ? "Unknown" : money(cost)),
        ),
      ),
      h("p", { class: "small soft" }, basis),
      h(
        "div",
        { class: "letters" },
        messages.map((each) => previewCard(each, dry)),
      ),
    ];
  }

  async #look(dry) {
    if (this.looking) return;
    this.looking = true;
    fill(this.told);
    for (const button of this.acts.children) button.setAttribute("aria-disabled", "true");
    fill(
      this.shown,
      h("p", { class: "row soft" }, h("span", { class: "spinner" }), dry ? "Putting the values in…" : "Writing…"),
    );
    announce("The preview is being made.");
    try {
      this.campaign = await campaigns.preview(this.draft.now.campaign, { count: 5, dry });
      this.draft.set({ previewed: this.draft.basis });
      announce(`${plural(this.campaign.preview.messages.length, "message")} to look at.`);
    } catch (error) {
      if (error.name !== "AbortError")
        fill(this.told, error.limit ? limitNotice(error.limit, { signal: this.signal }) : bad(error.message));
    } finally {
      this.looking = false;
    }
    if (this.signal.aborted) return;
    const within = this.acts.contains(document.activeElement);
    this.#draw();
    if (within) this.acts.querySelector("button").focus();
  }

  async next() {
    for (const each of [this.budget, this.concurrency]) {
      if (each.input.validity.valid) continue;
      each.fail(each === this.budget ? "An amount of dollars, please." : "A number from 1 to 1,000, please.");
      each.input.focus();
      return false;
    }
    const budget = this.budget.value === "" ? null : Number(this.budget.value);
    const concurrency = Number(this.concurrency.value) || null;
    try {
      await campaigns.change(this.draft.now.campaign, { budget, ...(concurrency ? { concurrency } : {}) });
    } catch (error) {
      if (budget === null || error.kind !== "invalid") throw error;
      this.budget.fail(error.message);
      this.budget.input.focus();
      return false;
    }
    return true;
  }
}

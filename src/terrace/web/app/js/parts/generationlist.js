// Generations of vectors: that which serves, those that are made, those that are kept.

import { h } from "../dom.js";
import { generations } from "../automation.js";
import { ago, compact, date, exact, number, plural } from "../format.js";
import { confirm, modal } from "./dialog.js";
import { form, select } from "./form.js";
import { icon } from "./icons.js";
import { lively, redraw } from "./lively.js";
import { menuButton } from "./menu.js";
import { attempt, toast } from "./toast.js";

const STATES = {
  building: ["Being made", "busy"],
  ready: ["Ready, waits", "warn"],
  serving: ["Serves", "good"],
  retired: ["Kept for a way back", ""],
};

export class Generations {
  #generations = [];

  constructor(signal) {
    this.signal = signal;
    this.list = h("ul", { class: "lines autolist", "aria-label": "Generations of vectors" });
    this.anew = h(
      "button",
      { type: "button", class: "button", onclick: () => this.create() },
      icon("refresh"),
      "Make all vectors anew",
    );
  }

  async load() {
    const { items } = await generations.list(this.signal);
    this.#generations = items;
    this.anew.disabled = items.some((each) => each.state === "building");
    this.draw();
  }

  follow() {
    const busy = () => this.#generations.some((each) => each.state === "building" || waits(each));
    lively(() => this.load(), { busy, signal: this.signal });
  }

  draw() {
    if (!this.#generations.length) {
      this.list.replaceChildren(
        h(
          "li",
          { class: "soft" },
          "There are no vectors yet: without an embedding model, or a document, search goes by words alone.",
        ),
      );
      return;
    }
    redraw(this.list, this.#generations, (generation) => this.line(generation));
  }

  line(generation) {
    const { id, model, state, vectors, chunks, note, available } = generation;
    const [words, tone] = STATES[state];
    const part = chunks ? vectors / chunks : 0;
    const name = `${model}, made ${date(generation.created_at)}`;
    return h(
      "li",
      null,
      h(
        "div",
        { class: "grow" },
        h("p", { class: "row" }, h("b", null, model), h("span", { class: `badge ${tone}` }, words)),
        h(
          "p",
          { class: "small soft" },
          `${compact(vectors)} of ${plural(chunks, "passage")} · `,
          generation.dimensions > 0 && `${number(generation.dimensions)} dimensions · `,
          "begun ",
          h("span", { title: exact(generation.created_at) }, ago(generation.created_at)),
          generation.switched_at && [
            " · served since ",
            h("span", { title: exact(generation.switched_at) }, ago(generation.switched_at)),
          ],
        ),
        (state === "building" || waits(generation)) && bar(name, part),
        comparison(generation),
        state === "building" && h("p", { class: "small faint" }, plan(generation)),
        !available && h("p", { class: "small wrongwords" }, "Its model can't be had now."),
        note && h("div", { class: "notice" }, icon("info"), h("p", null, note)),
      ),
      h(
        "div",
        { class: "lineacts" },
        (state === "ready" || state === "retired") &&
          h(
            "button",
            {
              type: "button",
              class: state === "ready" ? "button little primary" : "button little",
              disabled: !available,
              "aria-label": `${state === "ready" ? "Have it serve" : "Go back to it"}: ${name}`,
              onclick: () => this.switchTo(generation),
            },
            state === "ready" ? "Have it serve" : "Go back to it",
          ),
        state !== "serving" &&
          menuButton(`More about ${name}`, () => [
            { label: "Remove", icon: "trash", bad: true, run: () => this.drop(id, model) },
          ]),
      ),
    );
  }

  create() {
    const dialog = modal(
      "Make all vectors anew",
      h(
        "p",
        { class: "soft" },
        "Every passage is embedded by the model of the settings. What serves goes on serving meanwhile; then both are compared on what was lately searched for.",
      ),
      form({
        parts: [
          select({
            label: "When they are made",
            name: "then",
            options: [
              ["0.5", "they serve, if at least half of the ten best are the same"],
              ["0.8", "they serve, if at least 80% of the ten best are the same"],
              ["0", "they serve, whatever the comparison says"],
              ["wait", "they wait until I have looked at the comparison"],
            ],
          }),
        ],
        action: "Begin",
        cancel: () => dialog.close(),
        submit: async ({ then }) => {
          await generations.create(then === "wait" ? { automatic: false } : { automatic: true, bound: Number(then) });
          dialog.close();
          toast("New vectors are being made");
          await attempt(() => this.load());
        },
      }),
    );
  }

  async switchTo({ id, model, state }) {
    const sure = await confirm({
      title: state === "ready" ? "Have these vectors serve?" : "Go back to these vectors?",
      text: `From the next search on, what ${model} made is looked through. What serves now is kept, so that you can come back to it.`,
      action: state === "ready" ? "Have them serve" : "Go back",
      danger: false,
    });
    if (sure && (await attempt(() => generations.switchTo(id)))) await attempt(() => this.load());
  }

  async drop(id, model) {
    const sure = await confirm({
      title: "Remove these vectors?",
      text: `What ${model} made goes from the database. The way back to it is closed then.`,
      action: "Remove",
    });
    if (sure && (await attempt(() => generations.drop(id), "Vectors removed"))) await attempt(() => this.load());
  }
}

// Made once, it lacks what came in since; its job makes that before it serves.
const waits = ({ state, job_id: job, vectors, chunks }) => state !== "serving" && job && vectors < chunks;

function comparison({ comparison: found, state }) {
  if (!found) return null;
  if (found.overlap === null)
    return h("p", { class: "small" }, "Nothing was searched for lately, so there is nothing to compare.");
  const share = `${Math.round(100 * found.overlap)}%`;
  const change = found.rank_change;
  const far = change < 0.05 ? ", in the same places" : `; those move by ${change?.toFixed(1)} places`;
  const moved = change === null ? "" : far;
  const one = state === "serving" ? "were" : "are";
  return h(
    "p",
    { class: "small" },
    `Over ${plural(found.queries, "recent question")}, ${share} of the ten best ${one} the same as what it followed${moved}.`,
  );
}

const plan = ({ automatic, bound }) =>
  automatic
    ? `Takes its place by itself if at least ${Math.round(100 * bound)}% of the ten best are the same.`
    : "Waits for you when it is made.";

function bar(name, part) {
  const inside = h("i");
  inside.style.width = `${100 * part}%`;
  return h(
    "div",
    {
      class: "bar",
      role: "progressbar",
      "aria-label": `Vectors of ${name}`,
      "aria-valuemin": 0,
      "aria-valuemax": 100,
      "aria-valuenow": Math.round(100 * part),
    },
    inside,
  );
}

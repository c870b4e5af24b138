// How the corpus is, what mends it, and which vectors serve.

import { fill, h } from "../dom.js";
import { api } from "../api.js";
import { health } from "../automation.js";
import { watchJobs } from "../feed.js";
import { number } from "../format.js";
import { can } from "../session.js";
import { confirm } from "../parts/dialog.js";
import { Generations } from "../parts/generationlist.js";
import { checked, figures, findings, going, past } from "../parts/healthreport.js";
import { icon } from "../parts/icons.js";
import { lively } from "../parts/lively.js";
import { page, section } from "../parts/page.js";
import { attempt } from "../parts/toast.js";

export async function view(main, _params, { signal }) {
  const condition = new Health(signal);
  const vectors = can("operator") ? new Generations(signal) : null;
  page(
    main,
    {
      name: "Index",
      lead: "What is wrong with the corpus, and what mends it. It is looked through every hour it changed in.",
      actions: [condition.again],
    },
    h(
      "div",
      { class: "settings" },
      section("health", "Health", condition.body),
      section("history", "At the last checks", condition.history),
      vectors &&
        section(
          "generations",
          "Generations of vectors",
          h(
            "p",
            { class: "soft" },
            "New vectors are made beside those that serve, compared with them on recent questions, and take their place from one search to the next.",
          ),
          vectors.list,
          h("div", { class: "row" }, vectors.anew),
        ),
    ),
  );
  await Promise.all([condition.load(), vectors?.load()]);
  condition.follow();
  vectors?.follow();
}

const DELETES = new Set(["duplicate"]);

class Health {
  #condition = null;
  #job = null;
  #drawn = "";

  constructor(signal) {
    this.signal = signal;
    this.body = h("div", { class: "overview" });
    this.history = h("div", { data: { of: "none" } });
    this.again = h(
      "button",
      { type: "button", class: "button", onclick: () => this.check() },
      icon("refresh"),
      "Check now",
    );
  }

  follow() {
    const { signal } = this;
    const live = lively(() => this.load(), { busy: () => Boolean(this.#condition?.job_id), signal });
    const job = (now) => {
      if (now.kind !== "index.health") return;
      if (now.id === this.#condition?.job_id) this.progress(now);
      live.soon();
    };
    watchJobs({ job, opened: () => live.soon() }, signal);
  }

  async load() {
    const condition = await health.get(this.signal);
    const { job_id: id } = condition;
    this.#job = id ? await api.job(id, this.signal).catch(() => ({})) : null; // somebody else's: no progress then
    this.#condition = condition;
    this.draw();
  }

  progress(job) {
    this.#job = job;
    this.body.querySelector(".runningline")?.replaceWith(going(job));
  }

  draw() {
    const { report, job_id: busy } = this.#condition;
    this.again.disabled = Boolean(busy);
    const shows = JSON.stringify(this.#condition);
    if (shows === this.#drawn) {
      if (report) this.body.querySelector(".checked").replaceWith(checked(this.#condition));
      if (busy) this.progress(this.#job);
      return;
    }
    this.#drawn = shows;
    const held = this.body.contains(document.activeElement) ? document.activeElement.closest("li[id]")?.id : null;
    fill(
      this.body,
      busy && going(this.#job ?? {}),
      report
        ? [
            figures(this.#condition),
            checked(this.#condition),
            findings(this.#condition, { repair: (finding) => this.repair(finding), busy: Boolean(busy) }),
          ]
        : !busy &&
            h(
              "div",
              { class: "empty" },
              icon("shield"),
              h("h2", null, "Not checked yet"),
              h(
                "p",
                null,
                "A check reads every document's passages and vectors and says what is missing, double or left over.",
              ),
              h("button", { type: "button", class: "button", onclick: () => this.check() }, "Check now"),
            ),
    );
    this.picture();
    if (held) (this.body.querySelector(`#${held} :is(button, a)`) ?? this.again).focus();
  }

  // Drawn anew after another check only: somebody may be reading it.
  picture() {
    const { report } = this.#condition;
    if (this.history.dataset.of === report?.checked_at) return;
    this.history.dataset.of = report?.checked_at ?? "";
    const none = () => h("p", { class: "soft" }, "The checks to come will show here.");
    fill(this.history, report ? past(this.#condition) : none());
  }

  async check() {
    if (await attempt(() => health.check())) await attempt(() => this.load());
  }

  async repair({ kind, title, count, repair }) {
    const many = count === 1 ? "There is one." : `There are ${number(count)}.`;
    const sure = await confirm({
      title: `Repair: ${title.toLowerCase()}?`,
      text: `${repair} ${many} Then the corpus is looked through again.`,
      action: "Repair",
      danger: DELETES.has(kind),
    });
    if (sure && (await attempt(() => health.repair([kind]), "The repair is under way")))
      await attempt(() => this.load());
  }
}

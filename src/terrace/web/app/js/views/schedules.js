// What goes on by itself, when, and how it went.

import { h } from "../dom.js";
import { schedules } from "../automation.js";
import { watchJobs } from "../feed.js";
import { exact } from "../format.js";
import { confirm } from "../parts/dialog.js";
import { icon } from "../parts/icons.js";
import { hollow, lively, redraw } from "../parts/lively.js";
import { menuButton } from "../parts/menu.js";
import { page } from "../parts/page.js";
import { nameOf, runWords, showRuns, TICKS, ticks } from "../parts/runhistory.js";
import { scheduleDialog } from "../parts/scheduleform.js";
import { soon } from "../parts/times.js";
import { attempt } from "../parts/toast.js";

export async function view(main, _params, { signal }) {
  const shown = new Schedules(signal);
  page(
    main,
    {
      name: "Schedules",
      lead: "Each time is one run, also when several servers are at work. What was missed is made up for once.",
      actions: [
        h(
          "button",
          { type: "button", class: "button primary", onclick: () => shown.create() },
          icon("plus"),
          "New schedule",
        ),
      ],
    },
    shown.list,
    h("div", { class: "row" }, shown.more),
  );
  await shown.load();
  shown.follow();
}

class Schedules {
  #schedules = [];
  #next = null;
  #titles = new Map(); // of actions
  #runs = new Map(); // by schedule: the latest

  constructor(signal) {
    this.signal = signal;
    this.list = h("ul", { class: "lines autolist", "aria-label": "Schedules" });
    this.more = h(
      "button",
      { type: "button", class: "button", hidden: true, onclick: () => attempt(() => this.load(true)) },
      "Show more",
    );
  }

  follow() {
    const { signal } = this;
    const busy = () => this.#schedules.some((each) => each.last_run?.state === "running");
    const live = lively(() => this.load(), { busy, signal });
    const ours = (job) => this.#schedules.some((each) => each.last_run?.job_id === job.id);
    watchJobs({ job: (job) => ours(job) && live.soon(600), opened: () => live.soon() }, signal);
  }

  async load(more = false) {
    const limit = more ? 50 : Math.min(200, Math.max(50, this.#schedules.length));
    const [answer, actions] = await Promise.all([
      schedules.list({ limit, cursor: more ? this.#next : null }, this.signal),
      this.#titles.size ? null : schedules.actions(this.signal),
    ]);
    for (const each of actions?.items ?? []) this.#titles.set(each.name, each.title);
    this.#schedules = more ? [...this.#schedules, ...answer.items] : answer.items;
    this.#next = answer.next;
    await this.learnRuns();
    this.draw();
  }

  // Reads the history of those that ran since.
  async learnRuns() {
    const stale = this.#schedules.filter(
      ({ id, last_run: last }) => last && JSON.stringify(this.#runs.get(id)?.[0]) !== JSON.stringify(last),
    );
    await Promise.all(
      stale.map(async ({ id }) => {
        const { items } = await schedules.runs(id, { limit: TICKS }, this.signal);
        this.#runs.set(id, items);
      }),
    );
  }

  draw() {
    this.more.hidden = !this.#next;
    if (!this.#schedules.length) {
      hollow(this.list, () =>
        h(
          "li",
          { class: "empty" },
          icon("clock"),
          h("h2", null, "Nothing is scheduled"),
          h("p", null, "Have a source looked at every night, or the corpus checked every week."),
        ),
      );
      return;
    }
    redraw(
      this.list,
      this.#schedules,
      (schedule) => this.line(schedule),
      (schedule) => JSON.stringify([schedule, this.#runs.get(schedule.id)]),
    );
  }

  line(schedule) {
    const { enabled, problem, last_run: last } = schedule;
    const name = nameOf(schedule);
    const what = this.#titles.get(schedule.action) ?? schedule.action;
    return h(
      "li",
      { class: enabled ? null : "resting" },
      h(
        "div",
        { class: "grow" },
        h(
          "p",
          { class: "row" },
          h("b", null, name),
          schedule.built_in && h("span", { class: "tag" }, "built in"),
          !enabled && h("span", { class: "badge warn" }, problem ? "Stopped" : "Paused"),
        ),
        h("p", { class: "small soft" }, `${what}. ${schedule.sentence}`),
        problem && h("div", { class: "notice bad" }, icon("warn"), h("p", null, problem)),
        h(
          "p",
          { class: "small faint" },
          enabled && schedule.next_at
            ? h("span", { title: exact(schedule.next_at) }, `Next ${soon(schedule.next_at)}`)
            : "No next time",
          last && ` · last: ${runWords(last).toLowerCase()}`,
        ),
      ),
      h("div", { class: "tickplace" }, ticks(schedule, this.#runs.get(schedule.id) ?? [])),
      h(
        "div",
        { class: "lineacts" },
        h(
          "button",
          {
            type: "button",
            class: "button little",
            "aria-label": `Run now: ${name}`,
            onclick: () => this.run(schedule),
          },
          icon("play"),
          "Run now",
        ),
        h(
          "button",
          {
            type: "button",
            class: "button little",
            "aria-label": `${enabled ? "Pause" : "Resume"}: ${name}`,
            onclick: () => this.switch(schedule),
          },
          icon(enabled ? "pause" : "play"),
          enabled ? "Pause" : "Resume",
        ),
        menuButton(`More about ${name}`, () => [
          { label: "History", icon: "clock", run: () => showRuns(schedule) },
          { label: "Change", icon: "edit", run: () => this.change(schedule) },
          !schedule.built_in && { label: "Delete", icon: "trash", bad: true, run: () => this.remove(schedule) },
        ]),
      ),
    );
  }

  create() {
    scheduleDialog({ title: "New schedule", signal: this.signal, done: () => this.load() });
  }

  change(schedule) {
    scheduleDialog({ title: `Change ${nameOf(schedule)}`, schedule, signal: this.signal, done: () => this.load() });
  }

  async run(schedule) {
    const begun = await attempt(() => schedules.run(schedule.id), `${nameOf(schedule)} is running`);
    if (begun) await attempt(() => this.load());
  }

  async switch(schedule) {
    const enabled = !schedule.enabled;
    const done = await attempt(() => schedules.change(schedule.id, { enabled }), enabled ? "Resumed" : "Paused");
    if (done) await attempt(() => this.load());
  }

  async remove(schedule) {
    const sure = await confirm({
      title: `Delete ${nameOf(schedule)}?`,
      text: "It runs no more, and its history goes with it. A run under way goes on.",
      action: "Delete",
    });
    if (sure && (await attempt(() => schedules.remove(schedule.id), "Schedule deleted")))
      await attempt(() => this.load());
  }
}

// Folders, pages, sites and feeds that bring documents by themselves.

import { h } from "../dom.js";
import { schedules, sources } from "../automation.js";
import { watchJobs } from "../feed.js";
import { ago, exact, number, plural } from "../format.js";
import { confirm, modal } from "../parts/dialog.js";
import { form } from "../parts/form.js";
import { icon } from "../parts/icons.js";
import { hollow, lively, redraw } from "../parts/lively.js";
import { menuButton } from "../parts/menu.js";
import { page } from "../parts/page.js";
import { scheduleDialog } from "../parts/scheduleform.js";
import { changedSource, KINDS, newSource, signOf } from "../parts/sourceform.js";
import { showItems } from "../parts/sourceitems.js";
import { soon } from "../parts/times.js";
import { attempt, toast } from "../parts/toast.js";

export async function view(main, _params, { signal }) {
  const shown = new Sources(signal);
  page(
    main,
    {
      name: "Sources",
      lead: "Folders, pages, sites and feeds bring their documents by themselves, and take out only what they brought.",
      actions: [
        h(
          "button",
          { type: "button", class: "button primary", onclick: () => shown.add() },
          icon("plus"),
          "Add a source",
        ),
      ],
    },
    shown.list,
    h("div", { class: "row" }, shown.more),
  );
  await shown.load();
  shown.follow();
}

class Sources {
  #sources = [];
  #next = null;
  #times = new Map(); // schedules by source
  #progress = new Map(); // of runs, by job

  constructor(signal) {
    this.signal = signal;
    this.list = h("ul", { class: "lines autolist", "aria-label": "Sources" });
    this.more = h(
      "button",
      { type: "button", class: "button", hidden: true, onclick: () => attempt(() => this.load(true)) },
      "Show more",
    );
  }

  follow() {
    const { signal } = this;
    const live = lively(() => this.load(), { busy: () => this.#sources.some((each) => each.running), signal });
    const job = (now) => {
      if (now.kind !== "source.run") return;
      if (now.state === "running") this.#progress.set(now.id, now.progress);
      else this.#progress.delete(now.id);
      live.soon();
    };
    watchJobs({ job, opened: () => live.soon() }, signal);
  }

  // Reads as many as are shown; `more` adds a page.
  async load(more = false) {
    const limit = more ? 50 : Math.min(200, Math.max(50, this.#sources.length));
    const [answer, times] = await Promise.all([
      sources.list({ limit, cursor: more ? this.#next : null }, this.signal),
      schedules.list({ limit: 200 }, this.signal),
    ]);
    this.#sources = more ? [...this.#sources, ...answer.items] : answer.items;
    this.#next = answer.next;
    this.#times.clear();
    for (const each of times.items) if (each.payload?.source_id) this.#times.set(each.payload.source_id, each);
    this.draw();
  }

  draw() {
    this.more.hidden = !this.#next;
    if (!this.#sources.length) {
      hollow(this.list, () =>
        h(
          "li",
          { class: "empty" },
          icon("refresh"),
          h("h2", null, "Nothing comes by itself yet"),
          h(
            "p",
            null,
            "Add a folder that is watched, or a page, a site or a feed that is fetched when you say. What changes there changes here.",
          ),
          h("button", { type: "button", class: "button", onclick: () => this.add() }, icon("plus"), "Add a source"),
        ),
      );
      return;
    }
    redraw(
      this.list,
      this.#sources,
      (source) => this.line(source),
      (source) => JSON.stringify([source, this.#times.get(source.id), this.#progress.get(source.job_id)]),
    );
  }

  line(source) {
    const time = this.#times.get(source.id);
    return h(
      "li",
      null,
      h("span", { class: "sign", title: KINDS[source.kind].name }, signOf(source.kind)),
      h(
        "div",
        { class: "grow" },
        h(
          "p",
          { class: "row" },
          h("b", null, source.name),
          h("span", { class: "tag" }, KINDS[source.kind].name),
          source.collection !== "default" && h("span", { class: "tag" }, source.collection),
        ),
        source.location !== source.name && h("p", { class: "small soft place-of" }, source.location),
        source.running ? running(this.#progress.get(source.job_id)) : this.lastRun(source),
        h("p", { class: "small faint" }, nextOf(source, time)),
        this.notices(source),
      ),
      h(
        "div",
        { class: "lineacts" },
        h(
          "button",
          {
            type: "button",
            class: "button little",
            disabled: source.running,
            "aria-label": `Run now: ${source.name}`,
            onclick: () => this.run(source),
          },
          icon("play"),
          "Run now",
        ),
        h(
          "button",
          {
            type: "button",
            class: "button little",
            "aria-label": `Items of ${source.name}`,
            onclick: () => showItems(source),
          },
          "Items",
        ),
        menuButton(`More about ${source.name}`, () => [
          { label: "Change", icon: "edit", run: () => this.change(source) },
          { label: time ? "Change its times" : "Give it times", icon: "clock", run: () => this.plan(source, time) },
          { label: "Remove", icon: "trash", bad: true, run: () => this.remove(source) },
        ]),
      ),
    );
  }

  lastRun(source) {
    const { report } = source;
    if (!report) return h("p", { class: "small soft" }, "Not looked at yet.");
    const counts = [
      [report.added, "added", "good"],
      [report.changed, "changed", "good"],
      [report.removed, "removed", ""],
      [report.failed, "failed", "bad"],
      [report.skipped, "left out", ""],
      [report.unchanged, "as before", ""],
    ].filter(([count]) => count);
    return h(
      "p",
      { class: "row small outcome" },
      source.ran_at && h("span", { class: "faint", title: exact(source.ran_at) }, `Looked ${ago(source.ran_at)}`),
      counts.length
        ? counts.map(([count, words, tone]) => h("span", { class: `badge ${tone}` }, `${number(count)} ${words}`))
        : !report.error && !report.needs_confirm && h("span", { class: "soft" }, "nothing found"),
    );
  }

  notices({ report, ...source }) {
    if (!report || source.running) return null;
    const told = [];
    if (report.error) told.push(notice("bad", report.error));
    if (report.needs_confirm)
      told.push(
        notice(
          "warn",
          `${plural(report.needs_confirm, "document")} would be taken out: more than half of what it brought, or all of it. They wait for you, should the folder only be away.`,
          h(
            "button",
            { type: "button", class: "button little", onclick: () => this.confirmRemoval(source, report) },
            `Take out ${plural(report.needs_confirm, "document")}`,
          ),
        ),
      );
    if (report.failed)
      told.push(
        h(
          "button",
          { type: "button", class: "linkbutton small", onclick: () => showItems(source, "failed") },
          `Why ${plural(report.failed, "item")} failed`,
        ),
      );
    if (report.notes.length)
      told.push(
        h(
          "details",
          { class: "more small" },
          h("summary", null, plural(report.notes.length, "note")),
          h("ul", { class: "soft" }, report.notes.map((note) => h("li", null, note))),
        ),
      );
    return told;
  }

  add() {
    const dialog = modal(
      "Add a source",
      newSource({
        cancel: () => dialog.close(),
        signal: this.signal,
        submit: async (body) => {
          const made = await sources.create(body);
          dialog.close();
          await attempt(() => sources.run(made.id), `${made.name} is being looked at`);
          await attempt(() => this.load());
        },
      }),
    );
    dialog.querySelector("input[name=location]").focus();
  }

  change(source) {
    const dialog = modal(
      `Change ${source.name}`,
      changedSource({
        source,
        cancel: () => dialog.close(),
        signal: this.signal,
        submit: async (body) => {
          await sources.change(source.id, body);
          dialog.close();
          toast("Source changed");
          await attempt(() => this.load());
        },
      }),
    );
  }

  plan(source, schedule) {
    const given = schedule ?? { name: source.name, action: "sources.run", payload: { source_id: source.id } };
    scheduleDialog({
      title: `When ${source.name} is looked at`,
      schedule,
      given,
      signal: this.signal,
      done: () => this.load(),
    });
  }

  async run(source, confirmed = false) {
    if (await attempt(() => sources.run(source.id, confirmed))) await attempt(() => this.load());
  }

  async confirmRemoval(source, report) {
    const sure = await confirm({
      title: `Take out ${plural(report.needs_confirm, "document")}?`,
      text: `They are no longer in ${source.location}. They go from the collection ${source.collection} with what answers may cite of them.`,
      action: "Take them out",
    });
    if (sure) await this.run(source, true);
  }

  remove(source) {
    const with_ = h("input", { type: "checkbox" });
    const dialog = modal(
      `Remove ${source.name}?`,
      h("p", { class: "soft" }, "It is looked at no more, and its schedule goes with it."),
      form({
        parts: [
          h(
            "label",
            { class: "check" },
            with_,
            h(
              "span",
              null,
              `Take out its ${plural(source.documents, "document")}, too`,
              h("span", { class: "small faint" }, "Else they stay in the collection"),
            ),
          ),
        ],
        action: "Remove",
        danger: true,
        cancel: () => dialog.close(),
        submit: async () => {
          await sources.remove(source.id, with_.checked);
          dialog.close();
          toast("Source removed");
          await attempt(() => this.load());
        },
      }),
    );
  }
}

const notice = (tone, text, action) =>
  h("div", { class: `notice ${tone}` }, icon("warn"), h("div", { class: "grow" }, h("p", null, text), action));

function nextOf({ watch, documents }, time) {
  const has = `${plural(documents, "document")} · `;
  if (time?.problem) return [has, h("span", { class: "wrongwords" }, `its schedule stopped: ${time.problem}`)];
  const watched = watch ? "Watched: changes come within seconds" : null;
  if (time && !time.enabled) return [has, watched ?? "Its schedule is paused"];
  if (!time?.next_at) return [has, watched ?? "Looked at when you say so"];
  const next = h("span", { title: exact(time.next_at) }, `next ${soon(time.next_at)}`);
  return [has, watched && `${watched} · `, next, ` · ${time.sentence}`];
}

function running(progress) {
  const part = progress?.total ? progress.done / progress.total : 0;
  const bar = h("i");
  if (part) bar.style.width = `${100 * part}%`;
  return h(
    "div",
    { class: "runningline small" },
    h("span", { class: "badge busy" }, progress?.note || "Looking"),
    h(
      "div",
      {
        class: part ? "bar" : "bar unknown",
        role: "progressbar",
        "aria-label": "Looking",
        "aria-valuemin": 0,
        "aria-valuemax": 100,
        "aria-valuenow": part ? Math.round(100 * part) : null,
      },
      bar,
    ),
  );
}

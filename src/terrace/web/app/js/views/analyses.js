// Analyses: files come in here, and all of them with how far they are.

import { fill, h } from "../dom.js";
import { analyses } from "../analyses.js";
import { watchJobs } from "../feed.js";
import { navigate, readdress } from "../router.js";
import { AnalysisForm } from "../parts/analysisform.js";
import { analysisLine, sendingLine } from "../parts/analysisline.js";
import { analyseFiles, forget, onQueue, onTheirWay } from "../parts/analysisqueue.js";
import { OVER } from "../parts/analysiswords.js";
import { takeDrops } from "../parts/drop.js";
import { icon } from "../parts/icons.js";
import { page } from "../parts/page.js";
import { attempt } from "../parts/toast.js";

const FILTERS = [
  ["", "All"],
  ["succeeded", "Done"],
  ["failed", "Failed"],
];
const RUN = "analysis.run";

export async function view(main, _params, { signal, search }) {
  const { items: types } = await analyses.types(signal);
  await new Board(main, types, search, signal).load();
}

class Board {
  #all = [];
  #jobs = new Map(); // analysis id -> its job
  #next = null;
  #turn = 0;
  #due = new Set(); // analyses to read again
  #timer = null;
  #sent = null; // the one file that was sent last: its page is opened

  constructor(main, types, search, signal) {
    this.signal = signal;
    this.titles = new Map(types.map(({ name, title }) => [name, title]));
    this.state = FILTERS.some(([state]) => state === search.get("state")) ? search.get("state") : "";
    this.form = new AnalysisForm({ types, signal, send: (files, wish) => this.send(files, wish) });
    this.sending = h("ul", { class: "doclist", "aria-label": "On their way" });
    this.list = h("ul", { class: "doclist", "aria-label": "Analyses" });
    this.tabs = h("div", { class: "tabs", role: "group", "aria-label": "Which analyses" });
    this.more = h(
      "button",
      { type: "button", class: "button", hidden: true, onclick: () => attempt(() => this.load(true)) },
      "Show more",
    );
    page(
      main,
      {
        name: "Analyses",
        lead: "A model looks at the pages of a file; you get its text, the fields you want, and a note on each page.",
      },
      this.form.element,
      h("div", { class: "page-body" }, h("div", { class: "toolbar" }, this.tabs), this.sending, this.list),
      h("div", { class: "row" }, this.more),
    );
    this.#drawTabs();
    this.#drawSending();
    takeDrops({ says: "Drop to analyse", take: (files) => this.form.take(files) }, signal);
    onQueue({ changed: (entry) => this.#moved(entry), started: (...given) => this.#started(...given) }, signal);
    watchJobs({ job: (job) => this.#follow(job), opened: () => this.load().catch(() => {}) }, signal);
  }

  async load(add = false) {
    const turn = (this.#turn += 1);
    const { items, next } = await analyses.list(
      { state: this.state, limit: 50, cursor: add ? this.#next : null },
      this.signal,
    );
    if (turn !== this.#turn) return; // a newer question is on its way
    this.#all = add ? [...this.#all, ...items] : items;
    this.#next = next;
    this.#draw();
  }

  // -- sending

  send(files, wish) {
    const added = analyseFiles(files, wish);
    this.#sent = added.length === 1 ? added[0] : null;
  }

  #started(analysis, entry) {
    if (entry === this.#sent) navigate(`/analyses/${analysis.id}`);
    else this.#changed(analysis);
    this.#drawSending();
  }

  #moved(entry) {
    const here = onTheirWay().includes(entry);
    const old = this.sending.querySelector(`[data-key="${entry.key}"]`);
    if (!here || !old) this.#drawSending();
    else if (entry.state === "failed" && this.form.returned(entry.file, entry.error)) forget(entry);
    else replace(old, sendingLine(entry));
  }

  #drawSending() {
    fill(this.sending, onTheirWay().map(sendingLine));
    this.sending.hidden = !this.sending.childElementCount;
  }

  // -- the list

  #drawTabs() {
    fill(
      this.tabs,
      FILTERS.map(([state, label]) =>
        h(
          "button",
          {
            type: "button",
            "aria-pressed": String(state === this.state),
            onclick: () => {
              this.state = state;
              readdress(state ? `/analyses?state=${state}` : "/analyses");
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

  #draw() {
    this.more.hidden = !this.#next;
    const focused = this.list.contains(document.activeElement) ? place(document.activeElement) : null;
    fill(
      this.list,
      this.#all.map((analysis) => this.#line(analysis)),
    );
    if (focused) refocus(this.list.querySelector(`[data-id="${focused.id}"]`), focused.index);
    if (!this.#all.length)
      fill(
        this.list,
        h(
          "li",
          { class: "empty" },
          icon("scan"),
          h("h2", null, this.state ? "Nothing here" : "Nothing was analysed yet"),
          h(
            "p",
            null,
            this.state === "failed"
              ? "No analysis has failed."
              : "Drop a resume, an invoice or a contract above, say what it is, and press Analyse.",
          ),
        ),
      );
  }

  #line(analysis) {
    return analysisLine(analysis, this.#jobs.get(analysis.id), this.titles, {
      changed: (fresh) => this.#changed(fresh),
      gone: ({ id }) => this.#gone(id),
    });
  }

  #gone(id) {
    this.#all = this.#all.filter((each) => each.id !== id);
    this.#draw();
  }

  #changed(analysis) {
    const index = this.#all.findIndex(({ id }) => id === analysis.id);
    const fits = !this.state || this.state === analysis.state;
    if (index < 0 && fits) this.#all.unshift(analysis);
    else if (index >= 0 && !fits) this.#all.splice(index, 1);
    else if (index >= 0) {
      this.#all[index] = analysis;
      this.#repaint(analysis);
      return;
    }
    this.#draw();
  }

  #repaint(analysis) {
    const old = this.list.querySelector(`[data-id="${analysis.id}"]`);
    if (old) replace(old, this.#line(analysis));
  }

  // -- live

  #follow(job) {
    const id = job.kind === RUN && job.payload?.analysis_id;
    if (!id) return;
    const before = this.#jobs.get(id);
    this.#jobs.set(id, job);
    const known = this.#all.find((each) => each.id === id);
    const moved = job.state !== before?.state || job.progress?.done !== before?.progress?.done;
    if (known && (moved || OVER.has(job.state) !== OVER.has(known.state))) this.#later(id);
    if (known) this.#repaint(known);
    else if (!OVER.has(job.state) && !before && !this.state) this.#reload(); // sent from elsewhere
  }

  // Analyses whose job moved are read again, at most every 400 ms, however many move at once.
  #later(id) {
    this.#due.add(id);
    this.#timer ??= setTimeout(async () => {
      this.#timer = null;
      const due = [...this.#due].slice(0, 20);
      for (const each of due) this.#due.delete(each);
      const read = due.map((each) =>
        analyses.one(each, this.signal).then(
          (fresh) => this.#changed({ ...fresh, result: null }),
          (error) => error.status === 404 && this.#gone(each), // of others the connection badge tells
        ),
      );
      await Promise.all(read);
      if (this.#due.size && !this.signal.aborted) this.#later(this.#due.values().next().value);
    }, 400);
  }

  #reload() {
    clearTimeout(this.reloading);
    this.reloading = setTimeout(() => !this.signal.aborted && this.load().catch(() => {}), 400);
  }
}

// Keeps the focus where it is while a line changes under it.
function replace(old, fresh) {
  const index = [...old.querySelectorAll("a, button")].indexOf(document.activeElement);
  old.replaceWith(fresh);
  if (index >= 0) refocus(fresh, index);
}

function place(element) {
  const line = element.closest("[data-id]");
  return line && { id: line.dataset.id, index: [...line.querySelectorAll("a, button")].indexOf(element) };
}

const refocus = (line, index) => line?.querySelectorAll("a, button")[index]?.focus({ preventScroll: true });

// One analysis: its pages at the left, what came of them at the right, live while it runs.

import { announce, fill, h } from "../dom.js";
import { analyses } from "../analyses.js";
import { watchJobs } from "../feed.js";
import { ago, bytes, duration, exact, fileType } from "../format.js";
import { navigate, title } from "../router.js";
import { can } from "../session.js";
import { follow } from "../stream.js";
import * as acts from "../parts/analysisacts.js";
import { AnalysisResult } from "../parts/analysisresult.js";
import { BADGES, OVER, WAYS, coded, costWords, progressBar, progressWords } from "../parts/analysiswords.js";
import { icon } from "../parts/icons.js";
import { menuButton } from "../parts/menu.js";
import { PageStrip } from "../parts/pagestrip.js";
import { toast } from "../parts/toast.js";

const DRAWN = /^(application\/pdf|image\/)/; // of these every page has a picture

export async function view(main, { id }, { signal }) {
  const [analysis, { items: types }] = await Promise.all([analyses.whole(id, signal), analyses.types(signal)]);
  new Sight(main, analysis, types, signal).begin();
}

class Sight {
  #job = null;
  #line = null;
  #drawn = false; // its pages have pictures by now

  constructor(main, analysis, types, signal) {
    Object.assign(this, { analysis, signal });
    this.type = types.find(({ name }) => name === analysis.type)?.title ?? analysis.type;
    this.pages = new PageStrip(analysis);
    this.acts = h("div", { class: "row headacts" });
    this.state = h("div", { class: "analysisstate" });
    this.outcome = h("div", { class: "outcome" });
    title(analysis.name);
    fill(
      main,
      h(
        "div",
        { class: "page analysispage" },
        h("a", { class: "back", href: "/analyses" }, icon("left"), "All analyses"),
        h(
          "header",
          null,
          h(
            "div",
            null,
            h("h1", null, analysis.name),
            h(
              "p",
              null,
              [this.type, fileType(analysis).toUpperCase(), bytes(analysis.bytes)].join(" · "),
              " · ",
              h("span", { title: exact(analysis.created_at) }, `sent ${ago(analysis.created_at)}`),
            ),
          ),
          this.acts,
        ),
        h("div", { class: "sides" }, h("div", { class: "side" }, this.state, this.outcome), this.pages.element),
      ),
    );
    watchJobs({ job: (job) => this.#heard(job) }, signal);
  }

  begin() {
    this.#draw();
    this.#listen();
  }

  // -- live

  // Follows it to its end; what is over but left no result tells of its pages by its events alone.
  async #listen() {
    this.#line?.abort();
    const { id, job_id: job, result, state } = this.analysis;
    if (!job || result) return;
    const over = OVER.has(state);
    const line = new AbortController();
    this.#line = line;
    this.signal.addEventListener("abort", () => line.abort(), { signal: line.signal });
    try {
      await follow(analyses.eventsUrl(id), (event) => this.#take(event, over), { signal: line.signal });
      if (!line.signal.aborted && !over) await this.#reload();
    } catch (error) {
      if (error.name !== "AbortError" && !over) toast(error.message, { error: true });
    }
  }

  #take({ type, data }, over) {
    if (type === "page") this.pages.tell(data);
    if (type === "done") return true;
    if (type === "analysis" && data.state === "converted") {
      this.#drawn = true;
      this.#expect();
    }
    if (over) return false;
    if (type === "analysis") Object.assign(this.analysis, data);
    if (type === "progress") this.#job = { state: "running", ...this.#job, progress: data };
    if (type === "analysis" || type === "progress") this.#drawLive();
    return false;
  }

  async #reload() {
    this.analysis = await analyses.whole(this.analysis.id, this.signal);
    this.#draw();
    if (OVER.has(this.analysis.state)) announce(`${this.analysis.name}: ${progressWords(this.analysis)}.`);
    else this.#listen();
  }

  #heard(job) {
    if (job.payload?.analysis_id !== this.analysis.id) return;
    const first = !this.analysis.job_id;
    this.#job = job;
    if (OVER.has(this.analysis.state) && !OVER.has(job.state)) this.#again(); // by somebody else
    else if (first) this.#again();
    else if (!OVER.has(this.analysis.state)) this.#drawLive();
  }

  async #again(fresh = null) {
    try {
      this.analysis = fresh ?? (await analyses.whole(this.analysis.id, this.signal));
      if (OVER.has(this.analysis.state)) return;
      this.pages.restart();
      this.#drawn = false;
      this.#draw();
      this.#listen();
    } catch (error) {
      if (error.name !== "AbortError") toast(error.message, { error: true });
    }
  }

  // -- drawing

  #draw() {
    const { result } = this.analysis;
    for (const page of result?.pages ?? []) this.pages.tell(page);
    this.#drawActs();
    this.#drawLive();
    fill(this.outcome, result ? new AnalysisResult(this.analysis).element : this.#without());
  }

  #drawActs() {
    const { analysis } = this;
    const focused = this.acts.contains(document.activeElement);
    const retry = () => acts.retry(analysis, (fresh) => this.#again(fresh));
    const button = (label, sign, run, name = "button") =>
      h("button", { type: "button", class: name, onclick: run }, icon(sign), label);
    fill(
      this.acts,
      acts.isBroken(analysis) && button("Try again", "redo", retry, "button primary"),
      !OVER.has(analysis.state) && analysis.job_id && button("Stop", "stop", () => acts.stop(analysis)),
      acts.hasText(analysis) &&
        can("documents:write") &&
        button("Add to the documents", "book", () => acts.toDocument(analysis)),
      menuButton(
        `More about ${analysis.name}`,
        () =>
          acts
            .entries(analysis, { changed: (fresh) => this.#again(fresh), gone: () => navigate("/analyses") })
            .filter((each) => each && !["Try again", "Stop", "Add to the documents"].includes(each.label)),
        { class: "iconbutton" },
      ),
    );
    if (focused) this.acts.querySelector("button").focus();
  }

  // What changes while it runs.
  #drawLive() {
    const { analysis } = this;
    const { state, way, why, result, error } = analysis;
    this.#expect();
    const over = OVER.has(state);
    fill(
      this.state,
      h(
        "div",
        { class: "row spread" },
        h("span", { class: `badge ${BADGES[state] ?? "busy"}` }, progressWords(analysis, this.#job)),
        over && h("span", { class: "small faint", title: exact(analysis.finished_at) }, took(analysis)),
      ),
      !over && state !== "queued" && progressBar(analysis, this.#job),
      error && over && h("div", { class: "notice bad", role: "alert" }, icon("warn"), h("p", null, error.message)),
      way &&
        h(
          "p",
          { class: "small soft" },
          !acts.isBroken(analysis) && h("b", null, `${WAYS[way]?.[Number(over)] ?? way}. `),
          over && coded(why),
        ),
      over && h("p", { class: "small soft" }, costWords(analysis)),
      (result?.warnings ?? []).length > 0 &&
        h(
          "div",
          { class: "notice warn" },
          icon("warn"),
          h("ul", { "aria-label": "Warnings" }, result.warnings.map((each) => h("li", null, coded(each)))),
        ),
    );
  }

  // Before there is a result, pages are known by their number alone.
  #expect() {
    const { pages, media_type: media, result } = this.analysis;
    if (!result) this.pages.expect(pages, this.#drawn && DRAWN.test(media));
  }

  #without() {
    if (OVER.has(this.analysis.state)) return null;
    return h("p", { class: "soft awaited" }, "The result will stand here. You can leave; it goes on.");
  }
}

const took = ({ created_at: from, finished_at: to }) =>
  to ? `took ${duration((new Date(to) - new Date(from)) / 1000)}` : "";

// Analyses in plain words: how far one is, which way it went, what it cost.

import { h } from "../dom.js";
import { ago, duration, money, number, plural } from "../format.js";

export const OVER = new Set(["succeeded", "failed", "cancelled"]);
export const BADGES = { saving: "warn", queued: "warn", succeeded: "good", failed: "bad", cancelled: "" };

const STATES = {
  saving: "Arriving",
  queued: "Waiting its turn",
  processing: "Getting the pages ready",
  converted: "Looking at the pages",
  answered: "Putting the result together",
  succeeded: "Done",
  failed: "Failed",
  cancelled: "Stopped",
};

export const TYPES = {
  resume: ["person", "Who it is, what they did and can do"],
  invoice: ["tag", "Who is to pay whom, for what, until when"],
  contract: ["shield", "Parties, periods, duties, unusual clauses"],
  free: ["files", "Written out and described"],
};

// While it goes that way, and when it has gone it.
export const WAYS = {
  vision: ["A model looks at the pages", "A model looked at the pages"],
  ocr: ["Pictures are read by OCR, a model is given the text", "Pictures were read by OCR, a model was given the text"],
  text: ["A model is given the text", "A model was given the text"],
  quote: ["The text is quoted, without a model", "The text was quoted, without a model"],
};

// How far it is, with what its job tells where that is known.
export function progressWords(analysis, job = null) {
  if (OVER.has(analysis.state)) return STATES[analysis.state];
  if (job?.cancel_requested) return "Stopping";
  if (job?.state === "queued" && job.position) {
    const wait = job.expected_wait > 1 ? `, about ${duration(job.expected_wait)}` : "";
    return `${STATES.queued}, ${number(job.position)} ahead${wait}`;
  }
  if (job?.state === "waiting" && job.failures) return `Will try again ${ago(job.run_at)}`;
  if (job?.state === "running" && job.progress?.note && analysis.state !== "answered") return job.progress.note;
  if (analysis.state === "converted" && analysis.pages)
    return `${analysis.pages_done} of ${plural(analysis.pages, "page")} answered`;
  return STATES[analysis.state];
}

// The part that is done, 0 where nobody can say.
export function partDone(analysis, job = null) {
  const { done, total } = job?.state === "running" ? (job.progress ?? {}) : {};
  if (total) return done / total;
  return analysis.pages ? analysis.pages_done / analysis.pages : 0;
}

export function progressBar(analysis, job = null) {
  const part = partDone(analysis, job);
  const bar = h("i");
  bar.style.width = `${part * 100}%`;
  return h(
    "div",
    {
      class: part ? "bar" : "bar unknown",
      role: "progressbar",
      "aria-label": `Analysing ${analysis.name}`,
      "aria-valuemin": 0,
      "aria-valuemax": 100,
      "aria-valuenow": part ? Math.round(part * 100) : null,
    },
    bar,
  );
}

// What the calls of models were, and cost.
export function costWords({ usage, cost, way }) {
  if (!usage) return "";
  if (!usage.calls || way === "quote") return "No model was asked, so it cost nothing.";
  const tokens = `${number(usage.input_tokens)} tokens in, ${number(usage.output_tokens)} out`;
  const asked = `${plural(usage.calls, "call")} of the model (${tokens})`;
  if (cost === null) return `${asked}; what that cost is not known, since the model has no price here.`;
  return `${asked}, which cost ${cost ? money(cost) : "nothing"}.`;
}

// A sentence of the server, its `names` set apart.
export const coded = (text) => text.split("`").map((part, index) => (index % 2 ? h("code", null, part) : part));

// One analysis in the list, and a file that is still on its way there.

import { h } from "../dom.js";
import { ago, bytes, exact, fileType, plural } from "../format.js";
import { entries, retry } from "./analysisacts.js";
import { BADGES, OVER, progressBar, progressWords } from "./analysiswords.js";
import { again, forget } from "./analysisqueue.js";
import { menuButton } from "./menu.js";

// `act`: {changed(analysis), gone(analysis)}; `titles`: of types, by name.
export function analysisLine(analysis, job, titles, act) {
  const over = OVER.has(analysis.state);
  const facts = [
    titles.get(analysis.type) ?? analysis.type,
    analysis.pages ? plural(analysis.pages, "page") : "",
    analysis.bytes ? bytes(analysis.bytes) : "",
    over ? (analysis.model ?? "") : "",
  ].filter(Boolean);
  return h(
    "li",
    { class: "doc", data: { id: analysis.id } },
    h("span", { class: "filetype", "aria-hidden": "true" }, fileType(analysis)),
    h(
      "div",
      { class: "name" },
      h("a", { href: `/analyses/${analysis.id}`, class: "clip", title: analysis.name }, analysis.name),
      h("div", { class: "meta" }, h("span", null, facts.join(" · "))),
    ),
    h(
      "div",
      { class: "status" },
      h(
        "span",
        { class: `badge ${BADGES[analysis.state] ?? "busy"}` },
        h("span", { class: "clip" }, progressWords(analysis, job)),
      ),
      !over && analysis.state !== "queued" && progressBar(analysis, job),
    ),
    h("span", { class: "when", title: exact(analysis.created_at) }, ago(analysis.created_at)),
    h("div", { class: "acts" }, menuButton(`More about ${analysis.name}`, () => entries(analysis, act))),
    analysis.state === "failed" &&
      analysis.error &&
      h(
        "div",
        { class: "why" },
        h("span", { class: "grow" }, analysis.error.message),
        h(
          "button",
          { type: "button", class: "button little", onclick: () => retry(analysis, act.changed) },
          "Try again",
        ),
      ),
  );
}

export function sendingLine(entry) {
  const { file, state, part, error } = entry;
  const bar = h("i");
  bar.style.width = `${part * 100}%`;
  return h(
    "li",
    { class: "doc", data: { key: entry.key } },
    h("span", { class: "filetype", "aria-hidden": "true" }, fileType(file)),
    h(
      "div",
      { class: "name" },
      h("span", { class: "clip", title: file.name }, file.name),
      h("div", { class: "meta" }, bytes(file.size)),
    ),
    h(
      "div",
      { class: "status" },
      h(
        "span",
        { class: error ? "badge bad" : "badge busy" },
        error ? "Not taken" : state === "waiting" ? "Waiting to be sent" : `${Math.round(part * 100)}% sent`,
      ),
      state === "sending" && h("div", { class: part ? "bar" : "bar unknown", "aria-hidden": "true" }, bar),
    ),
    h("span"),
    h("span"),
    error &&
      h(
        "div",
        { class: "why" },
        h("span", { class: "grow" }, error.message),
        h("button", { type: "button", class: "button little", onclick: () => again(entry) }, "Try again"),
        h("button", { type: "button", class: "button little", onclick: () => forget(entry) }, "Dismiss"),
      ),
  );
}

// What came of an analysis: its fields, its text, and both as JSON.

import { fill, h, rendered } from "../dom.js";
import { fieldTable } from "./fieldtable.js";
import { icon } from "./icons.js";
import { dress } from "./message.js";
import { copy } from "./toast.js";

const stem = (name) => name.replace(/\.[^.]+$/, "") || name;

export class AnalysisResult {
  #shown = null;

  constructor(analysis) {
    this.analysis = analysis;
    const { fields, rejected } = analysis.result;
    this.faces = [
      fields !== null && ["fields", "Fields"],
      fields === null && rejected && ["rejected", "Fields"],
      ["text", "Text"],
      ["json", "JSON"],
    ].filter(Boolean);
    this.tabs = h("div", { class: "tabs", role: "group", "aria-label": "What to show of the result" });
    this.acts = h("div", { class: "row" });
    this.body = h("div", { class: "resultbody" });
    this.element = h(
      "section",
      { class: "result", "aria-labelledby": "result-title" },
      h("h2", { class: "quiet", id: "result-title" }, "Result"),
      h("div", { class: "row spread" }, this.tabs, this.acts),
      this.body,
    );
    this.show(this.faces[0][0]);
  }

  show(face) {
    const focused = this.tabs.contains(document.activeElement);
    this.#shown = face;
    fill(
      this.tabs,
      this.faces.map(([name, label]) =>
        h(
          "button",
          { type: "button", "aria-pressed": String(name === face), onclick: () => this.show(name) },
          label,
        ),
      ),
    );
    if (focused) this.tabs.querySelector("[aria-pressed=true]").focus();
    const { result, name } = this.analysis;
    const json = (value) => JSON.stringify(value, null, 2);
    const draw = {
      fields: () => [this.#acts(json(result.fields), `${stem(name)}.json`), fieldTable(result.fields)],
      rejected: () => [
        this.#acts(json(result.rejected), `${stem(name)}.json`),
        [
          h("p", { class: "soft small" }, "This is what the model gave; it does not fit the schema."),
          fieldTable(result.rejected, "What the model gave"),
        ],
      ],
      text: () => [this.#acts(result.markdown, `${stem(name)}.md`), text(result)],
      json: () => {
        const { html: _, ...told } = result;
        return [
          this.#acts(json(told), `${stem(name)}.result.json`),
          h(
            "pre",
            { class: "fieldjson", tabindex: "0", role: "region", "aria-label": "The result as JSON" },
            json(told),
          ),
        ];
      },
    };
    const [acts, inside] = draw[face]();
    fill(this.acts, acts);
    fill(this.body, inside);
  }

  #acts(content, name) {
    const act = (label, sign, run) =>
      h("button", { type: "button", class: "button little", onclick: run }, icon(sign), label);
    return [act("Copy", "copy", () => copy(content)), act("Download", "download", () => save(content, name))];
  }
}

// As HTML where the server gave it; the page itself parses no markdown.
function text({ html, markdown }) {
  if (html === undefined) return h("div", { class: "plaintext" }, markdown);
  const prose = rendered(h("div", { class: "prose" }), html);
  dress(prose);
  return prose;
}

function save(content, name) {
  const url = URL.createObjectURL(new Blob([content], { type: "text/plain;charset=utf-8" }));
  const link = h("a", { href: url, download: name, hidden: true });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

// The text of a template: places for values marked in it, offered as chips, and checked while it is written.

import { announce, debounce, fill, h } from "../dom.js";
import { contacts, templates } from "../campaigns.js";
import { number, plural } from "../format.js";
import { field } from "./form.js";
import { icon } from "./icons.js";

const PLACE = /\{\{[^{}]*\}\}/g;
const MODES = [
  ["write", "A model writes each message", "The text is what the model is told to write."],
  ["fill", "The text is the message", "Its places are filled; no model is asked and nothing is paid."],
];
let count = 0;

// `changed(draft)` after each keystroke. `list` is the id of the list whose contacts are checked, or null.
export class TemplateEditor {
  #asked = null;
  #problems = [];
  #counts = null;
  checked = null; // the server's last word: {ok, problems, contacts, placeholders}

  constructor(draft, { list = null, changed = () => {}, ready = () => {}, signal }) {
    count += 1;
    Object.assign(this, { list, changed, ready, signal });
    const key = `template-${count}`;
    this.area = h("textarea", {
      id: key,
      rows: 8,
      spellcheck: "true",
      maxlength: 50_000,
      "aria-describedby": `${key}-told`,
      placeholder: "Write a short, warm message to {{contact.name}} …",
      oninput: () => this.#written(),
    });
    this.mirror = h("div", { class: "mirror", "aria-hidden": "true" });
    this.chips = h("div", { class: "chips", role: "group", "aria-label": "Put in a place for a value" });
    this.told = h("div", { class: "templatetold", id: `${key}-told` });
    this.modes = this.#modes(key, draft.mode);
    this.system = field({
      label: "Further instructions for the model",
      name: "system",
      required: false,
      value: draft.system ?? "",
      control: h("textarea", { class: "field", rows: 3, maxlength: 20_000, oninput: () => this.#written() }),
      hint: "How it shall sound, what it must not say, in which language it writes.",
    });
    this.query = field({
      label: "What {{knowledge}} looks for",
      name: "knowledge_query",
      required: false,
      value: draft.knowledge_query ?? "",
      maxlength: 2000,
      hint: "Such as: {{contact.product}} warranty. Passages of your documents that fit are given to the model.",
    });
    this.query.input.addEventListener("input", () => this.#written());
    this.area.value = draft.body ?? "";
    this.check = debounce(300, () => this.#check());
    this.element = h(
      "div",
      { class: "templateeditor" },
      this.modes,
      h(
        "div",
        { class: "formfield" },
        h("label", { for: key }, "Text"),
        h("div", { class: "texteditor" }, this.mirror, this.area),
      ),
      this.chips,
      this.told,
      this.query.element,
      this.system.element,
    );
    this.#paint();
    this.#fit();
    this.#check();
    this.#offer();
  }

  get draft() {
    return {
      body: this.area.value,
      mode: this.modes.querySelector("input:checked").value,
      system: this.system.value,
      knowledge_query: this.query.value,
    };
  }

  #modes(key, mode) {
    return h(
      "fieldset",
      { class: "modes" },
      h("legend", { class: "quiet" }, "How a message comes about"),
      MODES.map(([value, label, hint]) =>
        h(
          "label",
          { class: "modechoice" },
          h("input", {
            type: "radio",
            name: `${key}-mode`,
            value,
            checked: value === (mode ?? "write"),
            onchange: () => this.#written(),
          }),
          h("span", null, h("b", null, label), h("span", { class: "small soft" }, hint)),
        ),
      ),
    );
  }

  #written() {
    this.#problems = []; // what was wrong may be mended now
    this.#paint();
    this.#fit();
    this.changed(this.draft);
    this.check();
  }

  // What belongs to models and documents is shown where it is used.
  #fit() {
    const { mode, body, knowledge_query: wanted } = this.draft;
    this.system.element.hidden = mode === "fill";
    this.query.element.hidden = !body.includes("knowledge") && !wanted;
  }

  // The same text behind the one being written, with places and faults marked.
  #paint() {
    const text = this.area.value;
    const wrong = this.#problems.map((each) => offsets(text, each));
    const marks = [...text.matchAll(PLACE)].map((found) => [found.index, found.index + found[0].length, "slot"]);
    const all = [...wrong.map(([start, end]) => [start, end, "wrong"]), ...marks].sort((a, b) => a[0] - b[0]);
    const pieces = [];
    let at = 0;
    for (const [start, end, look] of all) {
      if (start < at) continue;
      pieces.push(text.slice(at, start), h("mark", { class: look }, text.slice(start, end)));
      at = end;
    }
    fill(this.mirror, pieces, `${text.slice(at)}\n`);
  }

  async #offer() {
    try {
      this.#counts = await contacts.fields(this.list, this.signal);
    } catch {
      this.#counts = { contacts: 0, fields: {} }; // the list is gone: the built-in ones are offered
    }
    const { contacts: total, fields } = this.#counts;
    const names = ["name", "email", ...Object.keys(fields).filter((name) => !["name", "email", "key"].includes(name))];
    const offered = [
      ...names
        .slice(0, 40)
        .map((name) => [`contact.${name}`, total && `${number(fields[name] ?? 0)} of ${number(total)} have it`]),
      ["last_conversation", "What was said last to the contact"],
      ["knowledge", "Passages of your documents that fit"],
    ];
    fill(
      this.chips,
      h("span", { class: "small faint" }, "Put in"),
      offered.map(([name, title]) =>
        h(
          "button",
          { type: "button", class: "chip", title: title || null, onclick: () => this.#put(name) },
          icon("plus"),
          name,
        ),
      ),
    );
  }

  #put(name) {
    const { selectionStart: start, selectionEnd: end } = this.area;
    this.area.focus();
    this.area.setRangeText(`{{${name}}}`, start, end, "end");
    this.#written();
  }

  async #check() {
    this.#asked?.abort();
    const asked = new AbortController();
    this.#asked = asked;
    this.signal.addEventListener("abort", () => asked.abort(), { once: true });
    const draft = this.draft;
    if (!draft.body.trim()) {
      this.#tell(null);
      return;
    }
    try {
      const checked = await templates.check({ ...draft, ...(this.list ? { list_id: this.list } : {}) }, asked.signal);
      this.#problems = checked.problems;
      this.#paint();
      this.#tell(checked);
    } catch (error) {
      if (error.name !== "AbortError") this.#tell({ ok: false, problems: [], fault: error.message });
    }
  }

  #tell(checked) {
    const before = this.told.textContent;
    this.checked = checked;
    this.area.setAttribute("aria-invalid", String(Boolean(checked?.problems.length)));
    fill(this.told, checked && this.#words(checked));
    if (this.told.textContent !== before && checked) announce(this.told.textContent);
    this.ready(checked);
  }

  #words({ problems, placeholders = [], contacts: total, fault }) {
    if (fault) return h("p", { class: "wrong" }, icon("warn"), fault);
    if (problems.length)
      return h(
        "ul",
        { class: "problems" },
        problems.map((each) =>
          h(
            "li",
            null,
            h(
              "button",
              { type: "button", class: "linkbutton", onclick: () => this.#show(each) },
              `Line ${each.line}, column ${each.column}`,
            ),
            h("span", null, each.message),
          ),
        ),
      );
    const lacking = placeholders.filter((each) => !each.covered);
    if (lacking.length)
      return h(
        "ul",
        { class: "lacking" },
        lacking.map((each) =>
          h(
            "li",
            null,
            h("b", null, `{{${each.name}}}`),
            ` is missing for ${plural(each.lacking, "contact")} of ${number(total)}`,
            each.examples.length > 0 &&
              `, such as ${each.examples
                .slice(0, 3)
                .map((one) => one.name || one.key)
                .join(", ")}`,
            ". Give it a default: ",
            h("code", null, `{{${each.name} | default: "…"}}`),
          ),
        ),
      );
    if (total === null || total === undefined)
      return h("p", { class: "allgood" }, icon("check"), "The text can be read.");
    return h(
      "p",
      { class: "allgood" },
      icon("check"),
      total
        ? `Nothing is missing: all ${plural(total, "contact")} have what it asks for.`
        : "There is nobody in this list yet.",
    );
  }

  #show(problem) {
    const [start, end] = offsets(this.area.value, problem);
    this.area.focus();
    this.area.setSelectionRange(start, end);
  }
}

// Where a fault stands in the text; lines and columns count characters from 1.
function offsets(text, { line, column }) {
  const lines = text.split("\n");
  const before = lines.slice(0, line - 1).reduce((sum, each) => sum + each.length + 1, 0);
  const here = lines[line - 1] ?? "";
  const start = before + [...here].slice(0, column - 1).join("").length;
  const close = text.indexOf("}}", start + 2);
  const next = text.indexOf("{{", start + 2);
  const stop = before + here.length;
  const end = text.startsWith("{{", start) && close >= 0 && (next < 0 || close < next) ? close + 2 : stop;
  return [start, Math.max(end, Math.min(start + 1, text.length))];
}

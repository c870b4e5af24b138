// People from a table: what an import would do, which column is which field, then its progress and what came of it.

import { announce, debounce, fill, h } from "../dom.js";
import { api } from "../api.js";
import { number, plural } from "../format.js";
import { follow } from "../stream.js";
import { ask } from "./dialog.js";
import { bad } from "./form.js";
import { icon } from "./icons.js";

const OWN = "\n"; // no field is called so
const FINAL = new Set(["succeeded", "failed", "cancelled"]);
let count = 0;

// `list`: the name proposed; `lists`: those there are. `begun({job_id, list})` runs when the import was taken.
export class Import {
  #chosen = {};
  #examined = null;
  #asked = 0;

  constructor(source, { list = "", lists = [], begun, signal }) {
    count += 1;
    Object.assign(this, { source, begun, signal });
    this.told = h("div", { class: "import-told", role: "status" });
    this.table = h("div", { class: "tablebox", tabindex: "0", role: "region", "aria-label": "Columns and fields" });
    this.wrong = h("div", { role: "alert" });
    this.name = h("input", {
      class: "field",
      id: `list-${count}`,
      maxlength: 200,
      list: `lists-${count}`,
      value: list,
    });
    this.button = h("button", { type: "submit", class: "button primary" }, "Import");
    this.element = h(
      "form",
      { class: "import", onsubmit: (event) => this.#bring(event) },
      this.told,
      this.table,
      this.wrong,
      h(
        "div",
        { class: "import-into" },
        h("label", { for: `list-${count}` }, "Into the list"),
        this.name,
        h(
          "datalist",
          { id: `lists-${count}` },
          lists.map((each) => h("option", { value: each.name })),
        ),
        this.button,
      ),
    );
    this.again = debounce(120, () => this.examine());
  }

  async examine() {
    this.#asked += 1;
    const turn = this.#asked;
    this.#busy(true);
    fill(this.wrong);
    if (!this.#examined) fill(this.told, h("p", { class: "row soft" }, h("span", { class: "spinner" }), "Reading it…"));
    try {
      const { examined } = await this.source.examine(this.#chosen, this.signal);
      if (turn !== this.#asked) return;
      this.#examined = examined;
      this.#draw();
      this.#busy(false);
    } catch (error) {
      if (error.name === "AbortError" || turn !== this.#asked) return;
      fill(this.wrong, bad(error.message));
      if (!this.#examined) fill(this.told);
    }
  }

  #busy(busy) {
    this.button.disabled = busy;
    this.table.setAttribute("aria-busy", String(busy));
  }

  #draw() {
    const { rows, new: fresh, changed, unchanged, repeated, invalid, problems, notes } = this.#examined;
    const told = [
      fresh && `${number(fresh)} new`,
      changed && `${number(changed)} changed`,
      unchanged && `${number(unchanged)} as they are`,
      repeated && `${number(repeated)} named twice (the last one counts)`,
    ].filter(Boolean);
    fill(
      this.told,
      h("p", null, h("b", null, plural(rows, "row")), told.length > 0 && `: ${told.join(", ")}.`),
      invalid > 0 && rowErrors(problems, invalid, "be left out"),
      notes.map((note) => h("p", { class: "small soft" }, note)),
    );
    this.#drawTable();
  }

  #drawTable() {
    const { columns, mapping, sample } = this.#examined;
    const at = columns.indexOf(document.activeElement?.dataset?.column);
    fill(
      this.table,
      h(
        "table",
        { class: "rowsgrid" },
        h("caption", { class: "quiet" }, `Columns of ${this.source.name}, the field each becomes, and the first rows`),
        h(
          "thead",
          null,
          h(
            "tr",
            null,
            columns.map((column) => h("th", { scope: "col" }, h("span", { class: "clip" }, column))),
          ),
          h(
            "tr",
            null,
            columns.map((column) => h("td", null, this.#pick(column, mapping[column]))),
          ),
        ),
        h(
          "tbody",
          null,
          sample.map((row) =>
            h(
              "tr",
              null,
              columns.map((column) => h("td", { class: mapping[column] ? "" : "out" }, row[column] ?? "")),
            ),
          ),
        ),
      ),
    );
    if (at >= 0) this.table.querySelectorAll("select")[at]?.focus();
  }

  #pick(column, field) {
    const names = new Set(["email", "name", "key", ...Object.values(this.#examined.mapping).filter(Boolean)]);
    if (field) names.add(field);
    const select = h(
      "select",
      { class: "select boxed", "aria-label": `Field for the column ${column}`, data: { column } },
      h("option", { value: "" }, "leave it out"),
      [...names].map((name) => h("option", { value: name }, name)),
      h("option", { value: OWN }, "another name…"),
    );
    select.value = field;
    select.addEventListener("change", () => this.#choose(column, field, select));
    return h("span", { class: "selectwrap" }, select, icon("down"));
  }

  async #choose(column, before, select) {
    let wanted = select.value;
    if (wanted === OWN) {
      wanted = await ask({
        title: `The field for ${column}`,
        label: "Its name: small letters, digits and underscores",
        max: 64,
        action: "Use it",
      });
      if (!wanted) {
        select.value = before;
        return;
      }
    }
    // whoever had this field gives it up
    for (const [other, name] of Object.entries(this.#examined.mapping))
      if (wanted && other !== column && name === wanted) this.#chosen[other] = "";
    this.#chosen[column] = wanted;
    this.again();
  }

  async #bring(event) {
    event.preventDefault();
    const list = this.name.value.trim();
    if (!list) {
      fill(this.wrong, bad("Name the list they go into."));
      this.name.focus();
      return;
    }
    if (this.button.disabled) return;
    this.#busy(true);
    fill(this.wrong);
    try {
      const taken = await this.source.bring({ ...this.#examined?.mapping, ...this.#chosen }, list);
      this.begun(taken);
    } catch (error) {
      fill(this.wrong, bad(error.message));
      this.#busy(false);
    }
  }
}

function rowErrors(problems, invalid, what) {
  return h(
    "details",
    { class: "rowerrors", open: invalid <= 5 },
    h("summary", null, icon("warn"), `${plural(invalid, "row")} cannot be taken and will ${what}`),
    h(
      "ul",
      null,
      problems.map(({ line, message }) => h("li", null, h("b", null, `Line ${number(line)}: `), message)),
    ),
    problems.length < invalid && h("p", { class: "small" }, `The first ${number(problems.length)} are shown.`),
  );
}

// An import under way. `done(job)` runs at its end, well or not.
export function importProgress({ job_id: jobId, list }, { done, signal }) {
  const bar = h("i");
  const words = h("p", { class: "small soft" }, "Waiting its turn");
  const progress = h(
    "div",
    { class: "bar unknown", role: "progressbar", "aria-label": `Import into ${list.name}` },
    bar,
  );
  const place = h("div", { class: "importing" }, h("p", null, `Into the list “${list.name}”`), progress, words);
  const show = (told) => {
    if (!told) return;
    const part = told.total > 1 ? told.done / told.total : 0;
    progress.classList.toggle("unknown", !part);
    bar.style.width = part ? `${part * 100}%` : "";
    if (part) progress.setAttribute("aria-valuenow", Math.round(part * 100));
    if (told.note) words.textContent = told.note;
  };
  const end = async () => {
    const job = await api.job(jobId, signal);
    if (!FINAL.has(job.state)) return false;
    fill(place, outcome(job));
    announce(job.state === "succeeded" ? "The contacts are in." : "The import did not succeed.");
    done(job);
    return true;
  };
  follow(
    api.jobEventsUrl(jobId),
    (event) => {
      if (event.type === "progress") show(event.data);
      return event.type === "done";
    },
    { signal },
  )
    .then(() => !signal.aborted && end())
    .catch((error) => {
      if (error.name !== "AbortError") fill(place, bad(error.message));
    });
  return place;
}

function outcome({ state, result, error }) {
  if (state !== "succeeded") return bad(error?.message ?? "The import was stopped. Who is in already stays.");
  const { new: fresh, changed, unchanged, invalid, problems = [], notes = [] } = result;
  return [
    h(
      "div",
      { class: "notice good", role: "status" },
      icon("check"),
      h("p", null, `${number(fresh)} new, ${number(changed)} changed, ${number(unchanged)} as they were.`),
    ),
    invalid > 0 && rowErrors(problems, invalid, "have to be mended in the file"),
    notes.map((note) => h("p", { class: "small soft" }, note)),
  ];
}

// A button that lets a CSV or XLSX be chosen.
export function fileButton(label, chosen, { primary = false } = {}) {
  const input = h("input", {
    type: "file",
    accept: ".csv,.tsv,.txt,.xlsx,text/csv",
    class: "quiet",
    tabindex: "-1",
    "aria-hidden": "true",
    onchange: () => {
      if (input.files[0]) chosen(input.files[0]);
      input.value = "";
    },
  });
  const button = h(
    "button",
    { type: "button", class: primary ? "button primary" : "button", onclick: () => input.click() },
    icon("upload"),
    label,
  );
  return [button, input];
}

export const listNameOf = (file) => file.name.replace(/\.[a-z0-9]{1,5}$/i, "");

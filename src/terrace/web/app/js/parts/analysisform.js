// What is asked of files: which, of what type, in whose words, with which fields. Kept in this tab until it is sent.

import { debounce, fill, h, inThisTab } from "../dom.js";
import { bytes, plural } from "../format.js";
import { session } from "../session.js";
import { TYPES } from "./analysiswords.js";
import { chatModels, models } from "./answering.js";
import { chooseFiles } from "./drop.js";
import { bad, field, select } from "./form.js";
import { icon } from "./icons.js";
import { checkSchema } from "./schemacheck.js";

const MOST = 200; // files at once
const AT = { bad_schema: "schema", prompt_too_long: "prompt" }; // what is refused, and the field it is about
const EXAMPLE = {
  type: "object",
  properties: { title: { type: "string" }, date: { type: ["string", "null"], description: "as YYYY-MM-DD" } },
  required: ["title"],
};

export class AnalysisForm {
  files = [];
  #refused = null; // the schema that the server would not have, and why

  // `types`: as the API tells them. `send(files, wish)` takes what was chosen.
  constructor({ types, send, signal }) {
    Object.assign(this, { types, send, signal });
    const kept = inThisTab.get("analysis") ?? {};
    const draft = kept.user === session().user?.id ? kept : {};
    this.type = types.some(({ name }) => name === draft.type) ? draft.type : "free";
    this.zone = h("div", { class: "dropzone" });
    this.told = h("div", { class: "told", role: "alert" });
    this.prompt = field({
      label: "Your own words",
      name: "prompt",
      required: false,
      value: draft.prompt ?? "",
      hint: "Asked in the place of what stands in grey.",
      control: h("textarea", { class: "field", rows: 4, maxlength: 20_000 }),
    });
    this.schema = field({
      label: "Fields to fill, as a JSON schema",
      name: "schema",
      required: false,
      value: draft.schema ?? "",
      control: h("textarea", { class: "field mono", rows: 8, maxlength: 65_536, spellcheck: "false" }),
    });
    this.checked = h("p", { class: "small soft", role: "status" });
    this.model = select({
      label: "Model that looks at it",
      name: "model",
      required: false,
      options: [["", "The best there is"]],
    });
    this.more = h("details", { class: "more" }, h("summary", null, "Your own words, fields and model"));
    this.more.open = Boolean(draft.prompt || draft.schema || draft.model);
    this.button = h("button", { type: "submit", class: "button primary" });
    this.element = this.#built();
    const check = debounce(250, () => this.#check());
    for (const { input } of [this.prompt, this.schema, this.model])
      input.addEventListener("input", () => {
        this.#keep();
        if (input === this.schema.input) check();
      });
    this.#check();
    this.#draw();
    this.#listModels(draft.model).catch(() => {}); // without it, the best there is will do
  }

  #built() {
    const start = h(
      "button",
      { type: "button", class: "button plain little", onclick: () => this.#start() },
      "Start from this type's fields",
    );
    this.more.append(
      h(
        "div",
        { class: "analysismore" },
        this.prompt.element,
        h("div", { class: "schemafield" }, this.schema.element, h("div", { class: "row spread" }, this.checked, start)),
        this.model.element,
      ),
    );
    return h(
      "form",
      {
        class: "analysisform",
        novalidate: true,
        "aria-label": "Analyse files",
        onsubmit: (event) => {
          event.preventDefault();
          this.#submit();
        },
      },
      this.zone,
      h(
        "fieldset",
        { class: "typecards" },
        h("legend", { class: "quiet" }, "What they are"),
        this.types.map(({ name, title }) => this.#card(name, title)),
      ),
      this.more,
      this.told,
      h("div", { class: "row formacts" }, this.button),
    );
  }

  #card(name, title) {
    const [sign, says] = TYPES[name] ?? ["files", ""];
    return h(
      "label",
      { class: "typecard" },
      h("input", {
        type: "radio",
        name: "type",
        value: name,
        checked: name === this.type,
        onchange: () => {
          this.type = name;
          this.#keep();
          this.#check();
        },
      }),
      icon(sign),
      h("span", null, h("b", null, title), h("span", { class: "small soft" }, says)),
    );
  }

  async #listModels(wanted) {
    const answer = await models();
    this.model.input.append(
      ...chatModels(answer).map((each) => h("option", { value: each.id }, `${each.provider}: ${each.name || each.id}`)),
    );
    if ([...this.model.input.options].some(({ value }) => value === wanted)) this.model.input.value = wanted;
  }

  #keep() {
    const { prompt, schema, model, type } = this;
    inThisTab.set("analysis", {
      user: session().user?.id,
      type,
      prompt: prompt.value,
      schema: schema.value,
      model: model.value,
    });
  }

  #known() {
    return this.types.find(({ name }) => name === this.type);
  }

  #start() {
    this.schema.input.value = JSON.stringify(this.#known()?.schema ?? EXAMPLE, null, 2);
    this.schema.input.focus();
    this.schema.input.setSelectionRange(0, 0);
    this.schema.input.scrollTop = 0;
    this.#keep();
    this.#check();
  }

  // Says what will be filled; false where the schema can't be meant so.
  #check() {
    const known = this.#known();
    this.prompt.input.placeholder = known?.prompt ?? "";
    if (!this.schema.value) {
      this.schema.fail("");
      const own = known?.schema && !(this.type === "free" && this.prompt.value);
      this.checked.textContent = own
        ? `Without one: ${Object.keys(known.schema.properties).join(", ").replace(/_/g, " ")}.`
        : "Without one the answer is text alone.";
      return true;
    }
    const { value, why } = this.#refused ?? {};
    const { fault = value === this.schema.value ? why : "", fields } = checkSchema(this.schema.value);
    this.schema.fail(fault);
    this.checked.textContent = fault
      ? ""
      : fields.length
        ? `Fits: ${plural(fields.length, "field")}, ${fields.slice(0, 12).join(", ")}${fields.length > 12 ? " …" : ""}.`
        : "It is a schema, but names no fields.";
    return !fault;
  }

  take(files) {
    const fresh = files.filter((file) => !this.files.some((each) => same(each, file)));
    this.files = [...this.files, ...fresh].slice(0, MOST);
    fill(this.told, this.files.length === MOST && bad(`At most ${MOST} files are taken at once.`));
    this.#draw();
    this.button.focus({ preventScroll: true });
  }

  // A file that was refused for how it was asked about comes back, with the reason at its field.
  returned(file, { code, message }) {
    if (!AT[code]) return false;
    this.take([file]);
    this.more.open = true;
    const about = this[AT[code]];
    if (about === this.schema) this.#refused = { value: about.value, why: message };
    about.fail(message);
    about.input.focus();
    return true;
  }

  #draw() {
    const some = this.files.length > 0;
    this.zone.classList.toggle("chosen", some);
    const choose = h(
      "button",
      { type: "button", class: some ? "button little" : "button", onclick: () => this.choose() },
      icon(some ? "plus" : "upload"),
      some ? "Add more" : "Choose files",
    );
    if (some)
      fill(
        this.zone,
        h("ul", { class: "chosenfiles", "aria-label": "Chosen files" }, this.files.map((file) => this.#chosen(file))),
        choose,
      );
    else
      fill(
        this.zone,
        icon("scan"),
        h(
          "p",
          null,
          h("b", null, "Drop files here. "),
          "PDF, pictures, Word, PowerPoint, and what holds text.",
        ),
        choose,
      );
    fill(this.button, icon("scan"), some ? `Analyse ${plural(this.files.length, "file")}` : "Analyse");
  }

  #chosen(file) {
    const drop = () => {
      this.files = this.files.filter((each) => each !== file);
      this.#draw();
      this.zone.querySelector("button").focus();
    };
    return h(
      "li",
      { class: "chip on" },
      h("span", { class: "clip", title: file.name }, file.name),
      h("span", { class: "nums" }, bytes(file.size)),
      h("button", { type: "button", "aria-label": `Leave out ${file.name}`, onclick: drop }, icon("close")),
    );
  }

  choose() {
    chooseFiles((files) => this.take(files));
  }

  #submit() {
    fill(this.told);
    if (!this.#check()) {
      this.more.open = true;
      this.schema.input.focus();
      return;
    }
    if (!this.files.length) {
      fill(this.told, bad("Choose a file first, or drop one here."));
      this.zone.querySelector("button").focus();
      return;
    }
    const { files, type } = this;
    this.files = [];
    this.#draw();
    this.send(files, { type, prompt: this.prompt.value, schema: this.schema.value, model: this.model.value });
  }
}

const same = (one, other) =>
  one.name === other.name && one.size === other.size && one.lastModified === other.lastModified;

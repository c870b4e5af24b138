// The second step: what is written.

import { fill, h } from "../dom.js";
import { api } from "../api.js";
import { templates } from "../campaigns.js";
import { can } from "../session.js";
import { chatModels, models } from "./answering.js";
import { field, select } from "./form.js";
import { TemplateEditor } from "./templateeditor.js";

export class TemplateStep {
  name = "Template";
  heading = "What shall each message say?";

  constructor({ draft, signal, ready }) {
    Object.assign(this, { draft, signal, ready, known: [] });
    this.begin = h("div");
    this.title = field({
      label: "Name of the template",
      name: "name",
      value: draft.now.templateName,
      maxlength: 200,
      hint: "So that you find it again for another campaign.",
    });
    this.title.input.addEventListener("input", () => {
      draft.set({ templateName: this.title.value });
      ready();
    });
    this.version = h("p", { class: "small soft" });
    this.editing = h("div");
    this.with = h("div", { class: "pair" });
    this.element = h(
      "div",
      { class: "stepbody" },
      this.begin,
      this.title.element,
      this.editing,
      this.version,
      this.with,
    );
  }

  get problem() {
    const { text, templateName, template } = this.draft.now;
    if (!text.body.trim()) return "Write the text first.";
    if (this.editor?.checked?.problems.length) return "Mend the text first.";
    if (!template && !templateName) return "Give the template a name.";
    return "";
  }

  async show() {
    this.#edit();
    const [kept, answer, collections] = await Promise.all([
      templates.list({ limit: 200 }, this.signal),
      models(),
      can("documents:read") ? api.collections(this.signal) : { items: [] },
    ]);
    this.known = kept.items;
    this.#drawBegin();
    this.#drawWith(answer, collections.items ?? collections);
    this.#told();
  }

  #edit() {
    this.editor = new TemplateEditor(this.draft.now.text, {
      list: this.draft.now.list?.id ?? null,
      signal: this.signal,
      changed: (text) => {
        this.draft.set({ text });
        this.#told();
        this.ready();
      },
      ready: (checked) => {
        const lacking = (checked?.placeholders ?? []).filter((each) => !each.covered);
        this.draft.set({ lacking: Math.max(0, ...lacking.map((each) => each.lacking)) });
        this.ready();
      },
    });
    fill(this.editing, this.editor.element);
  }

  #drawBegin() {
    if (!this.known.length) return;
    const chosen = this.draft.now.template;
    const options = this.known.map((each) => [each.id, each.name]);
    if (chosen && !options.some(([key]) => key === chosen.id)) options.unshift([chosen.id, chosen.name]);
    const begin = select({
      label: "Begin with",
      name: "begin",
      options: [["", "A new text"], ...options],
      value: chosen?.id ?? "",
    });
    begin.input.addEventListener("change", () => this.#choose(begin.value));
    fill(this.begin, begin.element);
  }

  #choose(key) {
    const found = this.known.find((each) => each.id === key);
    const text = found && {
      body: found.body,
      mode: found.mode,
      system: found.system,
      knowledge_query: found.knowledge_query,
    };
    this.draft.set({
      template: found ? { id: found.id, name: found.name, version: found.version, text } : null,
      ...(text ? { text } : {}),
    });
    this.#edit();
    this.#told();
    this.ready();
  }

  #told() {
    const { template } = this.draft.now;
    this.title.element.hidden = Boolean(template);
    this.version.textContent =
      template && this.draft.changedText
        ? `This becomes a new version of “${template.name}”. Campaigns that began with an older one keep it.`
        : "";
    this.with.hidden = this.draft.now.text.mode === "fill" && !this.draft.now.text.body.includes("knowledge");
  }

  #drawWith(answer, collections) {
    const usual = answer.answering?.model ?? answer.default;
    const model = select({
      label: "Model",
      name: "model",
      options: [
        ["", usual ? `The usual: ${usual}` : "The usual"],
        ...chatModels(answer).map((each) => [each.id, each.id]),
      ],
      value: this.draft.now.model,
    });
    const collection = select({
      label: "Documents to draw on",
      name: "collection",
      options: [["", "Everywhere"], ...collections.map((each) => [each.name, each.name])],
      value: this.draft.now.collection,
      hint: "Where {{knowledge}} looks.",
    });
    for (const [name, made] of Object.entries({ model, collection })) {
      const { input } = made;
      if (this.draft.now[name] && !input.value) {
        input.append(h("option", { value: this.draft.now[name] }, this.draft.now[name]));
        input.value = this.draft.now[name];
      }
      input.addEventListener("change", () => {
        this.draft.set({ [name]: input.value });
        this.ready();
      });
    }
    fill(this.with, model.element, collection.element);
  }

  async next() {
    try {
      await this.draft.keepTemplate();
    } catch (error) {
      if (error.code !== "name_taken") throw error;
      this.title.fail(error.message);
      this.title.input.focus();
      return false;
    }
    await this.draft.keepCampaign();
    return true;
  }
}

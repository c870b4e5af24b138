// The first step: to whom.

import { fill, h } from "../dom.js";
import { contacts, fromFile } from "../campaigns.js";
import { plural } from "../format.js";
import { fileButton, Import, importProgress, listNameOf } from "./contactimport.js";
import { bad } from "./form.js";

export class ContactsStep {
  name = "Contacts";
  heading = "Who gets a message?";

  constructor({ draft, signal, ready }) {
    Object.assign(this, { draft, signal, ready });
    this.lists = h("fieldset", { class: "choices" });
    this.place = h("div", { class: "import-place" });
    this.element = h(
      "div",
      { class: "stepbody" },
      this.lists,
      h(
        "div",
        { class: "uploadrow" },
        fileButton("Upload CSV or XLSX", (file) => this.#look(file)),
        h("p", { class: "small soft" }, "One row for each contact, with the columns' names in the first row."),
      ),
      this.place,
    );
  }

  get problem() {
    const { list, importing } = this.draft.now;
    if (importing) return "The contacts are still on their way in.";
    if (!list) return "Choose a list, or upload one.";
    return list.contacts ? "" : "There is nobody in this list yet.";
  }

  async show() {
    await this.#load();
    if (this.draft.now.importing) this.#follow(this.draft.now.importing);
  }

  async #load() {
    this.known = (await contacts.lists(this.signal)).items;
    const chosen = this.known.find((each) => each.id === this.draft.now.list?.id) ?? null;
    if (JSON.stringify(chosen) !== JSON.stringify(this.draft.now.list)) this.draft.set({ list: chosen });
    fill(
      this.lists,
      h("legend", { class: this.known.length ? "" : "quiet" }, "A list you have"),
      this.known.map((list) => this.#choice(list)),
      !this.known.length &&
        h("p", { class: "soft" }, "There is no list yet: upload a table of the people to write to."),
    );
    this.ready();
  }

  #choice(list) {
    return h(
      "label",
      { class: "choice" },
      h("input", {
        type: "radio",
        name: "list",
        value: list.id,
        checked: list.id === this.draft.now.list?.id,
        onchange: () => {
          this.draft.set({ list });
          this.ready();
        },
      }),
      h("span", { class: "grow clip" }, list.name),
      h("span", { class: "small faint nums" }, plural(list.contacts, "contact")),
    );
  }

  #look(file) {
    const form = new Import(fromFile(file), {
      list: listNameOf(file),
      lists: this.known ?? [],
      signal: this.signal,
      begun: (importing) => {
        this.draft.set({ importing, list: null });
        this.#follow(importing);
      },
    });
    fill(this.place, h("h3", null, file.name), form.element);
    form.examine();
  }

  #follow(importing) {
    const done = async (job) => {
      this.draft.set({ importing: null, ...(job.state === "succeeded" ? { list: importing.list } : {}) });
      try {
        await this.#load();
      } catch (error) {
        if (error.name !== "AbortError") this.place.append(bad(error.message));
      }
    };
    fill(this.place, importProgress(importing, { done, signal: this.signal }));
    this.ready();
  }
}

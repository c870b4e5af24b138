// One message beside its contact: read, edited, approved, written again.

import { announce, fill, h, inThisTab } from "../dom.js";
import { campaigns, contacts } from "../campaigns.js";
import { exact, money } from "../format.js";
import { called } from "./campaignwords.js";
import { closer, open } from "./dialog.js";
import { bad } from "./form.js";
import { icon } from "./icons.js";
import { citations } from "./letter.js";
import { marks } from "./messagelist.js";

// `changed(message)` after each change; `beside(message, way)` gives the neighbour; `closed(message)` at the end.
export class LetterDialog {
  #edits = null; // the textarea while it is edited
  #people = new Map();

  constructor(message, { changed, beside, closed, over }) {
    Object.assign(this, { message, changed, beside, over });
    this.title = h("h2", { id: "letter-title", class: "clip", tabindex: "-1" });
    this.state = h("p", { class: "row small" });
    this.words = h("div", { class: "lettertext" });
    this.told = h("div", { role: "alert" });
    this.acts = h("div", { class: "row" });
    this.contact = h("aside", { class: "lettercontact", "aria-label": "Contact" });
    const step = (way, name, sign) =>
      h(
        "button",
        { type: "button", class: "iconbutton", "aria-label": name, onclick: () => this.#step(way) },
        icon(sign),
      );
    this.before = step(-1, "The message before", "left");
    this.after = step(1, "The message after", "right");
    this.dialog = h(
      "dialog",
      { class: "modal letterdialog", "aria-labelledby": "letter-title", onclose: () => closed(this.message) },
      h(
        "header",
        null,
        this.title,
        h(
          "div",
          { class: "row" },
          this.before,
          this.after,
          closer(() => this.dialog),
        ),
      ),
      h(
        "div",
        { class: "inside" },
        h("div", { class: "letterbody" }, this.state, this.words, this.told, this.acts),
        this.contact,
      ),
    );
    open(this.dialog);
    this.#draw();
  }

  // The feed has it anew; what is being edited is not touched.
  update(message) {
    if (message.id !== this.message.id) return;
    const written = this.message.state === "writing" && message.state !== "writing";
    this.message = message;
    if (this.#edits) return;
    this.#draw();
    if (written) announce("It is written again.");
  }

  #step(way) {
    const next = this.beside(this.message, way);
    if (!next) return;
    this.message = next;
    this.#edits = null;
    this.#draw();
    this.title.focus();
  }

  #draw() {
    const { message } = this;
    const within = [...this.acts.children].indexOf(document.activeElement);
    this.title.textContent = called(message.contact);
    this.before.disabled = !this.beside(message, -1);
    this.after.disabled = !this.beside(message, 1);
    const cost = message.cost ? money(message.cost) : "";
    fill(
      this.state,
      marks(message),
      h(
        "span",
        { class: "faint", title: exact(message.finished_at) },
        [message.model, cost].filter(Boolean).join(" · "),
      ),
    );
    fill(
      this.words,
      message.text && h("p", { class: "saying" }, message.text),
      message.error && bad(message.error.message),
      !message.text && !message.error && h("p", { class: "soft" }, "It is not written yet."),
      citations(message.sources),
    );
    fill(this.told);
    this.#drawActs();
    if (within >= 0) (this.acts.children[within] ?? this.title).focus();
    this.#drawContact();
  }

  #drawActs() {
    const { state, approved_at: approved } = this.message;
    const ready = state === "done" || state === "failed" || state === "skipped";
    fill(
      this.acts,
      state === "done" &&
        (approved
          ? h("span", { class: "badge good", title: exact(approved) }, "Approved")
          : button("Approve", "check", "button primary", () => this.#run(campaigns.approve, "Approved"))),
      ready && button("Edit", "edit", "button", () => this.#edit()),
      ready &&
        !this.over &&
        button("Write it again", "redo", "button", () => this.#run(campaigns.regenerate, "It is being written again")),
    );
  }

  async #run(call, said, ...given) {
    const { campaign_id: campaign, id } = this.message;
    fill(this.told);
    try {
      const message = await call(campaign, id, ...given);
      this.message = message;
      this.#edits = null;
      this.changed(message);
      this.#draw();
      announce(said);
      if (!this.dialog.contains(document.activeElement) || document.activeElement === document.body) this.title.focus();
      return true;
    } catch (error) {
      if (error.name !== "AbortError") fill(this.told, bad(error.message));
      return false;
    }
  }

  #edit() {
    const unsaved = `edit.${this.message.id}`; // outlives a closed dialog and a reload
    const area = h("textarea", {
      class: "field",
      rows: 12,
      maxlength: 150_000,
      "aria-label": "The message",
      oninput: () => inThisTab.set(unsaved, area.value),
    });
    area.value = inThisTab.get(unsaved) ?? this.message.text ?? "";
    const save = async () => {
      if (await this.#run(campaigns.edit, "Saved", area.value)) inThisTab.set(unsaved, null);
    };
    this.#edits = area;
    fill(this.words, area);
    fill(
      this.acts,
      button("Save", "check", "button primary", () =>
        area.value.trim() ? save() : fill(this.told, bad("Write something, or leave it as it was.")),
      ),
      button("Leave it as it was", null, "button", () => {
        inThisTab.set(unsaved, null);
        this.#edits = null;
        this.#draw();
        this.title.focus();
      }),
    );
    area.focus();
  }

  async #drawContact() {
    const { contact } = this.message;
    if (this.contact.dataset.id === contact.id) return;
    this.contact.dataset.id = contact.id;
    fill(this.contact, facts({ email: contact.email, key: contact.key }));
    if (!this.#people.has(contact.id)) {
      try {
        this.#people.set(contact.id, await contacts.get(contact.id));
      } catch {
        this.#people.set(contact.id, null); // gone since: what the message knows of them is shown
      }
    }
    const person = this.#people.get(contact.id);
    if (this.contact.dataset.id !== contact.id || !this.contact.isConnected) return;
    if (!person) {
      this.contact.append(h("p", { class: "small soft" }, "This contact was deleted."));
      return;
    }
    fill(
      this.contact,
      facts({ email: person.email, key: person.key === person.email ? "" : person.key, ...person.fields }),
      person.last_conversation && [
        h("h3", null, "Said last"),
        h("p", { class: "saying small soft" }, person.last_conversation),
      ],
    );
  }
}

const button = (label, sign, look, run) =>
  h("button", { type: "button", class: look, onclick: run }, sign && icon(sign), label);

export const facts = (values) =>
  h(
    "dl",
    { class: "facts" },
    Object.entries(values)
      .filter(([, value]) => value)
      .map(([name, value]) => [h("dt", null, name), h("dd", null, value)]),
  );

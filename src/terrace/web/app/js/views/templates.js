// Templates: what campaigns write, each with its versions.

import { fill, h, inThisTab } from "../dom.js";
import { contacts, templates } from "../campaigns.js";
import { ago, exact, number } from "../format.js";
import { session } from "../session.js";
import { confirm, drawer, modal } from "../parts/dialog.js";
import { bad, field } from "../parts/form.js";
import { icon } from "../parts/icons.js";
import { menuButton } from "../parts/menu.js";
import { page } from "../parts/page.js";
import { TemplateEditor } from "../parts/templateeditor.js";
import { attempt, toast } from "../parts/toast.js";

const MODES = { write: "A model writes it", fill: "The text is the message" };

export async function view(main, _params, { signal }) {
  const list = new TemplateList(signal);
  page(
    main,
    {
      name: "Templates",
      lead: "Texts with places for what is known of a contact. Each change is a new version; campaigns keep theirs.",
      actions: [
        h(
          "button",
          { type: "button", class: "button primary", onclick: () => list.edit(null) },
          icon("plus"),
          "New template",
        ),
      ],
    },
    list.element,
    h("div", { class: "row" }, list.more),
  );
  await list.load();
}

class TemplateList {
  #next = null;

  constructor(signal) {
    this.signal = signal;
    this.element = h("ul", { class: "lines templatelist", "aria-label": "Templates" });
    this.more = h(
      "button",
      { type: "button", class: "button", hidden: true, onclick: () => attempt(() => this.load(true)) },
      "Show more",
    );
  }

  async load(add = false) {
    const { items, next } = await templates.list({ limit: 50, cursor: add ? this.#next : null }, this.signal);
    this.#next = next;
    this.more.hidden = !next;
    const lines = items.map((each) => this.#line(each));
    if (add) this.element.append(...lines);
    else fill(this.element, lines.length ? lines : this.#nothing());
  }

  #nothing() {
    return h(
      "li",
      { class: "empty" },
      icon("letters"),
      h("h2", null, "No templates yet"),
      h("p", null, "A template says what each message shall be, such as: “Thank {{contact.name}} for the order.”"),
    );
  }

  #line(template) {
    return h(
      "li",
      null,
      h(
        "div",
        { class: "grow" },
        h(
          "p",
          { class: "row" },
          h("button", { type: "button", class: "name", onclick: () => this.edit(template) }, template.name),
          h("span", { class: "small faint" }, `version ${number(template.version)}`),
        ),
        h("p", { class: "small soft clip" }, template.body),
        h(
          "p",
          { class: "small faint" },
          MODES[template.mode],
          " · changed ",
          h("span", { title: exact(template.updated_at) }, ago(template.updated_at)),
        ),
      ),
      menuButton(`More about ${template.name}`, () => [
        { label: "Edit", icon: "edit", run: () => this.edit(template) },
        { label: "Versions", icon: "clock", run: () => this.#versions(template) },
        { label: "Delete", icon: "trash", bad: true, run: () => this.#remove(template) },
      ]),
    );
  }

  // `text`: an older version's, to go on with. What is written is kept in this tab until it is saved or given up.
  async edit(template, text = template) {
    const unsavedAt = `template.${session().user?.id ?? ""}.${template?.id ?? "new"}`;
    const unsaved = text === template ? inThisTab.get(unsavedAt) : null;
    const lists = (await attempt(() => contacts.lists(this.signal)))?.items ?? [];
    const stop = new AbortController();
    const name = field({ label: "Name", name: "name", maxlength: 200, value: unsaved?.name ?? template?.name ?? "" });
    const told = h("div", { class: "told", role: "alert" });
    const place = h("div");
    let editor = null;
    const keep = () => inThisTab.set(unsavedAt, { name: name.value, draft: editor.draft });
    name.input.addEventListener("input", keep);
    const show = (list, draft) => {
      editor = new TemplateEditor(draft, { list, signal: stop.signal, changed: keep });
      fill(place, editor.element);
    };
    const against = h(
      "select",
      { class: "select boxed", id: "template-against", onchange: () => show(against.value || null, editor.draft) },
      h("option", { value: "" }, "no list"),
      lists.map((each) => h("option", { value: each.id }, each.name)),
    );
    show(null, unsaved?.draft ?? text ?? { body: "", mode: "write" });
    const save = h(
      "button",
      { type: "submit", class: "button primary" },
      template ? "Save as a new version" : "Keep it",
    );
    const giveUp = () => {
      inThisTab.set(unsavedAt, null);
      dialog.close();
    };
    const submit = async (event) => {
      event.preventDefault();
      fill(told);
      if (!name.value) {
        name.fail("Name is missing.");
        name.input.focus();
        return;
      }
      save.disabled = true;
      try {
        const body = { name: name.value, ...editor.draft };
        const kept = template ? await templates.change(template.id, body) : await templates.create(body);
        toast(template && kept.version === template.version ? "Saved" : `Version ${kept.version} is kept`);
        giveUp();
        await attempt(() => this.load());
      } catch (error) {
        if (error.code === "name_taken") name.fail(error.message);
        else fill(told, bad(error.message));
      } finally {
        save.disabled = false;
      }
    };
    const dialog = modal(
      template ? `Edit ${template.name}` : "New template",
      h(
        "form",
        { class: "form", novalidate: true, onsubmit: submit },
        name.element,
        lists.length > 0 &&
          h(
            "div",
            { class: "row against" },
            h("label", { for: "template-against", class: "inlinelabel" }, "Check it against"),
            h("span", { class: "selectwrap" }, against, icon("down")),
          ),
        place,
        told,
        h(
          "div",
          { class: "row formacts" },
          h("button", { type: "button", class: "button", onclick: () => giveUp() }, "Cancel"),
          save,
        ),
      ),
    );
    dialog.classList.add("widemodal");
    dialog.addEventListener("close", () => stop.abort());
  }

  async #versions(template) {
    const list = h("ol", { class: "versions" });
    const more = h(
      "button",
      { type: "button", class: "button", hidden: true, onclick: () => attempt(() => load()) },
      "Show more",
    );
    const dialog = drawer(`Versions of ${template.name}`, list, h("div", { class: "row" }, more));
    let cursor = null;
    const load = async () => {
      const { items, next } = await templates.versions(template.id, { limit: 20, cursor }, this.signal);
      cursor = next;
      more.hidden = !next;
      list.append(
        ...items.map((each) =>
          h(
            "li",
            null,
            h(
              "p",
              { class: "row spread" },
              h("b", null, `Version ${number(each.version)}`),
              h(
                "span",
                { class: "small faint", title: exact(each.created_at) },
                `${MODES[each.mode]} · ${ago(each.created_at)}`,
              ),
            ),
            h("p", { class: "saying" }, each.body),
            each.version !== template.version &&
              h(
                "div",
                { class: "row" },
                h(
                  "button",
                  {
                    type: "button",
                    class: "button little",
                    onclick: () => {
                      dialog.close();
                      this.edit(template, each);
                    },
                  },
                  "Go on with this one",
                ),
              ),
          ),
        ),
      );
    };
    await attempt(load);
  }

  async #remove(template) {
    const sure = await confirm({
      title: `Delete ${template.name}?`,
      text: "Campaigns that were begun with it keep their version.",
      action: "Delete",
    });
    if (sure && (await attempt(() => templates.remove(template.id), "Template deleted")))
      await attempt(() => this.load());
  }
}

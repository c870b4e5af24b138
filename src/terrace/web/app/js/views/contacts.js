// Contacts: their lists, what is known of each, what was said to them, and where they come from.

import { debounce, fill, h } from "../dom.js";
import { contacts, fromFile } from "../campaigns.js";
import { ago, exact, number, plural } from "../format.js";
import { readdress } from "../router.js";
import { called, under } from "../parts/campaignwords.js";
import { fileButton, Import, importProgress, listNameOf } from "../parts/contactimport.js";
import { Databases } from "../parts/databases.js";
import { confirm, drawer, modal } from "../parts/dialog.js";
import { field, form } from "../parts/form.js";
import { icon } from "../parts/icons.js";
import { facts } from "../parts/letterdialog.js";
import { menuButton } from "../parts/menu.js";
import { page, section } from "../parts/page.js";
import { attempt, toast } from "../parts/toast.js";

export async function view(main, _params, { signal, search }) {
  const people = new People(signal, search);
  page(
    main,
    {
      name: "Contacts",
      lead: "Whom campaigns write to. A contact can be in several lists, and is one person in all of them.",
      actions: [
        h("button", { type: "button", class: "button", onclick: () => people.add() }, icon("plus"), "Add one"),
        fileButton("Import CSV or XLSX", (file) => people.bring(fromFile(file), listNameOf(file)), { primary: true }),
      ],
    },
    h(
      "div",
      { class: "settings" },
      h("div", { class: "page-body" }, people.toolbar, people.element, h("div", { class: "row" }, people.more)),
      section("databases", "Databases", new Databases({ signal, bring: (...given) => people.bring(...given) }).element),
    ),
  );
  await people.show();
}

class People {
  #next = null;
  #lists = [];
  #turn = 0;

  constructor(signal, search) {
    this.signal = signal;
    this.list = search.get("list") ?? "";
    this.q = search.get("q") ?? "";
    this.pick = h("select", {
      class: "select boxed",
      "aria-label": "List",
      onchange: () => this.#choose(this.pick.value),
    });
    this.search = h("input", {
      class: "field",
      type: "search",
      "aria-label": "Search contacts",
      placeholder: "Name, address or key",
      maxlength: 200,
      value: this.q,
      oninput: debounce(250, () => {
        this.q = this.search.value.trim();
        this.#address();
        attempt(() => this.#load());
      }),
    });
    this.remove = menuButton("More about this list", () => [
      { label: "Delete this list", icon: "trash", bad: true, run: () => this.#removeList() },
    ]);
    this.toolbar = h(
      "div",
      { class: "toolbar" },
      h("span", { class: "selectwrap" }, this.pick, icon("down")),
      this.remove,
      h("div", { class: "searchfield" }, icon("search"), this.search),
    );
    this.element = h("ul", { class: "lines contactlist", "aria-label": "Contacts" });
    this.more = h(
      "button",
      { type: "button", class: "button", hidden: true, onclick: () => attempt(() => this.#load(true)) },
      "Show more",
    );
  }

  async show() {
    await this.#readLists();
    await this.#load();
  }

  async #readLists() {
    this.#lists = (await contacts.lists(this.signal)).items;
    if (!this.#lists.some((each) => each.id === this.list)) this.list = "";
    fill(
      this.pick,
      h("option", { value: "" }, "All contacts"),
      this.#lists.map((each) => h("option", { value: each.id }, `${each.name} (${number(each.contacts)})`)),
    );
    this.pick.value = this.list;
    this.remove.hidden = !this.list;
  }

  #choose(list) {
    this.list = list;
    this.remove.hidden = !list;
    this.#address();
    attempt(() => this.#load());
  }

  #address() {
    const search = new URLSearchParams();
    if (this.list) search.set("list", this.list);
    if (this.q) search.set("q", this.q);
    readdress(search.size ? `/contacts?${search}` : "/contacts");
  }

  async #load(add = false) {
    this.#turn += 1;
    const turn = this.#turn;
    const params = { list: this.list, q: this.q, limit: 50, cursor: add ? this.#next : null };
    const { items, next } = await contacts.list(params, this.signal);
    if (turn !== this.#turn) return;
    this.#next = next;
    this.more.hidden = !next;
    const lines = items.map((each) => this.#line(each));
    if (add) this.element.append(...lines);
    else fill(this.element, lines.length ? lines : this.#nothing());
  }

  #line(contact) {
    const names = contact.list_ids.map((key) => this.#lists.find((each) => each.id === key)?.name).filter(Boolean);
    const known = Object.entries(contact.fields).slice(0, 4);
    return h(
      "li",
      null,
      h(
        "div",
        { class: "grow" },
        h(
          "p",
          { class: "row" },
          h("button", { type: "button", class: "name", onclick: () => this.#open(contact) }, called(contact)),
          h("span", { class: "small faint clip" }, under(contact)),
        ),
        known.length > 0 &&
          h("p", { class: "small soft clip" }, known.map(([name, value]) => `${name}: ${value}`).join(" · ")),
      ),
      h(
        "span",
        { class: "tags" },
        names.slice(0, 3).map((name) => h("span", { class: "tag clip" }, name)),
      ),
      h("span", { class: "small faint when", title: exact(contact.updated_at) }, ago(contact.updated_at)),
    );
  }

  #nothing() {
    const any = this.#lists.length > 0;
    return h(
      "li",
      { class: "empty" },
      icon("person"),
      h("h2", null, this.q ? "Nobody is called that" : "Nobody here yet"),
      h(
        "p",
        null,
        this.q
          ? "The search looks at names, addresses and keys."
          : any
            ? "Import a table into this list."
            : "Import a CSV or XLSX with a row for each person, or ask a database you have.",
      ),
    );
  }

  async #open(contact) {
    const place = h(
      "div",
      { class: "contactdetail" },
      h("p", { class: "row soft" }, h("span", { class: "spinner" }), "Reading…"),
    );
    const acts = h("div", { class: "row" });
    const dialog = drawer(called(contact), place, acts);
    const detail = await attempt(() => contacts.get(contact.id, this.signal));
    if (!detail || !dialog.isConnected) return;
    const { key, email, fields, turns, history, updated_at: changed } = detail;
    fill(
      place,
      facts({ email, key: key === email ? "" : key, ...fields, changed: exact(changed) }),
      h("h3", null, "What was said"),
      history.length
        ? [
            turns > history.length &&
              h("p", { class: "small faint" }, `The last ${number(history.length)} of ${plural(turns, "turn")}.`),
            h(
              "ol",
              { class: "turns" },
              history.map((turn) => this.#turnLine(turn, contact)),
            ),
          ]
        : h(
            "p",
            { class: "small soft" },
            "Nothing yet. What is said elsewhere can be added through the API, and {{last_conversation}} gives it to the model.",
          ),
    );
    fill(
      acts,
      h(
        "button",
        {
          type: "button",
          class: "button",
          onclick: () =>
            edit(detail, async () => {
              dialog.close();
              await this.show();
            }),
        },
        icon("edit"),
        "Edit",
      ),
      h(
        "button",
        { type: "button", class: "button quietdanger", onclick: () => this.#remove(contact, dialog) },
        icon("trash"),
        "Delete this contact",
      ),
    );
  }

  #turnLine({ role, text, at }, contact) {
    return h(
      "li",
      { class: role },
      h(
        "p",
        { class: "small faint" },
        h("b", null, role === "user" ? called(contact) : "To them"),
        " ",
        h("span", { title: exact(at) }, ago(at)),
      ),
      h("p", { class: "saying" }, text),
    );
  }

  async #remove(contact, dialog) {
    const sure = await confirm({
      title: `Delete ${called(contact)}?`,
      text: "With all that was said, in every list. This can't be undone.",
      action: "Delete",
    });
    if (!sure || !(await attempt(() => contacts.remove(contact.id), "Contact deleted"))) return;
    dialog.close();
    await attempt(() => this.show());
  }

  async #removeList() {
    const list = this.#lists.find((each) => each.id === this.list);
    const sure = await confirm({
      title: `Delete the list ${list.name}?`,
      text: `Contacts that are in no other list go with it: up to ${number(list.contacts)}. This can't be undone.`,
      action: "Delete the list",
    });
    if (!sure || !(await attempt(() => contacts.removeList(list.id), "List deleted"))) return;
    this.list = "";
    this.#address();
    await attempt(() => this.show());
  }

  add() {
    const list = this.#lists.find((each) => each.id === this.list);
    const dialog = modal(
      "Add a contact",
      form({
        parts: [
          field({ label: "Email", name: "email", type: "email", required: false, maxlength: 320 }),
          field({ label: "Name", name: "name", required: false, maxlength: 300 }),
          field({
            label: "Key",
            name: "key",
            required: false,
            maxlength: 320,
            hint: "What makes them one person; the address when there is none.",
          }),
          field({ label: "List", name: "list", required: false, maxlength: 200, value: list?.name ?? "" }),
        ],
        action: "Add",
        cancel: () => dialog.close(),
        at: { contact_exists: "email" },
        submit: async ({ list: into, ...values }) => {
          await contacts.create({ ...values, lists: into ? [into] : [] });
          dialog.close();
          toast("Contact added");
          await attempt(() => this.show());
        },
      }),
    );
  }

  // An import in a dialog: the dry run, then its progress.
  bring(source, list) {
    const stop = new AbortController();
    const place = h("div");
    const wanted = new Import(source, {
      list: this.#lists.find((each) => each.id === this.list)?.name ?? list,
      lists: this.#lists,
      signal: stop.signal,
      begun: (taken) => {
        this.list = taken.list.id;
        fill(place, importProgress(taken, { signal: stop.signal, done: () => attempt(() => this.show()) }));
      },
    });
    fill(place, wanted.element);
    const dialog = modal(`Import ${source.name}`, place);
    dialog.classList.add("widemodal");
    dialog.addEventListener("close", () => {
      stop.abort();
      attempt(() => this.show());
    });
    wanted.examine();
  }
}

// What is known of a contact, changed: `done` is called once that is kept. What stays as it is shown is not sent.
function edit(contact, done) {
  const shown = Object.fromEntries(
    Object.entries(contact.fields)
      .filter(([name]) => !name.includes(":"))
      .map(([name, value]) => [name, value.replaceAll(/\s+/g, " ")]),
  );
  const details = field({
    label: "Details",
    name: "details",
    required: false,
    hint: "One on each line, as name: value. A line you take away is forgotten.",
    control: h("textarea", { class: "field", rows: 6, spellcheck: "false" }),
    value: Object.entries(shown)
      .map(([name, value]) => `${name}: ${value}`)
      .join("\n"),
    check: (text) => {
      const odd = linesOf(text).find((line) => !/^[^:]+:\s*\S/.test(line));
      return odd ? `“${odd.slice(0, 60)}” is not name: value.` : "";
    },
  });
  const dialog = modal(
    `Edit ${called(contact)}`,
    form({
      parts: [
        field({ label: "Name", name: "name", required: false, maxlength: 300, value: contact.name }),
        field({ label: "Email", name: "email", type: "email", required: false, maxlength: 320, value: contact.email }),
        details,
      ],
      action: "Save",
      cancel: () => dialog.close(),
      at: { contact_exists: "email", email_taken: "email" },
      submit: async ({ name, email, details: text }) => {
        const wanted = fieldsOf(text);
        const names = Object.keys({ ...shown, ...wanted }).filter((each) => shown[each] !== wanted[each]);
        const fields = Object.fromEntries(names.map((each) => [each, wanted[each] ?? ""]));
        await contacts.change(contact.id, { name, email, fields });
        dialog.close();
        toast("Contact changed");
        await attempt(done);
      },
    }),
  );
}

const linesOf = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

const fieldsOf = (text) =>
  Object.fromEntries(
    linesOf(text).map((line) => {
      const at = line.indexOf(":");
      return [line.slice(0, at).trim(), line.slice(at + 1).trim()];
    }),
  );

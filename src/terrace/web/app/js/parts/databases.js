// Other databases that contacts come from: connected, asked read-only, imported from.

import { fill, h } from "../dom.js";
import { databases, fromDatabase } from "../campaigns.js";
import { date } from "../format.js";
import { can } from "../session.js";
import { confirm, modal } from "./dialog.js";
import { bad, field, form, group, select } from "./form.js";
import { icon } from "./icons.js";
import { menuButton } from "./menu.js";
import { attempt, toast } from "./toast.js";

const KINDS = { postgresql: "PostgreSQL", mysql: "MySQL or MariaDB", sqlite: "SQLite file" };

export class Databases {
  constructor({ signal, bring }) {
    Object.assign(this, { signal, bring });
    this.list = h("ul", { class: "lines", "aria-label": "Databases" });
    this.element = h(
      "div",
      { class: "page-body" },
      h(
        "p",
        { class: "small soft" },
        "A query on a database of yours, which can only read, brings contacts in as a table does.",
      ),
      this.list,
      h(
        "div",
        { class: "row" },
        can("sources")
          ? h(
              "button",
              { type: "button", class: "button", onclick: () => this.#connect() },
              icon("plus"),
              "Connect a database",
            )
          : h("p", { class: "small faint" }, "Databases are connected by an admin or an owner."),
      ),
    );
    this.#load().catch((error) => error.name !== "AbortError" && fill(this.list, h("li", null, bad(error.message))));
  }

  async #load() {
    const { items } = await databases.list(this.signal);
    this.list.hidden = !items.length;
    fill(
      this.list,
      items.map((each) => this.#line(each)),
    );
  }

  #line(database) {
    const { name, kind, host, port, database: inside, created_at: made } = database;
    return h(
      "li",
      null,
      h(
        "div",
        { class: "grow" },
        h("p", null, h("b", null, name)),
        h(
          "p",
          { class: "small soft" },
          [KINDS[kind], host ? `${host}:${port}` : "", inside].filter(Boolean).join(" · "),
        ),
        h("p", { class: "small faint" }, `Connected ${date(made)}`),
      ),
      can("sources") && [
        h("button", { type: "button", class: "button little", onclick: () => this.#ask(database) }, "Query"),
        menuButton(`More about ${name}`, () => [
          { label: "Disconnect", icon: "trash", bad: true, run: () => this.#remove(database) },
        ]),
      ],
    );
  }

  #connect() {
    const kind = select({ label: "Kind", name: "kind", options: Object.entries(KINDS) });
    const file = field({
      label: "Path of the file",
      name: "file",
      required: false,
      hint: "In a folder that the operator allows.",
    });
    const server = [
      field({ label: "Host", name: "host", required: false, placeholder: "db.example.org" }),
      field({ label: "Port", name: "port", type: "number", min: 1, max: 65535, required: false }),
      field({ label: "Database", name: "database", required: false }),
      field({ label: "User", name: "user", required: false, autocomplete: "off" }),
      field({ label: "Password", name: "password", type: "password", required: false, autocomplete: "new-password" }),
      select({
        label: "Encryption",
        name: "tls",
        options: [
          ["require", "Encrypted"],
          ["verify", "Encrypted, and its certificate is checked"],
          ["off", "None: in the clear"],
        ],
      }),
    ];
    const place = h(
      "div",
      { class: "form" },
      server.map((each) => each.element),
    );
    const fit = () => {
      place.hidden = kind.value === "sqlite";
      file.element.hidden = kind.value !== "sqlite";
    };
    kind.input.addEventListener("change", fit);
    fit();
    const dialog = modal(
      "Connect a database",
      h(
        "p",
        { class: "small soft" },
        "Its credentials are kept encrypted and are shown nowhere. A user who may only read is best.",
      ),
      form({
        parts: [field({ label: "Name", name: "name", maxlength: 200 }), kind, group(place, ...server), file],
        action: "Connect",
        cancel: () => dialog.close(),
        signal: this.signal,
        submit: async ({ port, ...values }) => {
          await databases.add({ ...values, port: port ? Number(port) : null });
          dialog.close();
          toast("Connected");
          await attempt(() => this.#load());
        },
      }),
    );
  }

  #ask(database) {
    const shown = h("div");
    const area = h("textarea", {
      class: "field code",
      rows: 4,
      maxlength: 20_000,
      spellcheck: "false",
      placeholder: "SELECT email, name, city FROM customers",
    });
    const query = field({
      label: "Query",
      name: "query",
      control: area,
      hint: "One SELECT. It runs where nothing can be written.",
    });
    const dialog = modal(
      `Ask ${database.name}`,
      form({
        parts: [query],
        action: "Show the first rows",
        signal: this.signal,
        submit: async ({ query: text }) => {
          fill(shown);
          fill(
            shown,
            this.#rows(await databases.query(database.id, text), () => {
              dialog.close();
              this.bring(fromDatabase(database, text), database.name);
            }),
          );
        },
      }),
      shown,
    );
    dialog.classList.add("widemodal");
  }

  #rows({ columns, rows, more, mapping, notes }, go) {
    const usable = Object.keys(mapping).length > 0;
    return [
      h(
        "div",
        { class: "tablebox", tabindex: "0", role: "region", "aria-label": "The first rows" },
        h(
          "table",
          { class: "rowsgrid" },
          h(
            "thead",
            null,
            h(
              "tr",
              null,
              columns.map((column) => h("th", { scope: "col" }, column)),
            ),
          ),
          h(
            "tbody",
            null,
            rows.map((row) =>
              h(
                "tr",
                null,
                columns.map((column) => h("td", null, row[column] ?? "")),
              ),
            ),
          ),
        ),
      ),
      h(
        "p",
        { class: "small faint" },
        !rows.length ? "It gives no rows." : more ? "There are more rows." : "These are all.",
      ),
      notes.map((note) => h("p", { class: "small soft" }, note)),
      rows.length > 0 &&
        (usable
          ? h(
              "div",
              { class: "row formacts" },
              h("button", { type: "button", class: "button primary", onclick: go }, "Import as contacts"),
            )
          : h(
              "p",
              { class: "small soft" },
              "To import them, a column has to say who is who: call one email or key, as in SELECT mail AS email.",
            )),
    ];
  }

  async #remove(database) {
    const sure = await confirm({
      title: `Disconnect ${database.name}?`,
      text: "Its credentials are forgotten. Contacts that came from it stay.",
      action: "Disconnect",
    });
    if (sure && (await attempt(() => databases.remove(database.id), "Disconnected"))) await attempt(() => this.#load());
  }
}

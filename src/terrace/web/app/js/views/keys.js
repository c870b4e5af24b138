// API keys: made for one program each, shown once, changed and revoked here.

import { fill, h } from "../dom.js";
import { accounts } from "../accounts.js";
import { ago, date, exact } from "../format.js";
import { can, isLocal, session } from "../session.js";
import { FAMILIES, PERMISSIONS } from "../words.js";
import { confirm, modal } from "../parts/dialog.js";
import { icon } from "../parts/icons.js";
import { expired, keyForm, showSecret } from "../parts/keyform.js";
import { menuButton } from "../parts/menu.js";
import { learnNames, nameOf } from "../parts/names.js";
import { page } from "../parts/page.js";
import { attempt, toast } from "../parts/toast.js";
import { select, form } from "../parts/form.js";

export async function view(main, _params, { signal }) {
  if (isLocal()) {
    page(
      main,
      { name: "API keys", lead: "Nobody needs a key yet: on this machine every program is let in." },
      h("div", { class: "row" }, h("a", { href: "/setup", class: "button" }, icon("shield"), "Set up accounts")),
    );
    return;
  }
  const keys = new Keys(signal);
  page(
    main,
    {
      name: "API keys",
      lead: "A key lets a program in as you, and may do no more than you may. Give each program its own.",
      actions: [
        h("button", { type: "button", class: "button primary", onclick: () => keys.create() }, icon("plus"), "New key"),
      ],
    },
    keys.toolbar,
    keys.list,
    h("div", { class: "row" }, keys.more),
  );
  await keys.load();
}

const mine = (key) => key.user_id === session().user?.id;

class Keys {
  #keys = [];
  #next = null;
  #all = false;

  constructor(signal) {
    this.signal = signal;
    this.list = h("ul", { class: "lines keylist", "aria-label": "API keys" });
    this.more = h(
      "button",
      { type: "button", class: "button", hidden: true, onclick: () => attempt(() => this.load(true)) },
      "Show more",
    );
    this.toolbar = h("div", { class: "toolbar", hidden: !(can("members") && session().user) });
    this.#tabs();
  }

  #tabs() {
    fill(
      this.toolbar,
      h(
        "div",
        { class: "tabs", role: "group", "aria-label": "Whose keys" },
        [
          [false, "Mine"],
          [true, "Everybody's"],
        ].map(([all, label]) =>
          h(
            "button",
            {
              type: "button",
              "aria-pressed": String(this.#all === all),
              onclick: async () => {
                this.#all = all;
                this.#tabs();
                this.toolbar.querySelector("[aria-pressed=true]").focus();
                await attempt(() => this.load());
              },
            },
            label,
          ),
        ),
      ),
    );
  }

  async load(add = false) {
    if (this.#all) await learnNames();
    const params = { all: this.#all ? "true" : null, limit: 50, cursor: add ? this.#next : null };
    const { items, next } = await accounts.keys(params, this.signal);
    this.#keys = add ? [...this.#keys, ...items] : items;
    this.#next = next;
    this.draw();
  }

  draw() {
    this.more.hidden = !this.#next;
    fill(
      this.list,
      this.#keys.map((key) => this.line(key)),
    );
    if (!this.#keys.length)
      fill(
        this.list,
        h(
          "li",
          { class: "empty" },
          icon("key"),
          h("h2", null, "No keys yet"),
          h("p", null, "Make one for each program that should ask: a script, a plug-in, OpenAI's own SDK."),
        ),
      );
  }

  line(key) {
    const over = key.revoked_at ? "Revoked" : expired(key) ? "Expired" : null;
    return h(
      "li",
      { class: over && "over" },
      h(
        "div",
        { class: "grow" },
        h("p", { class: "row" }, h("b", null, key.name), h("code", { class: "faint" }, `…${key.hint}`)),
        h("p", { class: "small soft" }, this.may(key)),
        h(
          "p",
          { class: "small faint" },
          this.#all && `${nameOf(key.user_id ?? "terminal")} · `,
          `Made ${date(key.created_at)} · `,
          key.last_used_at
            ? h("span", { title: exact(key.last_used_at) }, `last used ${ago(key.last_used_at)}`)
            : "never used",
          key.expires_at && !over && ` · ends ${date(key.expires_at)}`,
        ),
      ),
      over
        ? h("span", { class: "badge" }, `${over} ${date(key.revoked_at ?? key.expires_at)}`)
        : menuButton(`More about ${key.name}`, () => [
            mine(key) && { label: "Change", icon: "edit", run: () => this.change(key) },
            mine(key) && { label: "Rotate", icon: "redo", run: () => this.rotate(key) },
            { label: "Limits", icon: "chart", href: `/limits#key:${key.id}` },
            { label: "Usage", icon: "chart", href: `/usage?key=${key.id}` },
            { label: "Revoke", icon: "trash", bad: true, run: () => this.revoke(key) },
          ]),
    );
  }

  // What it may do, in a line.
  may({ scopes, models, addresses, ...key }) {
    const names = scopes.map((scope) => PERMISSIONS[scope]?.[0] ?? FAMILIES[scope]?.name ?? scope);
    return [
      names.length ? names.join(", ") : `Everything ${mine(key) ? "you" : "its owner"} may`,
      models.length && `only ${models.join(", ")}`,
      addresses.length && `from ${addresses.join(", ")}`,
    ]
      .filter(Boolean)
      .join(" · ");
  }

  create() {
    const dialog = modal(
      "New key",
      keyForm({
        action: "Make the key",
        cancel: () => dialog.close(),
        submit: async (body) => {
          const { key, secret } = await accounts.createKey(body);
          dialog.close();
          showSecret(key, secret);
          await attempt(() => this.load());
        },
      }),
    );
  }

  change(key) {
    const dialog = modal(
      `Change ${key.name}`,
      keyForm({
        key,
        action: "Save",
        cancel: () => dialog.close(),
        submit: async (body) => {
          await accounts.changeKey(key.id, body);
          dialog.close();
          toast("Key changed");
          await attempt(() => this.load());
        },
      }),
    );
  }

  rotate(key) {
    const dialog = modal(
      `Rotate ${key.name}`,
      h("p", { class: "soft" }, "You get a new secret. Programs that still send the old one go on for a while:"),
      form({
        parts: [
          select({
            label: "The old secret stays good",
            name: "overlap",
            options: [
              ["86400", "for a day"],
              ["3600", "for an hour"],
              ["604800", "for a week"],
              ["0", "not at all: it may be known to others"],
            ],
          }),
        ],
        action: "Make a new secret",
        cancel: () => dialog.close(),
        submit: async ({ overlap }) => {
          const { key: fresh, secret } = await accounts.rotateKey(key.id, Number(overlap));
          dialog.close();
          showSecret(fresh, secret);
          await attempt(() => this.load());
        },
      }),
    );
  }

  async revoke(key) {
    const sure = await confirm({
      title: `Revoke ${key.name}?`,
      text: "Whoever still sends it is refused within five seconds. This can't be undone.",
      action: "Revoke",
    });
    if (sure && (await attempt(() => accounts.revokeKey(key.id), "Key revoked"))) await attempt(() => this.load());
  }
}

// Who is told of what happens here, and how that went.

import { fill, h } from "../dom.js";
import { webhooks } from "../automation.js";
import { date, exact } from "../format.js";
import { showDeliveries } from "../parts/deliveries.js";
import { confirm, modal } from "../parts/dialog.js";
import { form, select } from "../parts/form.js";
import { icon } from "../parts/icons.js";
import { hollow, lively, redraw } from "../parts/lively.js";
import { menuButton } from "../parts/menu.js";
import { page } from "../parts/page.js";
import { attempt, toast } from "../parts/toast.js";
import { secretField, showSecret, webhookForm } from "../parts/webhookform.js";

export async function view(main, _params, { signal }) {
  const shown = new Webhooks(signal);
  page(
    main,
    {
      name: "Webhooks",
      lead: "Your server is told what happened here: signed, tried again for a day, and kept in a log.",
      actions: [
        h(
          "button",
          { type: "button", class: "button primary", onclick: () => shown.create() },
          icon("plus"),
          "Add an endpoint",
        ),
      ],
    },
    shown.list,
    h("div", { class: "row" }, shown.more),
    shown.signing,
  );
  await shown.load();
  lively(() => shown.load(), { busy: () => false, signal });
}

class Webhooks {
  #endpoints = [];
  #next = null;
  #known = null; // {events, families, signing_secret}

  constructor(signal) {
    this.signal = signal;
    this.list = h("ul", { class: "lines autolist", "aria-label": "Endpoints" });
    this.more = h(
      "button",
      { type: "button", class: "button", hidden: true, onclick: () => attempt(() => this.load(true)) },
      "Show more",
    );
    this.signing = h("div");
  }

  async load(more = false) {
    const limit = more ? 50 : Math.min(200, Math.max(50, this.#endpoints.length));
    const [answer, known] = await Promise.all([
      webhooks.list({ limit, cursor: more ? this.#next : null }, this.signal),
      this.#known ?? webhooks.events(this.signal),
    ]);
    this.#endpoints = more ? [...this.#endpoints, ...answer.items] : answer.items;
    this.#next = answer.next;
    if (!this.#known) fill(this.signing, oneOff(known.signing_secret));
    this.#known = known;
    this.draw();
  }

  draw() {
    this.more.hidden = !this.#next;
    if (!this.#endpoints.length) {
      hollow(this.list, () =>
        h(
          "li",
          { class: "empty" },
          icon("bell"),
          h("h2", null, "Nobody is told yet"),
          h("p", null, "Add the address of your server, and hear when a document is ready, a campaign is written or a job failed."),
        ),
      );
      return;
    }
    redraw(this.list, this.#endpoints, (endpoint) => this.line(endpoint));
  }

  line(endpoint) {
    const { url, description, enabled, failing_since: failing, disabled_reason: reason } = endpoint;
    const box = h("input", {
      type: "checkbox",
      checked: enabled,
      "aria-label": `Send to ${url}`,
      onchange: () => this.switch(endpoint, box),
    });
    return h(
      "li",
      { class: enabled ? null : "resting" },
      h(
        "div",
        { class: "grow" },
        h("p", { class: "row" }, h("b", { class: "place-of" }, url)),
        description && h("p", { class: "small" }, description),
        h("p", { class: "small soft" }, this.told(endpoint)),
        !enabled && off(reason),
        enabled &&
          failing &&
          h("p", { class: "small wrongwords" }, `Nothing has arrived since ${exact(failing)}: the log says why.`),
        h("p", { class: "small faint" }, `Made ${date(endpoint.created_at)}`),
      ),
      h(
        "div",
        { class: "lineacts" },
        h("label", { class: "switch" }, box, enabled ? "On" : "Off"),
        h(
          "button",
          {
            type: "button",
            class: "button little",
            disabled: !enabled,
            "aria-label": `Send a test to ${url}`,
            onclick: () => this.test(endpoint),
          },
          "Test",
        ),
        h(
          "button",
          {
            type: "button",
            class: "button little",
            "aria-label": `Deliveries to ${url}`,
            onclick: () => showDeliveries(endpoint),
          },
          "Log",
        ),
        menuButton(`More about ${url}`, () => [
          { label: "Change", icon: "edit", run: () => this.change(endpoint) },
          { label: "Rotate the secret", icon: "redo", run: () => this.rotate(endpoint) },
          { label: "Remove", icon: "trash", bad: true, run: () => this.remove(endpoint) },
        ]),
      ),
    );
  }

  told({ events }) {
    return events.length ? events.join(", ") : "Told of everything";
  }

  create() {
    const dialog = modal(
      "Add an endpoint",
      webhookForm({
        events: this.#known.events,
        action: "Add the endpoint",
        cancel: () => dialog.close(),
        signal: this.signal,
        submit: async (body) => {
          const { webhook, secret } = await webhooks.create(body);
          dialog.close();
          showSecret(webhook, secret);
          await attempt(() => this.load());
        },
      }),
    );
    dialog.querySelector("input").focus();
  }

  change(endpoint) {
    const dialog = modal(
      "Change the endpoint",
      webhookForm({
        endpoint,
        events: this.#known.events,
        action: "Save",
        cancel: () => dialog.close(),
        signal: this.signal,
        submit: async (body) => {
          await webhooks.change(endpoint.id, body);
          dialog.close();
          toast("Endpoint changed");
          await attempt(() => this.load());
        },
      }),
    );
  }

  rotate(endpoint) {
    const dialog = modal(
      "Rotate the secret",
      h("p", { class: "soft" }, "You get a new secret. For a while, what is sent can carry a signature of each:"),
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
          const { webhook, secret } = await webhooks.rotate(endpoint.id, Number(overlap));
          dialog.close();
          showSecret(webhook, secret);
          await attempt(() => this.load());
        },
      }),
    );
  }

  async test(endpoint) {
    if (await attempt(() => webhooks.test(endpoint.id))) showDeliveries(endpoint);
  }

  async switch(endpoint, box) {
    const enabled = box.checked;
    const done = await attempt(
      () => webhooks.change(endpoint.id, { enabled }),
      enabled ? "Switched on: it gets what waited" : "Switched off",
    );
    if (done) await attempt(() => this.load());
    else box.checked = endpoint.enabled;
  }

  async remove(endpoint) {
    const sure = await confirm({
      title: "Remove this endpoint?",
      text: `${endpoint.url} is told nothing more. Its log goes with it, and what waits is not delivered.`,
      action: "Remove",
    });
    if (sure && (await attempt(() => webhooks.remove(endpoint.id), "Endpoint removed")))
      await attempt(() => this.load());
  }
}

const off = (reason) =>
  h(
    "div",
    { class: "notice warn" },
    icon("warn"),
    h("p", null, reason || "Switched off. What happens meanwhile is not told."),
  );

// What signs events that go to an address which a single analysis or campaign names.
function oneOff(secret) {
  return h(
    "details",
    { class: "more" },
    h("summary", null, "An address for one analysis or campaign"),
    h(
      "p",
      { class: "small soft" },
      "An analysis or a campaign may name an address of its own when it is made. What goes there is signed with this secret, and is in no endpoint's log.",
    ),
    secretField(secret, "Signing secret of single addresses"),
  );
}

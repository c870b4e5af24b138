// For operators: all tenants, what they use, how much they may.

import { debounce, fill, h } from "../dom.js";
import { accounts } from "../accounts.js";
import { compact, date, money, plural } from "../format.js";
import { confirm, modal, typed } from "../parts/dialog.js";
import { field, form } from "../parts/form.js";
import { icon } from "../parts/icons.js";
import { inviteForm, showLink } from "../parts/invite.js";
import { limitCard } from "../parts/limitcard.js";
import { LIMITS } from "../parts/limitwords.js";
import { menuButton } from "../parts/menu.js";
import { page } from "../parts/page.js";
import { attempt, toast } from "../parts/toast.js";

const patterns = (text) => text.split(/[\s,]+/).filter(Boolean);

export async function view(main, _params, { signal }) {
  const tenants = new Tenants(signal);
  page(
    main,
    {
      name: "Tenants",
      lead: "Each has documents, people, keys, limits and a bill of its own, and sees nothing of the others.",
      actions: [
        h(
          "button",
          { type: "button", class: "button primary", onclick: () => tenants.create() },
          icon("plus"),
          "New tenant",
        ),
      ],
    },
    h("div", { class: "toolbar" }, h("div", { class: "searchfield" }, icon("search"), tenants.search)),
    tenants.list,
    h("div", { class: "row" }, tenants.more),
  );
  await tenants.load();
}

class Tenants {
  #items = [];
  #next = null;
  #turn = 0;

  constructor(signal) {
    this.signal = signal;
    this.list = h("ul", { class: "lines tenantlist", "aria-label": "Tenants" });
    this.more = h(
      "button",
      { type: "button", class: "button", hidden: true, onclick: () => attempt(() => this.load(true)) },
      "Show more",
    );
    this.search = h("input", {
      class: "field",
      type: "search",
      placeholder: "Find a tenant",
      "aria-label": "Find a tenant",
      maxlength: 200,
      oninput: debounce(180, () => attempt(() => this.load())),
    });
  }

  async load(add = false) {
    this.#turn += 1;
    const mine = this.#turn;
    const params = { q: this.search.value.trim(), limit: 50, cursor: add ? this.#next : null };
    const { items, next } = await accounts.tenants(params, this.signal);
    if (mine !== this.#turn) return; // something newer was typed
    this.#items = add ? [...this.#items, ...items] : items;
    this.#next = next;
    this.more.hidden = !next;
    fill(
      this.list,
      this.#items.map((tenant) => this.line(tenant)),
    );
    if (!this.#items.length)
      fill(this.list, h("li", { class: "empty" }, icon("house"), h("h2", null, "Nothing found")));
  }

  line(tenant) {
    const home = tenant.id === "default";
    return h(
      "li",
      { class: tenant.disabled && "over" },
      h(
        "div",
        { class: "grow" },
        h(
          "p",
          { class: "row" },
          h("b", null, tenant.name),
          tenant.disabled && h("span", { class: "badge warn" }, "Disabled"),
        ),
        h(
          "p",
          { class: "small faint" },
          `${plural(tenant.members, "member")} · since ${date(tenant.created_at)}`,
          tenant.models.length > 0 && ` · only ${tenant.models.join(", ")}`,
        ),
        h("p", { class: "small soft" }, limitsOf(tenant)),
      ),
      h(
        "dl",
        { class: "use small" },
        [
          ["Today", tenant.usage?.today],
          ["Month", tenant.usage?.month],
        ].map(([label, use]) => h("div", null, h("dt", null, label), h("dd", { class: "nums" }, useOf(use)))),
      ),
      menuButton(`More about ${tenant.name}`, () => [
        { label: "Limits", icon: "chart", run: () => this.limits(tenant) },
        { label: "Invite its owner", icon: "plus", run: () => this.invite(tenant) },
        { label: "Name and models", icon: "edit", run: () => this.change(tenant) },
        { label: "Export", icon: "download", href: accounts.tenantExportUrl(tenant.id), download: "" },
        !home && {
          label: tenant.disabled ? "Enable" : "Disable",
          icon: tenant.disabled ? "check" : "stop",
          run: () => this.disable(tenant),
        },
        !home && { label: "Delete", icon: "trash", bad: true, run: () => this.remove(tenant) },
      ]),
    );
  }

  create() {
    const fields = [
      field({ label: "Name", name: "name", maxlength: 200, autocomplete: "off" }),
      modelsField(),
      field({
        label: "Money a month ($)",
        name: "money_per_month",
        required: false,
        type: "number",
        min: 0,
        step: "any",
        inputmode: "decimal",
        autocomplete: "off",
        hint: "Empty: no limit. All limits can be set later.",
      }),
    ];
    const dialog = modal(
      "New tenant",
      form({
        parts: fields,
        action: "Make the tenant",
        cancel: () => dialog.close(),
        at: { tenant_name_taken: "name", bad_models: "models", bad_model_pattern: "models" },
        submit: async ({ name, models, money_per_month: most }) => {
          const body = {
            name,
            models: patterns(models),
            ...(most ? { limits: { money_per_month: Number(most) } } : {}),
          };
          const tenant = await accounts.createTenant(body);
          dialog.close();
          await attempt(() => this.load());
          this.invite(tenant);
        },
      }),
    );
  }

  change(tenant) {
    const dialog = modal(
      `Change ${tenant.name}`,
      form({
        parts: [
          field({ label: "Name", name: "name", maxlength: 200, value: tenant.name, autocomplete: "off" }),
          modelsField(tenant.models),
        ],
        action: "Save",
        cancel: () => dialog.close(),
        at: { tenant_name_taken: "name", bad_models: "models", bad_model_pattern: "models" },
        submit: async ({ name, models }) => {
          await accounts.changeTenant(tenant.id, { name, models: patterns(models) });
          dialog.close();
          toast("Tenant changed");
          await attempt(() => this.load());
        },
      }),
    );
  }

  limits(tenant) {
    const card = limitCard({
      subject: "tenant",
      name: tenant.name,
      kind: "",
      limits: tenant.limits,
      save: (values) => accounts.setTenantLimits(tenant.id, values),
    });
    const dialog = modal(`Limits of ${tenant.name}`, card.element);
    dialog.addEventListener("close", () => attempt(() => this.load()));
    if (!tenant.limits.length) card.edit();
  }

  invite(tenant) {
    const dialog = modal(
      `Invite somebody to ${tenant.name}`,
      inviteForm({
        roles: ["owner", "admin", "member", "viewer"],
        role: tenant.members ? "member" : "owner",
        cancel: () => dialog.close(),
        submit: async (body) => {
          const { url, invitation } = await accounts.inviteOwner(tenant.id, body);
          dialog.close();
          const whom = invitation.email ?? "whoever should join";
          showLink({
            title: "The invitation",
            text: `Send this link to ${whom}. It is shown this once, good for one person until ${date(invitation.expires_at)}.`,
            url,
          });
        },
      }),
    );
  }

  async disable(tenant) {
    const disabled = !tenant.disabled;
    const sure =
      !disabled ||
      (await confirm({
        title: `Disable ${tenant.name}?`,
        text: "Its people and keys are refused at once. Nothing is deleted.",
        action: "Disable",
      }));
    if (
      sure &&
      (await attempt(() => accounts.changeTenant(tenant.id, { disabled }), disabled ? "Disabled" : "Enabled"))
    )
      await attempt(() => this.load());
  }

  async remove(tenant) {
    const sure = await typed({
      title: `Delete ${tenant.name}?`,
      text: "Its documents, conversations, keys and members' access go for good. Export it first if somebody may need it.",
      word: tenant.name,
      action: "Delete for good",
    });
    if (sure && (await attempt(() => accounts.deleteTenant(tenant.id), `${tenant.name} was deleted`)))
      await attempt(() => this.load());
  }
}

const modelsField = (models = []) =>
  field({
    label: "Models",
    name: "models",
    required: false,
    autocomplete: "off",
    spellcheck: "false",
    placeholder: "openai/*, ollama/*",
    value: models.join(", "),
    hint: "Names or patterns, separated by commas. Empty: every model.",
  });

function useOf(use) {
  if (!use?.calls) return "nothing";
  const cost = use.unpriced
    ? use.unpriced >= use.calls
      ? "price unknown"
      : `${money(use.cost)} and more`
    : money(use.cost);
  return `${cost} · ${compact(use.input_tokens + use.output_tokens)} tokens`;
}

const limitsOf = ({ limits }) =>
  limits.length
    ? limits
        .map(
          ({ name, value, used }) =>
            `${LIMITS[name]?.label ?? name}: ${LIMITS[name]?.format(used) ?? used} of ${LIMITS[name]?.format(value) ?? value}`,
        )
        .join(" · ")
    : "No limits";

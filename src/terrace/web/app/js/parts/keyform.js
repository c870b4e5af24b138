// Making and changing a key, and the one time its secret is shown.

import { h } from "../dom.js";
import { date } from "../format.js";
import { can } from "../session.js";
import { FAMILIES, PERMISSIONS } from "../words.js";
import { snippet } from "./connect.js";
import { modal } from "./dialog.js";
import { field, form, group, select } from "./form.js";
import { icon } from "./icons.js";
import { copy } from "./toast.js";

const DAY = 86_400_000;
const list = (text) => [...new Set(text.split(/[\s,]+/).filter(Boolean))];

export const expired = (key) => Boolean(key.expires_at && new Date(key.expires_at) < new Date());

// `submit` gets the body of POST or PATCH.
export function keyForm({ key = null, action, submit, cancel }) {
  const name = field({
    label: "Name",
    name: "name",
    maxlength: 100,
    placeholder: "Reports",
    value: key?.name ?? "",
    autocomplete: "off",
  });
  const scopes = scopeBoxes(key?.scopes ?? []);
  const models = field({
    label: "Models",
    name: "models",
    required: false,
    autocomplete: "off",
    spellcheck: "false",
    placeholder: "openai/gpt-*, ollama/*",
    value: (key?.models ?? []).join(", "),
    hint: "Names or patterns, separated by commas. Empty: every model you may use.",
  });
  const addresses = field({
    label: "Addresses",
    name: "addresses",
    required: false,
    autocomplete: "off",
    spellcheck: "false",
    placeholder: "192.0.2.7, 10.0.0.0/8",
    value: (key?.addresses ?? []).join(", "),
    hint: "Networks it may come from. Empty: anywhere.",
  });
  const where = h(
    "details",
    { class: "more", open: Boolean(key?.models.length || key?.addresses.length) },
    h("summary", null, "Models and addresses"),
    models.element,
    addresses.element,
  );
  const ends = expiry(key);
  return form({
    parts: [name, scopes.element, ends, group(where, models, addresses)],
    action,
    cancel,
    at: {
      bad_key_name: "name",
      bad_expiry: "ends",
      bad_models: "models",
      bad_model_pattern: "models",
      bad_address: "addresses",
    },
    submit: (values) => {
      const at = until(values.ends, key);
      return submit({
        name: values.name,
        scopes: scopes.chosen(),
        models: list(values.models),
        addresses: list(values.addresses),
        ...(at === undefined ? {} : { expires_at: at }),
      });
    },
  });
}

function scopeBoxes(scopes) {
  const given = scopes.flatMap((scope) => FAMILIES[scope]?.has ?? [scope]);
  const offered = Object.entries(PERMISSIONS).filter(([scope]) => can(scope));
  const boxes = offered.map(([scope, [label, means]]) => {
    const input = h("input", { type: "checkbox", value: scope, checked: given.includes(scope) });
    return h("label", { class: "check" }, input, h("span", null, label, h("span", { class: "small faint" }, means)));
  });
  const some = h("div", { class: "scopes" }, boxes);
  const all = (value, label, means) =>
    h(
      "label",
      { class: "check" },
      h("input", {
        type: "radio",
        name: "reach",
        value,
        checked: (value === "some") === given.length > 0,
        onchange: paint,
      }),
      h("span", null, label, h("span", { class: "small faint" }, means)),
    );
  const element = h(
    "fieldset",
    { class: "formfield" },
    h("legend", null, "What it may do"),
    all("all", "Everything I may", "Also what I may later"),
    all("some", "Only this", "Nothing else, whatever I may"),
    some,
  );
  const chosen = () => [...some.querySelectorAll("input:checked")].map((input) => input.value);
  function paint() {
    some.hidden = element.querySelector("input[name=reach]:checked").value === "all";
    if (!some.hidden && !chosen().length) some.querySelector("input").checked = true;
  }
  paint();
  return { element, chosen: () => (some.hidden ? [] : chosen()) };
}

function expiry(key) {
  return select({
    label: "It ends",
    name: "ends",
    required: false,
    options: [
      ...(key?.expires_at ? [["keep", `on ${date(key.expires_at)}`]] : []),
      ["never", "never"],
      ["30", "in 30 days"],
      ["90", "in 90 days"],
      ["365", "in a year"],
    ],
  });
}

const until = (choice, key) => {
  if (choice === "keep") return undefined;
  if (choice === "never") return key && !key.expires_at ? undefined : null;
  return new Date(Date.now() + Number(choice) * DAY).toISOString();
};

// The secret, once; with a way to copy it and a command that tries it.
export function showSecret(key, secret) {
  const example = `curl ${location.origin}/v1/chat/completions \\\n  -H "Authorization: Bearer ${secret}" \\\n  -H "Content-Type: application/json" \\\n  -d '{"model": "rag:default", "messages": [{"role": "user", "content": "What do my documents say about notice?"}]}'`;
  const dialog = modal(
    `The secret of ${key.name}`,
    h(
      "div",
      { class: "notice warn" },
      icon("warn"),
      h("p", null, "Copy it now: it is shown this once. Nobody can look it up later, we keep only a print of it."),
    ),
    h(
      "div",
      { class: "secret" },
      h("input", {
        class: "field",
        readonly: true,
        value: secret,
        "aria-label": "Secret",
        spellcheck: "false",
        onfocus: (event) => event.target.select(),
      }),
      h(
        "button",
        { type: "button", class: "button primary", onclick: () => copy(secret, "Secret copied") },
        icon("copy"),
        "Copy",
      ),
    ),
    h("h3", null, "Try it"),
    snippet(example, "curl example"),
    h("p", { class: "small faint" }, "Keep it out of code and chats. If it gets out, revoke it here."),
    h(
      "div",
      { class: "row formacts" },
      h("button", { type: "button", class: "button", onclick: () => dialog.close() }, "I have kept it"),
    ),
  );
  dialog.querySelector(".secret .button").focus();
}

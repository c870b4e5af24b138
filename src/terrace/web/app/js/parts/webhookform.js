// An endpoint is made or changed; its secret is shown once.

import { h } from "../dom.js";
import { modal } from "./dialog.js";
import { field, form } from "./form.js";
import { icon } from "./icons.js";
import { copy } from "./toast.js";

const AREAS = {
  document: "Documents",
  analysis: "Analyses",
  campaign: "Campaigns",
  batch: "Batches",
  schedule: "Schedules",
  job: "Jobs",
};
const TEST = "webhook.test"; // comes to whoever asks for it, whatever the filter
const familyOf = (type) => type.split(".")[0];
const familyName = (family) => AREAS[family] ?? family;

// `events`: [{type, description}]; `submit` gets the body of POST or PATCH.
export function webhookForm({ endpoint = null, events, action, submit, cancel, signal }) {
  const url = field({
    label: "Address",
    name: "url",
    type: "url",
    maxlength: 2048,
    autocomplete: "off",
    spellcheck: "false",
    placeholder: "https://example.org/hooks/terrace",
    value: endpoint?.url ?? "",
    hint: "Every event is sent to it as an HTTP POST, signed.",
  });
  const description = field({
    label: "Description",
    name: "description",
    required: false,
    maxlength: 200,
    autocomplete: "off",
    value: endpoint?.description ?? "",
  });
  const boxes = eventBoxes(events, endpoint?.events ?? []);
  return form({
    parts: [url, description, boxes.element],
    action,
    cancel,
    signal,
    at: { bad_url: "url", private_target: "url", bad_text: "description" },
    submit: (values) => submit({ url: values.url, description: values.description, events: boxes.chosen() }),
  });
}

function eventBoxes(events, filters) {
  const wanted = (type) => filters.includes(type) || filters.includes(`${familyOf(type)}.*`);
  const offered = events.filter(({ type }) => type !== TEST);
  const families = [...new Set(offered.map(({ type }) => familyOf(type)))];
  const some = h(
    "div",
    { class: "eventboxes" },
    families.map((family) =>
      h(
        "fieldset",
        { class: "formfield" },
        h("legend", null, familyName(family)),
        offered
          .filter(({ type }) => familyOf(type) === family)
          .map(({ type, description }) =>
            h(
              "label",
              { class: "check" },
              h("input", { type: "checkbox", value: type, checked: wanted(type) }),
              h("span", null, h("code", null, type), h("span", { class: "small faint" }, description)),
            ),
          ),
      ),
    ),
  );
  const reach = (value, label, means) =>
    h(
      "label",
      { class: "check" },
      h("input", {
        type: "radio",
        name: "reach",
        value,
        checked: (value === "some") === filters.length > 0,
        onchange: paint,
      }),
      h("span", null, label, h("span", { class: "small faint" }, means)),
    );
  const element = h(
    "fieldset",
    { class: "formfield" },
    h("legend", null, "What it is told of"),
    reach("all", "Everything", "Also what may be added later"),
    reach("some", "Only these events", "One is enough"),
    some,
  );
  const checked = () => [...some.querySelectorAll("input:checked")].map((input) => input.value);
  function paint() {
    some.hidden = element.querySelector("input[name=reach]:checked").value === "all";
    if (!some.hidden && !checked().length) some.querySelector("input").checked = true;
  }
  paint();
  return { element, chosen: () => (some.hidden ? [] : checked()) };
}

// The secret of an endpoint, once.
export function showSecret({ url }, secret) {
  const dialog = modal(
    "The endpoint's secret",
    h(
      "div",
      { class: "notice warn" },
      icon("warn"),
      h("p", null, "Copy it now: it is shown this once. If it gets lost, rotate it."),
    ),
    secretField(secret, "Secret"),
    h(
      "p",
      { class: "small soft" },
      `What comes to ${url} carries the headers webhook-id, webhook-timestamp and webhook-signature. Check them with this secret and any library of Standard Webhooks, before the body is parsed.`,
    ),
    h(
      "div",
      { class: "row formacts" },
      h("button", { type: "button", class: "button", onclick: () => dialog.close() }, "I have kept it"),
    ),
  );
  dialog.querySelector(".secret .button").focus();
}

export const secretField = (secret, label) =>
  h(
    "div",
    { class: "secret" },
    h("input", {
      class: "field",
      readonly: true,
      value: secret,
      "aria-label": label,
      spellcheck: "false",
      onfocus: (event) => event.target.select(),
    }),
    h(
      "button",
      { type: "button", class: "button primary", onclick: () => copy(secret, "Secret copied") },
      icon("copy"),
      "Copy",
    ),
  );

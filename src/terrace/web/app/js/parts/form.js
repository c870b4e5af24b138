// Forms: a label over each field, what is wrong beside it, and one place for what concerns the whole.

import { fill, h } from "../dom.js";
import { icon } from "./icons.js";
import { limitNotice } from "./limitwords.js";

let count = 0;

// A labelled input. `{element, input, value, fail(text)}`; `type: "password"` can be shown.
export function field({ label, name, hint = "", required = true, value = "", check = null, control = null, ...given }) {
  count += 1;
  const key = `${name}-${count}`;
  const wrong = h("p", { class: "wrong", id: `${key}-wrong` });
  const input = control ?? h("input", { class: "field", maxlength: 500, ...given });
  input.id = key;
  input.name = name;
  if (value !== "") input.value = value;
  if (required) input.required = true;
  input.setAttribute("aria-describedby", hint ? `${key}-hint ${key}-wrong` : `${key}-wrong`);
  const fail = (text) => {
    fill(wrong, text && icon("warn"), text);
    if (text) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
  };
  input.addEventListener("input", () => fail(""));
  const element = h(
    "div",
    { class: "formfield" },
    h("label", { for: key }, label, !required && h("span", { class: "faint" }, " (optional)")),
    given.type === "password" ? shown(input, label) : input,
    wrong,
    hint && h("p", { class: "small faint", id: `${key}-hint` }, hint),
  );
  return {
    element,
    input,
    name,
    fail,
    check,
    label,
    get value() {
      return given.type === "password" ? input.value : input.value.trim();
    },
  };
}

// A password with a button that shows it.
function shown(input, label) {
  const button = h(
    "button",
    {
      type: "button",
      class: "iconbutton little",
      "aria-label": `Show: ${label}`,
      "aria-pressed": "false",
      onclick: () => {
        const open = input.type === "password";
        input.type = open ? "text" : "password";
        button.setAttribute("aria-pressed", String(open));
      },
    },
    icon("eye"),
  );
  return h("div", { class: "password" }, input, button);
}

export function select({ options, ...given }) {
  const control = h(
    "select",
    { class: "select boxed" },
    options.map(([value, text]) => h("option", { value }, text)),
  );
  const made = field({ ...given, control });
  control.replaceWith(h("span", { class: "selectwrap" }));
  made.element.querySelector(".selectwrap").append(control, icon("down"));
  return made;
}

// Fields that stand together in `element`.
export const group = (element, ...fields) => ({ element, fields });

// What is wrong with a field, or "".
function fault({ input, value, check, label }) {
  if (input.required && !value) return `${label} is missing.`;
  if (!value) return "";
  if (input.type === "email" && !/^[^\s@]+@[^\s@]+$/.test(value)) return "This is not an address: name@example.org.";
  if (input.minLength > 0 && value.length < input.minLength) return `At least ${input.minLength} characters.`;
  if (input.type === "number" && !input.validity.valid) return "A number, please, not below zero.";
  return check?.(value) ?? "";
}

// `submit(values)` may throw a Problem: its `fields`, and codes named in `at` ({code: field}), are told beside the
// field, the rest above the button. `parts` are fields, groups of them, and whatever else is shown.
export function form({ parts, action, submit, at = {}, cancel = null, wide = false, danger = false, signal }) {
  const fields = parts.flatMap((part) => part?.fields ?? (part?.input ? [part] : []));
  const told = h("div", { class: "told", role: "alert" });
  const button = h(
    "button",
    { type: "submit", class: `button ${danger ? "danger" : "primary"}${wide ? " wide" : ""}` },
    action,
  );
  const refuse = (error) => {
    const byField = new Map(error.fields?.map(({ field: name, message }) => [name.split(".")[0], message]));
    if (at[error.code]) byField.set(at[error.code], error.message);
    const hit = fields.filter((each) => byField.has(each.name));
    for (const each of hit) each.fail(byField.get(each.name));
    if (hit.length) hit[0].input.focus();
    else fill(told, error.limit ? limitNotice(error.limit, { signal }) : bad(error.message));
  };
  const run = async (event) => {
    event.preventDefault();
    if (button.getAttribute("aria-disabled") === "true") return;
    fill(told);
    for (const each of fields) each.fail(fault(each));
    const first = fields.find((each) => each.input.getAttribute("aria-invalid"));
    if (first) {
      first.input.focus();
      return;
    }
    button.setAttribute("aria-disabled", "true"); // stays focusable, so that nobody loses their place
    try {
      await submit(Object.fromEntries(fields.map((each) => [each.name, each.value])));
    } catch (error) {
      if (error.name !== "AbortError") refuse(error);
    } finally {
      button.removeAttribute("aria-disabled");
    }
  };
  return h(
    "form",
    { class: "form", novalidate: true, onsubmit: run },
    parts.map((part) => part?.element ?? part),
    told,
    h(
      "div",
      { class: "row formacts" },
      cancel && h("button", { type: "button", class: "button", onclick: cancel }, "Cancel"),
      button,
    ),
  );
}

export const bad = (text) => h("div", { class: "notice bad" }, icon("warn"), h("p", null, text));
export const good = (text) => h("div", { class: "notice good", role: "status" }, icon("check"), h("p", null, text));

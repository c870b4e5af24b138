// Modal dialogs over <dialog>: the browser keeps the focus inside and gives it back.

import { $, h } from "../dom.js";
import { icon } from "./icons.js";

export function open(dialog) {
  document.body.append(dialog);
  dialog.addEventListener("close", () => {
    if (dialog.contains($("toasts"))) document.body.append($("toasts"));
    dialog.remove();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.showModal();
  return dialog;
}

export const closer = (dialog) =>
  h(
    "button",
    { type: "button", class: "iconbutton", "aria-label": "Close", onclick: () => dialog().close() },
    icon("close"),
  );

// Resolves to true when confirmed.
export function confirm({ title, text, action, danger = true }) {
  return new Promise((resolve) => {
    const form = h(
      "form",
      { class: "ask", method: "dialog" },
      h("h2", { id: "ask-title" }, title),
      h("p", { class: "soft" }, text),
      h(
        "div",
        { class: "row" },
        h("button", { class: "button", value: "no", type: "submit", autofocus: danger }, "Cancel"),
        h(
          "button",
          { class: danger ? "button danger" : "button primary", value: "yes", type: "submit", autofocus: !danger },
          action,
        ),
      ),
    );
    const dialog = h(
      "dialog",
      { "aria-labelledby": "ask-title", onclose: () => resolve(dialog.returnValue === "yes") },
      form,
    );
    open(dialog);
  });
}

// Resolves to what was typed, or null.
export function ask({ title, label, value = "", action = "Save", hint = "", max = 200 }) {
  return new Promise((resolve) => {
    const input = h("input", { class: "field", id: "ask-value", maxlength: max, autofocus: true, autocomplete: "off" });
    input.value = value;
    const form = h(
      "form",
      { class: "ask", method: "dialog" },
      h("h2", { id: "ask-title" }, title),
      h(
        "div",
        null,
        h("label", { for: "ask-value", class: "small soft" }, label),
        input,
        hint && h("p", { class: "small faint" }, hint),
      ),
      h(
        "div",
        { class: "row" },
        h("button", { class: "button", type: "button", onclick: () => dialog.close() }, "Cancel"),
        h("button", { class: "button primary", value: "yes", type: "submit" }, action),
      ),
    );
    const dialog = h(
      "dialog",
      {
        "aria-labelledby": "ask-title",
        onclose: () => resolve(dialog.returnValue === "yes" ? input.value.trim() : null),
      },
      form,
    );
    open(dialog);
    input.select();
  });
}

export function drawer(title, ...inside) {
  const dialog = h(
    "dialog",
    { class: "drawerdialog", "aria-labelledby": "drawer-title" },
    h(
      "header",
      null,
      h("h2", { id: "drawer-title" }, title),
      closer(() => dialog),
    ),
    h("div", { class: "inside", tabindex: "0", role: "region", "aria-label": title }, ...inside),
  );
  return open(dialog);
}

// A dialog with a heading and anything inside. `close()` is `dialog.close()` of what is returned.
export function modal(title, ...inside) {
  const dialog = h(
    "dialog",
    { class: "modal", "aria-labelledby": "modal-title" },
    h(
      "header",
      null,
      h("h2", { id: "modal-title" }, title),
      closer(() => dialog),
    ),
    h("div", { class: "inside" }, ...inside),
  );
  return open(dialog);
}

// For what can't be undone: resolves to true once `word` was typed and confirmed.
export function typed({ title, text, word, action }) {
  return new Promise((resolve) => {
    const button = h("button", { class: "button danger", value: "yes", type: "submit", disabled: true }, action);
    const input = h("input", {
      class: "field",
      id: "typed-word",
      autocomplete: "off",
      autocapitalize: "off",
      spellcheck: "false",
      autofocus: true,
      oninput: () => {
        button.disabled = input.value.trim() !== word;
      },
    });
    const dialog = h(
      "dialog",
      { "aria-labelledby": "typed-title", onclose: () => resolve(dialog.returnValue === "yes") },
      h(
        "form",
        { class: "ask", method: "dialog" },
        h("h2", { id: "typed-title" }, title),
        h("p", { class: "soft" }, text),
        h(
          "div",
          { class: "formfield" },
          h("label", { for: "typed-word" }, "Type ", h("b", null, word), " to go on"),
          input,
        ),
        h(
          "div",
          { class: "row" },
          h("button", { class: "button", type: "button", onclick: () => dialog.close() }, "Cancel"),
          button,
        ),
      ),
    );
    open(dialog);
  });
}

// The limits of one subject: bars of what is used, changed in place.

import { fill, h } from "../dom.js";
import { bad } from "./form.js";
import { LIMITS, whenRoom } from "./limitwords.js";
import { nameOf } from "./names.js";
import { toast } from "./toast.js";

let count = 0;

// `save(values)` resolves to the subject's entry, or is false where one may only look.
export function limitCard({ subject, name, kind, limits: given, save }) {
  count += 1;
  const id = `limits-${count}`;
  let limits = given;
  const body = h("div", { class: "limitbody" });
  const change = h(
    "button",
    { type: "button", class: "button little", "aria-label": `Change the limits of ${name}`, onclick: edit },
    "Change",
  );
  const element = h(
    "section",
    { class: "limitcard", "aria-labelledby": id, "data-subject": subject },
    h("header", null, h("h2", { id }, name, kind && h("span", { class: "small faint" }, ` ${kind}`)), save && change),
    body,
  );

  function show() {
    change.hidden = false;
    fill(
      body,
      limits.length ? h("ul", { class: "limitlist" }, limits.map(bar)) : h("p", { class: "soft" }, "No limits."),
    );
  }

  function edit() {
    change.hidden = true;
    const now = new Map(limits.map((limit) => [limit.name, limit.value]));
    const inputs = Object.entries(LIMITS).map(([limit, { label, unit, factor = 1, step = 1 }]) => {
      const input = h("input", {
        class: "field",
        id: `${id}-${limit}`,
        name: limit,
        type: "number",
        min: step === "any" ? 0 : 1,
        step,
        inputmode: step === "any" ? "decimal" : "numeric",
        autocomplete: "off",
        placeholder: "none",
      });
      if (now.has(limit)) input.value = now.get(limit) / factor;
      return h(
        "div",
        { class: "formfield" },
        h("label", { for: input.id }, label, unit && h("span", { class: "faint" }, ` (${unit})`)),
        input,
      );
    });
    const told = h("div", { role: "alert" });
    fill(
      body,
      h(
        "form",
        {
          class: "limitform",
          onsubmit: async (event) => {
            event.preventDefault();
            fill(told);
            try {
              ({ limits } = await save(changes(event.target, now)));
              toast("Limits saved. They hold from now on.");
              show();
              change.focus();
            } catch (error) {
              fill(told, bad(error.message));
            }
          },
        },
        h("div", { class: "limitfields" }, inputs),
        told,
        h(
          "div",
          { class: "row formacts" },
          h(
            "button",
            {
              type: "button",
              class: "button little",
              onclick: () => {
                show();
                change.focus();
              },
            },
            "Cancel",
          ),
          h("button", { type: "submit", class: "button primary little" }, "Save"),
        ),
      ),
    );
    body.querySelector("input").focus();
  }

  show();
  return { element, edit };
}

// What differs from now: a number, or null where it was taken away.
function changes(form, now) {
  const values = {};
  for (const [limit, { factor = 1 }] of Object.entries(LIMITS)) {
    const text = form.elements[limit].value.trim();
    const value = text === "" ? null : Number(text) * factor;
    if (value !== (now.get(limit) ?? null)) values[limit] = value;
  }
  return values;
}

function bar({ name, value, used, resets_in: resets, set_by: by, set_at: at }) {
  const { label, format } = LIMITS[name] ?? { label: name, format: String };
  const part = value > 0 ? used / value : 1;
  const fillBar = h("i");
  fillBar.style.width = `${Math.min(100, part * 100)}%`;
  const state = part >= 1 ? "full" : part >= 0.8 ? "near" : "";
  const words = part >= 1 ? "Full" : part >= 0.8 ? "Nearly full" : "";
  return h(
    "li",
    null,
    h(
      "p",
      { class: "row spread" },
      h("b", null, label),
      h("span", { class: "nums" }, `${format(used)} of ${format(value)}`),
    ),
    h(
      "div",
      {
        class: `bar limitbar ${state}`,
        role: "meter",
        "aria-label": label,
        "aria-valuemin": 0,
        "aria-valuemax": value,
        "aria-valuenow": Math.min(used, value),
        "aria-valuetext": `${format(used)} of ${format(value)}`,
      },
      fillBar,
    ),
    h(
      "p",
      { class: "small faint" },
      words && h("span", { class: state }, `${words}. `),
      used > 0 && resets ? `All of it is free again ${whenRoom(resets)}. ` : "",
      `Set ${nameOf(by, { by: true })} on ${new Date(at).toLocaleDateString()}.`,
    ),
  );
}

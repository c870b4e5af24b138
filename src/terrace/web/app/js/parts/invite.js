// Inviting: whom, as what, and the link that is shown once.

import { h } from "../dom.js";
import { ROLES, roleName } from "../words.js";
import { modal } from "./dialog.js";
import { field, form, select } from "./form.js";
import { icon } from "./icons.js";
import { copy } from "./toast.js";

const HERE_ALONE = new Set(["localhost", "127.0.0.1", "[::1]"]);

export function inviteForm({ roles, role = "member", submit, cancel }) {
  return form({
    parts: [
      field({
        label: "Email",
        name: "email",
        type: "email",
        required: false,
        autocomplete: "off",
        hint: "The link then works for this address alone. Empty: for whoever has it.",
      }),
      select({
        label: "Role",
        name: "role",
        value: roles.includes(role) ? role : roles[0],
        options: roles.map((each) => [each, `${roleName(each)}: ${ROLES[each][1]}`]),
      }),
    ],
    action: "Make the link",
    cancel,
    at: { bad_email: "email" },
    submit: ({ email, role: chosen }) => submit({ ...(email ? { email } : {}), role: chosen }),
  });
}

export function showLink({ title, text, url }) {
  const dialog = modal(
    title,
    h("p", { class: "soft" }, text),
    HERE_ALONE.has(new URL(url).hostname) &&
      h(
        "p",
        { class: "soft" },
        "It opens on the server’s own machine only. For others, open Terrace at the address they use, and make the link there.",
      ),
    h(
      "div",
      { class: "secret" },
      h("input", {
        class: "field",
        readonly: true,
        value: url,
        "aria-label": "Link",
        onfocus: (event) => event.target.select(),
      }),
      h(
        "button",
        { type: "button", class: "button primary", onclick: () => copy(url, "Link copied") },
        icon("copy"),
        "Copy",
      ),
    ),
    h(
      "div",
      { class: "row formacts" },
      h("button", { type: "button", class: "button", onclick: () => dialog.close() }, "Done"),
    ),
  );
  dialog.querySelector(".secret .button").focus();
}

// The form of a new account: open registration, an invitation, the first owner.

import { field, form } from "./form.js";
import { PASSWORD_CODES, newPassword } from "./outside.js";

export function newAccount({ action, submit, email: known = "", more = [], at = {}, signal }) {
  const name = field({ label: "Your name", name: "name", autocomplete: "name", maxlength: 100 });
  const email = field({
    label: "Email",
    name: "email",
    type: "email",
    autocomplete: "username",
    inputmode: "email",
    value: known,
    ...(known ? { readonly: true, hint: "The invitation is for this address." } : {}),
  });
  const password = field({ name: "password", ...newPassword() });
  return form({
    parts: [name, email, password, ...more],
    action,
    wide: true,
    signal,
    at: { bad_email: "email", email_taken: "email", ...PASSWORD_CODES, ...at },
    submit,
  });
}

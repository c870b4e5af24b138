// A new password by a link.

import { h } from "../dom.js";
import { accounts } from "../accounts.js";
import { field, form, good } from "../parts/form.js";
import { PASSWORD_CODES, newPassword, outside, secretOf } from "../parts/outside.js";

export async function view(main, _params, { signal }) {
  const token = secretOf();
  const lead = "You will be logged out everywhere, and log in again with the new one.";
  outside(
    main,
    { name: "Choose a new password", lead },
    form({
      parts: [field({ name: "password", ...newPassword("New password") })],
      action: "Keep it",
      wide: true,
      signal,
      at: PASSWORD_CODES,
      submit: async ({ password }) => {
        await accounts.reset(token, password);
        history.replaceState(null, "", "/reset");
        outside(
          main,
          { name: "New password", heading: "That is your password now" },
          good("All other logins of yours have ended."),
          h("a", { class: "button primary wide", href: "/login" }, "Log in"),
        );
      },
    }),
  );
}

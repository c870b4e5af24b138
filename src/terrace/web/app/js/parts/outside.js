// The frame of what is seen without an account: a card in the middle, nothing else.

import { ICON, fill, h } from "../dom.js";
import { title } from "../router.js";
import { goAway, session } from "../session.js";
import { accounts } from "../accounts.js";

export function outside(main, { name, heading = name, lead }, ...body) {
  title(name);
  fill(
    main,
    h(
      "div",
      { class: "doorway" },
      h("div", { class: "brand" }, h("img", { src: ICON, alt: "" }), "Terrace"),
      h("div", { class: "card" }, h("h1", null, heading), lead && h("p", { class: "soft" }, lead), ...body),
    ),
  );
  const first = main.querySelector("input:not([value]), button");
  if (first && matchMedia("(hover: hover)").matches) first.focus({ preventScroll: true });
}

// Buttons of other providers, and the word between them and the form.
export function providers() {
  const { oidc } = session();
  return oidc.length
    ? [
        h(
          "div",
          { class: "providerbuttons" },
          oidc.map(({ name, label }) =>
            h("a", { class: "button wide", href: accounts.oidcUrl(name), onclick: goAway }, `Continue with ${label}`),
          ),
        ),
        h("p", { class: "or small faint" }, h("span", null, "or")),
      ]
    : [];
}

export const PASSWORD = { type: "password", maxlength: 1000 };
export const newPassword = (label = "Password") => ({
  ...PASSWORD,
  label,
  autocomplete: "new-password",
  minlength: 8,
  hint: "At least 8 characters. A few words you remember are better than one with odd signs.",
});
export const PASSWORD_CODES = {
  password_short: "password",
  password_long: "password",
  password_common: "password",
  password_characters: "password",
};
export const secretOf = () => decodeURIComponent(location.hash.slice(1));

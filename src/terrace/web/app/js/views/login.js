// Logging in.

import { h } from "../dom.js";
import { accounts } from "../accounts.js";
import { destination, fresh, session, turn } from "../session.js";
import { bad, field, form, good } from "../parts/form.js";
import { PASSWORD, outside, providers } from "../parts/outside.js";

const REFUSED = {
  registration_closed: "Nobody with this login has an account here, and only the invited may make one.",
  account_disabled: "Your account is disabled. Ask an administrator.",
  oidc_cancelled: "You did not log in at the other provider. Try again, or log in here.",
  oidc_state: "That took too long, or was begun in another window. Try again.",
  oidc_domain: "Addresses like yours may not log in here this way.",
  oidc_unverified: "The other provider has not verified your address, so it can't be trusted here.",
  oidc_unknown: "Nobody with this login has an account here. Ask an administrator for an invitation.",
  oidc_missing: "That way to log in is no longer offered. Take another.",
  oidc_refused: "What the other provider told us does not hold. Try again, or ask an administrator.",
  oidc_issuer: "The other provider is not set up here as it should be. Ask an administrator.",
  oidc_insecure: "The other provider is not set up here as it should be. Ask an administrator.",
  oidc_away: "The other provider can't be reached now. Try again later.",
};

export async function view(main, _params, { signal }) {
  const refused = new URLSearchParams(location.hash.slice(1)).get("error");
  const email = field({ label: "Email", name: "email", type: "email", autocomplete: "username", inputmode: "email" });
  const password = field({ label: "Password", name: "password", autocomplete: "current-password", ...PASSWORD });
  outside(
    main,
    { name: "Log in", heading: "Welcome back" },
    refused && bad(REFUSED[refused] ?? "The other provider did not let you in. Try again, or ask an administrator."),
    providers(),
    form({
      parts: [email, password],
      action: "Log in",
      wide: true,
      signal,
      submit: async (values) => {
        fresh(await accounts.login(values));
        turn(destination());
      },
    }),
    h(
      "div",
      { class: "doorlinks" },
      session().mail &&
        h("button", { type: "button", class: "linkbutton", onclick: () => forgot(main, email.value) }, "Forgot it?"),
      !session().mail && h("span", { class: "small faint" }, "Forgot it? An administrator makes you a link to a new one."),
      session().registration === "open" && h("a", { href: `/register${location.search}` }, "Make an account"),
    ),
  );
}

function forgot(main, known) {
  const email = field({
    label: "Email",
    name: "email",
    type: "email",
    autocomplete: "username",
    inputmode: "email",
    value: known,
  });
  const back = () =>
    h("div", { class: "doorlinks" }, h("a", { href: `/login${location.search}` }, "Back to logging in"));
  const lead = "We send you a link with which you choose a new one.";
  outside(
    main,
    { name: "Forgotten password", lead },
    form({
      parts: [email],
      action: "Send the link",
      wide: true,
      submit: async (values) => {
        await accounts.forgot(values.email);
        outside(
          main,
          { name: "Look into your mail" },
          good(`If ${values.email} has an account here, a link is on its way. It is good for a day.`),
          back(),
        );
      },
    }),
    back(),
  );
}

// The first account: whoever makes it owns the installation.

import { h } from "../dom.js";
import { accounts } from "../accounts.js";
import { fresh, isLocal, session, turn } from "../session.js";
import { field } from "../parts/form.js";
import { icon } from "../parts/icons.js";
import { newAccount } from "../parts/newaccount.js";
import { outside } from "../parts/outside.js";

export async function view(main, _params, { signal }) {
  const code =
    session().setup_code_needed &&
    field({
      label: "Setup code",
      name: "setup_code",
      autocomplete: "one-time-code",
      autocapitalize: "characters",
      spellcheck: "false",
      maxlength: 40,
      hint: "Terrace printed it in the terminal where it was started.",
    });
  outside(
    main,
    {
      name: "Set up accounts",
      heading: isLocal() ? "Set up accounts" : "Welcome to Terrace",
      lead: "The first account owns this installation: it invites others and sets their limits.",
    },
    isLocal() &&
      h(
        "div",
        { class: "notice" },
        icon("info"),
        h(
          "p",
          null,
          "From then on everybody logs in, on this machine too, and programs need an API key. ",
          "Conversations and documents that are here now become yours.",
        ),
      ),
    newAccount({
      action: "Make the first account",
      more: [code],
      at: { setup_code_wrong: "setup_code" },
      signal,
      submit: async (values) => {
        fresh(await accounts.register(values));
        turn("/");
      },
    }),
    isLocal() && h("div", { class: "doorlinks" }, h("a", { href: "/settings" }, "Not now")),
  );
}

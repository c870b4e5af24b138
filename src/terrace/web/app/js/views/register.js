// Making an account where anybody may.

import { h } from "../dom.js";
import { accounts } from "../accounts.js";
import { destination, fresh, session, turn } from "../session.js";
import { outside, providers } from "../parts/outside.js";
import { newAccount } from "../parts/newaccount.js";

export async function view(main, _params, { signal }) {
  const toLogin = h("div", { class: "doorlinks" }, h("a", { href: `/login${location.search}` }, "I have an account"));
  if (session().registration !== "open") {
    const lead =
      session().registration === "invite"
        ? "Accounts are made by invitation here. Ask an administrator for a link."
        : "New accounts are not made here now.";
    outside(main, { name: "Make an account", lead }, toLogin);
    return;
  }
  outside(
    main,
    { name: "Make an account" },
    providers(),
    newAccount({
      action: "Make the account",
      signal,
      submit: async (values) => {
        fresh(await accounts.register(values));
        turn(destination());
      },
    }),
    toLogin,
  );
}

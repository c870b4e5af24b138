// An invitation: what it offers, and a way in with an account or with a new one.

import { h } from "../dom.js";
import { accounts } from "../accounts.js";
import { date } from "../format.js";
import { fresh, session, turn } from "../session.js";
import { ROLES } from "../words.js";
import { form, field } from "../parts/form.js";
import { newAccount } from "../parts/newaccount.js";
import { PASSWORD, outside, secretOf } from "../parts/outside.js";

export async function view(main, _params, { signal }) {
  const token = secretOf();
  let offer;
  try {
    offer = await accounts.invitation(token);
  } catch (error) {
    if (error.status !== 404 && error.status !== 422) throw error;
    outside(
      main,
      {
        name: "Invitation",
        heading: "This invitation is no longer good",
        lead: "It was used, taken back, or its time is over. Ask whoever sent it for another.",
      },
      h("a", { class: "button wide", href: "/" }, "To Terrace"),
    );
    return;
  }
  if (signal.aborted) return;
  draw(main, token, offer, session().user ? "mine" : "new", signal);
}

function draw(main, token, offer, how, signal) {
  const [role, means] = ROLES[offer.role] ?? [offer.role, ""];
  const join = async () => {
    const tenant = await accounts.accept(token);
    fresh(await accounts.switchTo(tenant.id));
    turn("/");
  };
  const link = (label, run) =>
    h("div", { class: "doorlinks" }, h("button", { type: "button", class: "linkbutton", onclick: run }, label));
  outside(
    main,
    {
      name: "Invitation",
      heading: `Join ${offer.tenant_name}`,
      lead: `You are invited as ${role.toLowerCase()}: ${means}. Good until ${date(offer.expires_at)}.`,
    },
    how === "mine" && [
      form({
        parts: [h("p", null, "You are logged in as ", h("b", null, session().user.email), ".")],
        action: `Join ${offer.tenant_name}`,
        wide: true,
        signal,
        submit: join,
      }),
      link("Somebody else? Log out", async () => {
        await accounts.logout();
        location.reload();
      }),
    ],
    how === "new" && [
      newAccount({
        action: "Make an account and join",
        email: offer.email ?? "",
        signal,
        submit: async (values) => {
          fresh(await accounts.register({ ...values, invitation: token }));
          turn("/");
        },
      }),
      link("I have an account already", () => draw(main, token, offer, "login", signal)),
    ],
    how === "login" && [
      form({
        parts: [
          field({ label: "Email", name: "email", type: "email", autocomplete: "username", value: offer.email ?? "" }),
          field({ label: "Password", name: "password", autocomplete: "current-password", ...PASSWORD }),
        ],
        action: "Log in and join",
        wide: true,
        signal,
        submit: async (values) => {
          fresh(await accounts.login(values));
          await join();
        },
      }),
      link("Make a new account", () => draw(main, token, offer, "new", signal)),
    ],
  );
}

// Who is logged in, at the foot of the sidebar: their account, their tenants, the way out.

import { h } from "../dom.js";
import { accounts } from "../accounts.js";
import { can, fresh, session, turn } from "../session.js";
import { roleName } from "../words.js";
import { menuButton } from "./menu.js";
import { attempt } from "./toast.js";

export const initials = (name) =>
  name
    .split(/\s+/)
    .filter(Boolean)
    .map((word) => [...word][0])
    .filter((_, index, all) => index === 0 || index === all.length - 1)
    .join("")
    .toUpperCase();

export const avatar = (name) => h("span", { class: "avatar", "aria-hidden": "true" }, initials(name));

export async function logOut() {
  if (await attempt(() => accounts.logout())) turn("/login");
}

export async function switchTo(tenant) {
  await attempt(async () => {
    fresh(await accounts.switchTo(tenant));
    turn("/");
  });
}

// Null where nobody logs in.
export function personMenu() {
  const { user, tenant, tenants, role } = session();
  if (!user) return null;
  const face = [
    avatar(user.name),
    h(
      "span",
      { class: "grow" },
      h("b", { class: "clip" }, user.name),
      h("span", { class: "clip" }, tenant ? tenant.name : "No tenant"),
    ),
  ];
  return menuButton(
    `${user.name}, ${tenant?.name ?? "no tenant"}: account and log out`,
    () => [
      { legend: `${user.email} · ${roleName(role)}` },
      { label: "Account", icon: "person", href: "/account" },
      can("keys") && { label: "API keys", icon: "key", href: "/keys" },
      tenants.length > 1 && { legend: "Tenants" },
      ...(tenants.length > 1
        ? tenants.map((each) => ({
            label: each.name,
            icon: each.id === tenant?.id ? "check" : "house",
            chosen: each.id === tenant?.id,
            run: () => each.id !== tenant?.id && switchTo(each.id),
          }))
        : []),
      { label: "Log out", icon: "leave", run: logOut },
    ],
    { class: "person", face },
  );
}

// Who is here, what they may do, and keeping their login good for as long as the page is open.

import { inThisTab, remember } from "./dom.js";

const COOKIE = /(?:^|; )terrace_csrf=([^;]*)/;
const EARLY = 60_000; // ms before its end that a login is renewed, or a fifth of its time where that is less
const HELD = 10_000; // ms after which a tab that renews is taken for dead
const tabs = "BroadcastChannel" in window ? new BroadcastChannel("terrace.session") : null;

let known = { mode: "local", permissions: [], tenants: [], oidc: [], user: null, csrf: null };
let renewing = null;
let gone = false;

// What `GET /api/auth/session` said: {mode, user, tenant, role, permissions, tenants, registration, mail, oidc, ...}.
export const session = () => known;
export const can = (permission) => known.permissions.includes(permission);
export const isLocal = () => known.mode === "local";

// What proves to the server that this page asks, and not another site in the same browser.
export function csrf() {
  const cookie = COOKIE.exec(document.cookie);
  return cookie ? decodeURIComponent(cookie[1]) : known.csrf;
}

const headers = () => {
  const token = csrf();
  return {
    Accept: "application/json",
    "Content-Type": "application/json",
    ...(token ? { "X-CSRF-Token": token } : {}),
  };
};

async function look() {
  const response = await fetch("/api/auth/session", { cache: "no-store", headers: { Accept: "application/json" } });
  if (!response.ok) throw new Error(`The server answered ${response.status}. Is another program at this address?`);
  known = await response.json();
}

// Reads the session at the start. A login whose access token has ended meanwhile goes on with a new one.
export async function load() {
  await look();
  if (known.mode === "accounts" && !known.user && COOKIE.test(document.cookie) && (await renew(Date.now())))
    await look();
  comeBack();
  if (known.user && !remember.get("login")) renew(Date.now()).catch(() => {}); // by another provider: learn when it ends
  if (known.user) setInterval(keep, 15_000);
  if (known.user) document.addEventListener("visibilitychange", keep);
}

// After every answer with tokens: when they end.
export function fresh({ expires_in: seconds, csrf: token }) {
  if (token) known.csrf = token;
  remember.set("login", { at: Date.now(), ends: Date.now() + seconds * 1000 });
}

// Pictures and downloads can't renew a login themselves, so it is renewed before it ends, by one tab for all.
function keep() {
  const login = remember.get("login");
  if (document.hidden || gone || !login) return;
  const early = Math.min(EARLY, (login.ends - login.at) / 5);
  if (Date.now() > login.ends - early) renew(login.at + 1).catch(() => {}); // unreachable: what is asked next tells
}

// A new access token, unless another tab got one after `since`. Resolves to false when the login is over.
export function renew(since) {
  renewing ??= alone(async () => {
    if ((remember.get("login")?.at ?? 0) >= since) return true;
    const response = await fetch("/api/auth/refresh", {
      method: "POST",
      cache: "no-store",
      headers: headers(),
      body: "{}",
    });
    if (response.ok) fresh(await response.json());
    else if (response.status === 429 || response.status >= 500) throw new TypeError("The login could not be renewed.");
    return response.ok;
  }).finally(() => {
    renewing = null;
  });
  return renewing;
}

// Runs `work` in one tab at a time: a refresh token that is used twice ends the login.
async function alone(work) {
  if (navigator.locks) return navigator.locks.request("terrace.renew", work);
  const mine = Math.random(); // plain http beyond this machine has no locks: a note all tabs respect
  for (let turn = 0; turn < 150; turn += 1) {
    const held = remember.get("renewing");
    if (!held || held.until < Date.now()) {
      remember.set("renewing", { by: mine, until: Date.now() + HELD });
      await new Promise((resolve) => setTimeout(resolve, 40 + 40 * Math.random()));
      if (remember.get("renewing", { by: mine }).by === mine) break;
    } else await new Promise((resolve) => setTimeout(resolve, 100));
  }
  try {
    return await work();
  } finally {
    remember.set("renewing", null);
  }
}

// Where a login leads: a path of this page, never another site.
export function destination() {
  const wanted = new URL(new URLSearchParams(location.search).get("next") ?? "/", location.origin);
  return wanted.origin === location.origin ? wanted.pathname + wanted.search + wanted.hash : "/";
}

// Before this tab goes to another provider: where to go on when it comes back.
export const goAway = () => inThisTab.set("next", destination());

function comeBack() {
  const wanted = inThisTab.take("next");
  if (!wanted) return;
  const { pathname, hash } = location;
  if (known.user && pathname === "/") history.replaceState(null, "", wanted);
  if (!known.user && pathname === "/login" && hash)
    history.replaceState(null, "", `/login?next=${encodeURIComponent(wanted)}${hash}`);
}

// The login is over: to the form, and back here after it.
export function leave() {
  if (gone) return;
  gone = true;
  dispatchEvent(new Event("loginover"));
  remember.set("login", null);
  location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search + location.hash)}`);
}

// Somebody logged in or out, or went to another tenant: everything is read anew, in every tab.
export function turn(to) {
  gone = true;
  tabs?.postMessage("changed");
  location.assign(to);
}

tabs?.addEventListener("message", () => location.reload());

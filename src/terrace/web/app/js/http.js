// The one way to the server: carries the CSRF token, and goes on with a new access token when the old one has ended.

import { csrf, isLocal, leave, renew, session } from "./session.js";

function dressed(init) {
  const token = csrf();
  return { cache: "no-store", ...init, headers: { ...init.headers, ...(token ? { "X-CSRF-Token": token } : {}) } };
}

// True when a refusal may be an ended login; the login is then good again. Leads to the form when it is over for good.
export async function revived(status, code, sent) {
  if (status !== 401 || code === "bad_login" || (!session().user && !isLocal())) return false;
  if (session().user && (await renew(sent))) return true;
  leave();
  throw new DOMException("The login is over.", "AbortError");
}

// As `fetch`. A request that is sent again is the same request: its body must be a text.
export async function send(path, init = {}) {
  const sent = Date.now();
  const response = await fetch(path, dressed(init));
  if (response.status !== 401) return response;
  const { code } = await response
    .clone()
    .json()
    .catch(() => ({}));
  return (await revived(401, code, sent)) ? fetch(path, dressed(init)) : response;
}

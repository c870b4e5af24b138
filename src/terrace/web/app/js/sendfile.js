// A form with a file on its way, which tells how much of it has gone.

import { Problem } from "./api.js";
import { revived } from "./http.js";
import { csrf } from "./session.js";

// Resolves to the answer; `progress(part)` runs with 0 to 1. Sent once more when the login had to be renewed.
export async function sendForm(path, form, { progress = () => {}, headers = {} } = {}) {
  const sent = Date.now();
  try {
    return await post(path, form, progress, headers);
  } catch (error) {
    if (await revived(error.status, error.code, sent)) return post(path, form, progress, headers);
    throw error;
  }
}

function post(path, form, progress, headers) {
  return new Promise((resolve, reject) => {
    const call = new XMLHttpRequest();
    call.responseType = "json";
    call.upload.onprogress = (event) => {
      if (event.lengthComputable) progress(event.loaded / event.total);
    };
    call.onload = () => {
      const body = call.response ?? {};
      if (call.status < 300) resolve(body);
      else
        reject(
          new Problem(body.detail ?? `The server answered ${call.status}.`, {
            status: call.status,
            code: body.code,
            kind: body.kind,
          }),
        );
    };
    call.onerror = () => reject(new Problem("The upload broke off. Check that the server runs, then try again."));
    call.open("POST", path);
    if (csrf()) call.setRequestHeader("X-CSRF-Token", csrf());
    for (const [name, value] of Object.entries(headers)) call.setRequestHeader(name, value);
    call.send(form);
  });
}

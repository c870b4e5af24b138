// Short messages at the bottom. Errors stay until dismissed or ten seconds have passed.

import { $, h } from "../dom.js";
import { withNames } from "./limitwords.js";

export function toast(text, { error = false, action = null } = {}) {
  const item = h(
    "div",
    { class: error ? "toast error" : "toast" },
    h("span", null, withNames(text)),
    action &&
      h(
        "button",
        {
          type: "button",
          onclick: () => {
            item.remove();
            action.run();
          },
        },
        action.label,
      ),
    h("button", { type: "button", onclick: () => item.remove() }, "Dismiss"),
  );
  // A modal dialog makes everything else unreachable, so they are shown inside it.
  const place = [...document.querySelectorAll("dialog[open]")].at(-1) ?? document.body;
  if ($("toasts").parentElement !== place) place.append($("toasts"));
  $("toasts").append(item);
  while ($("toasts").childElementCount > 3) $("toasts").firstChild.remove();
  setTimeout(() => item.remove(), error ? 10_000 : 4_000);
}

// Runs `work`; what goes wrong is told as a toast. Returns undefined then.
export async function attempt(work, done = null) {
  try {
    const result = await work();
    if (done) toast(done);
    return result ?? true;
  } catch (error) {
    if (error.name !== "AbortError") toast(error.message, { error: true });
    return undefined;
  }
}

export async function copy(text, said = "Copied") {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = h("textarea", { class: "quiet", "aria-hidden": "true" });
    area.value = text;
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  toast(said);
}

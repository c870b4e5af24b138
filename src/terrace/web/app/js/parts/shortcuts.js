// The keyboard: what works everywhere, and the sheet that tells it.

import { h, remember } from "../dom.js";
import { navigate } from "../router.js";
import { closer, open } from "./dialog.js";
import { singleKeys } from "./theme.js";

const mac = /Mac|iPhone|iPad/.test(navigator.platform);
const command = mac ? "⌘" : "Ctrl";

const LIST = [
  [[command, "Shift", "O"], "New chat"],
  [["/"], "Write a message"],
  [[command, "K"], "Search conversations"],
  [["Enter"], "Send"],
  [["Shift", "Enter"], "New line"],
  [["Esc"], "Stop the answer, or close what is open"],
  [["["], "Previous page in a document"],
  [["]"], "Next page in a document"],
  [["?"], "This list"],
];

export function showShortcuts() {
  const dialog = h(
    "dialog",
    { "aria-labelledby": "keys-title" },
    h(
      "div",
      { class: "ask" },
      h(
        "div",
        { class: "row spread" },
        h("h2", { id: "keys-title" }, "Keyboard"),
        closer(() => dialog),
      ),
      h(
        "dl",
        { class: "shortcuts" },
        LIST.map(([keys, text]) => [
          h("dt", null, text),
          h(
            "dd",
            null,
            keys.map((key) => [h("kbd", null, key), " "]),
          ),
        ]),
      ),
      h(
        "label",
        { class: "check small" },
        h("input", {
          type: "checkbox",
          checked: singleKeys(),
          onchange: (event) => remember.set("singlekeys", event.target.checked),
        }),
        "Single keys ( / [ ] ? ) are shortcuts",
      ),
    ),
  );
  open(dialog);
}

const writing = (target) => target.closest?.("input, textarea, select, [contenteditable]");

export function listen({ focusSearch }) {
  document.addEventListener("keydown", (event) => {
    const modifier = mac ? event.metaKey : event.ctrlKey;
    if (modifier && event.shiftKey && event.key.toLowerCase() === "o") {
      event.preventDefault();
      navigate("/");
      return;
    }
    if (modifier && !event.shiftKey && event.key.toLowerCase() === "k") {
      event.preventDefault();
      focusSearch();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || writing(event.target) || !singleKeys()) return;
    if (document.querySelector("dialog[open]")) return;
    if (event.key === "?") {
      event.preventDefault();
      showShortcuts();
    }
    if (event.key === "/") {
      event.preventDefault();
      const composer = document.querySelector("#composer");
      if (composer) composer.focus();
      else navigate("/");
    }
  });
}

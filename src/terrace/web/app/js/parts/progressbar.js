// A bar of what is written, what failed and what is left.

import { h } from "../dom.js";
import { number } from "../format.js";

export function progressBar(label, { big = false } = {}) {
  const parts = {
    done: h("i", { class: "isdone" }),
    failed: h("i", { class: "isfailed" }),
    skipped: h("i", { class: "isskipped" }),
  };
  const element = h(
    "div",
    {
      class: big ? "progress big" : "progress",
      role: "progressbar",
      "aria-label": label,
      "aria-valuemin": 0,
      "aria-valuemax": 100,
    },
    Object.values(parts),
  );
  const bar = {
    element,
    show(counts) {
      const total = Math.max(1, counts.total);
      let all = 0;
      for (const [name, part] of Object.entries(parts)) {
        part.style.width = `${(counts[name] / total) * 100}%`;
        all += counts[name];
      }
      element.setAttribute("aria-valuenow", Math.floor((all / total) * 100));
      element.setAttribute("aria-valuetext", `${number(all)} of ${number(counts.total)}`);
      return bar;
    },
  };
  return bar;
}

// A question that was not taken because there is no room now: it stays where it was written, with what may be done.

import { fill, h } from "../dom.js";
import { limitNotice } from "./limitwords.js";
import { againButton } from "./message.js";
import { learnNames } from "./names.js";

export class Unsent {
  elements = [];

  // `again` sends it, `edit` gives the words back; both come after it is gone from here.
  show(text, limit, { again, edit, signal }) {
    const place = h("div", { role: "alert" });
    const then = (run) => () => {
      this.forget();
      run();
    };
    const draw = () => {
      const acts = [againButton("Edit", then(edit))];
      fill(place, limitNotice(limit, { later: [againButton("Send again", then(again))], acts, signal }));
    };
    draw();
    learnNames().then(() => !signal.aborted && draw());
    this.elements = [
      h("article", { class: "message user", "aria-label": "You, not sent" }, h("div", { class: "bubble" }, text)),
      h("article", { class: "message assistant refused", "aria-label": "Not sent" }, place),
    ];
    return this.elements;
  }

  forget() {
    for (const each of this.elements) each.remove();
    this.elements = [];
  }
}

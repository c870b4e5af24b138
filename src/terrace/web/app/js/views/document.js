// One document as a page of its own: what a citation's link opens.

import { api } from "../api.js";
import { fill, h } from "../dom.js";
import { title } from "../router.js";
import { viewer } from "../parts/viewer.js";

const whole = (search, name) => (/^\d{1,12}$/.test(search.get(name) ?? "") ? Number(search.get(name)) : null);

export async function documentView(main, { id }, { signal, search }) {
  const document = await api.document(id, signal);
  title(document.title || document.name);
  const spot = {
    id,
    name: document.title || document.name,
    page: whole(search, "page"),
    start: whole(search, "start"),
    end: whole(search, "end"),
  };
  fill(main, h("div", { class: "documentpage" }, viewer(spot, { heading: "h1", signal }).element));
}

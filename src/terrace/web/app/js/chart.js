// Stacked columns over days, drawn by hand: SVG in the pixels of its place, a tooltip that mouse, finger and arrow keys
// move, a legend. Colours are classes (css/charts.css), so that light and dark follow the page.

import { fill, h } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 240;
const TOP = 12;
const BOTTOM = 26;
const GAP = 1.5; // pixels between two parts of a column
export const COLOURS = 5; // and one more for what remains

function s(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// The upper end of an axis and its few round steps.
export function ticks(largest, wanted = 4) {
  if (!(largest > 0)) return [0, 1];
  const rough = largest / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((each) => each * power).find((each) => each >= rough * 0.999);
  const count = Math.ceil(largest / step - 1e-9);
  return Array.from({ length: count + 1 }, (_, index) => Number((index * step).toPrecision(12)));
}

// `points`: [{label, short, parts: [number a series], note}]; `series`: [names]; `format(value)` for tooltips, `axis(value)` for
// the axis. `others`: whether the last series is what remains.
export function columns({ label, points, series, format, axis = format, others = false }) {
  const colour = (index) => `c${others && index === series.length - 1 ? "x" : index + 1}`;
  const totals = points.map(({ parts }) => parts.reduce((sum, part) => sum + part, 0));
  const steps = ticks(Math.max(...totals));
  const top = steps.at(-1);
  const place = h("div", { class: "plot" });
  const tip = h("div", { class: "charttip", hidden: true });
  const spoken = h("p", { class: "quiet", role: "status" });
  let at = -1;
  let geometry = null;

  function draw(width) {
    const left = Math.max(...steps.map((step) => axis(step).length)) * 6.6 + 12;
    const inner = Math.max(40, width - left - 4);
    const slot = inner / points.length;
    const bar = Math.max(1, Math.min(36, slot - Math.max(1, slot * 0.22)));
    const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top);
    geometry = { left, slot };
    const picture = s("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, "aria-hidden": "true" });
    for (const step of steps) {
      const text = s("text", { x: left - 8, y: y(step) + 4, class: "axis", "text-anchor": "end" }, axis(step));
      picture.append(
        s("line", { x1: left, x2: width, y1: y(step), y2: y(step), class: step ? "grid" : "ground" }),
        text,
      );
    }
    points.forEach(({ parts }, index) => {
      const x = left + slot * index + (slot - bar) / 2;
      const group = s("g", { class: "column", "data-index": index });
      let sum = 0;
      parts.forEach((part, which) => {
        if (!(part > 0)) return;
        const low = y(sum);
        sum += part;
        const gap = low < y(0) ? GAP : 0;
        const height = Math.max(1, low - y(sum) - gap);
        const rect = { x, y: y(sum), width: bar, height, class: colour(which) };
        group.append(s("rect", { ...rect, rx: Math.min(2, bar / 4) }));
      });
      picture.append(group);
    });
    const every = Math.ceil(points.length / Math.max(2, Math.floor(inner / 64)));
    points.forEach(({ short }, index) => {
      if ((points.length - 1 - index) % every) return;
      const x = left + slot * (index + 0.5);
      const anchor = x > width - 24 ? "end" : "middle";
      picture.append(
        s("text", { x: anchor === "end" ? width : x, y: HEIGHT - 8, class: "axis", "text-anchor": anchor }, short),
      );
    });
    fill(place, picture, tip);
    if (at >= 0) point(at);
  }

  function point(index, aloud = false) {
    at = Math.max(-1, Math.min(points.length - 1, index));
    for (const each of place.querySelectorAll(".column"))
      each.classList.toggle("lit", Number(each.dataset.index) === at);
    place.querySelector("svg")?.classList.toggle("pointing", at >= 0);
    tip.hidden = at < 0;
    if (at < 0) return;
    const { label: day, parts, note } = points[at];
    const lines = parts
      .map((part, which) => [which, part])
      .filter(([, part]) => part > 0)
      .reverse();
    fill(
      tip,
      h("b", null, day),
      lines.map(([which, part]) =>
        h(
          "p",
          null,
          h("i", { class: `swatch ${colour(which)}` }),
          h("span", { class: "clip" }, series[which]),
          h("span", { class: "nums" }, format(part)),
        ),
      ),
      (lines.length !== 1 || note) &&
        h("p", { class: "sum" }, h("span", null, "Together"), h("span", { class: "nums" }, format(totals[at]))),
      note && h("p", { class: "faint" }, note),
    );
    const x = geometry.left + geometry.slot * (at + 0.5);
    const room = place.clientWidth - tip.offsetWidth;
    const beside = x + 14 > room ? x - tip.offsetWidth - 14 : x + 14;
    tip.style.left = `${Math.max(0, Math.min(room, beside))}px`;
    if (aloud)
      spoken.textContent = [
        day,
        format(totals[at]),
        ...lines.map(([which, part]) => `${series[which]} ${format(part)}`),
        note,
      ]
        .filter(Boolean)
        .join(", ");
  }

  const under = (event) =>
    Math.floor((event.clientX - place.getBoundingClientRect().left - geometry.left) / geometry.slot);
  place.addEventListener("pointermove", (event) => {
    const index = under(event);
    point(index < 0 || index >= points.length ? -1 : index);
  });
  place.addEventListener("pointerdown", (event) => point(under(event)));
  place.addEventListener("pointerleave", (event) => {
    if (event.pointerType === "mouse") point(-1);
  });

  const chart = h(
    "div",
    {
      class: "chart",
      tabindex: "0",
      role: "group",
      "aria-roledescription": "chart",
      "aria-label": `${label}. Arrow keys move over the days; the table below has all of it.`,
      onkeydown: (event) => {
        const to = {
          ArrowLeft: at < 0 ? points.length - 1 : at - 1,
          ArrowRight: at + 1,
          Home: 0,
          End: points.length - 1,
        }[event.key];
        if (event.key === "Escape") point(-1);
        if (to === undefined) return;
        event.preventDefault();
        point(Math.max(0, to), true);
      },
      onblur: () => point(-1),
    },
    place,
    spoken,
  );
  const legend =
    series.length > 1 &&
    h(
      "ul",
      { class: "legendlist", "aria-label": "Colours" },
      series.map((name, index) =>
        h("li", null, h("i", { class: `swatch ${colour(index)}` }), h("span", { class: "clip" }, name)),
      ),
    );
  place.style.height = `${HEIGHT}px`;
  new ResizeObserver(([entry]) => draw(Math.floor(entry.contentRect.width))).observe(place);
  return h("div", { class: "chartbox" }, chart, legend);
}

// A part of a whole, as a bar in a cell.
export function share(value, whole) {
  const bar = h("i");
  bar.style.width = `${whole > 0 ? Math.max(value > 0 ? 1 : 0, (100 * value) / whole) : 0}%`;
  return h("div", { class: "bar sharebar", "aria-hidden": "true" }, bar);
}

// Lists that are read again while they are looked at, without taking the focus or a menu from anybody.

const SOON = 150; // ms, in which several wishes are one
const BUSY = 1_500; // ms between two looks while something is under way
const CALM = 20_000;

// Draws `items` into `list`, a line each; only lines that show something else than before are made anew.
export function redraw(list, items, line, print = JSON.stringify) {
  const minute = Math.floor(Date.now() / 60_000); // "a minute ago" grows old
  const before = new Map([...list.children].map((each) => [each.key, each]));
  const active = list.contains(document.activeElement) ? document.activeElement : null;
  const row = active && [...list.children].find((each) => each.contains(active));
  const at = row ? controls(row).indexOf(active) : -1;
  const fresh = items.map((item) => {
    const shows = `${minute} ${print(item)}`;
    const was = before.get(item.id);
    if (was?.shows === shows) return was;
    return Object.assign(reopened(line(item), was), { key: item.id, shows });
  });
  if (fresh.length === list.childElementCount && fresh.every((each, index) => list.children[index] === each)) return;
  list.replaceChildren(...fresh);
  if (!active) return;
  const now = active.isConnected ? active : controls(fresh.find((each) => each.key === row.key))[at];
  now?.focus();
}

// Instead of lines: what to do where there are none yet. It stays as it is while it is shown.
export function hollow(list, make) {
  if (list.firstElementChild?.key !== "none") list.replaceChildren(Object.assign(make(), { key: "none" }));
}

// What was open in the line before is open in the new one.
function reopened(line, before) {
  const open = [...(before?.querySelectorAll("details") ?? [])].map((each) => each.open);
  for (const [index, each] of line.querySelectorAll("details").entries()) each.open = open[index] ?? each.open;
  return line;
}

const controls = (row) => [...(row?.querySelectorAll("button, a, input, summary") ?? [])];

// Runs `look` now and then until `signal` aborts: often while `busy()`, seldom else. `soon()` asks for it at once.
export function lively(look, { busy, signal }) {
  let timer;
  let looking = false;
  let wanted = false;
  let looked = Date.now();
  const later = (wait) => {
    clearTimeout(timer);
    if (!signal.aborted) timer = setTimeout(run, wait);
  };
  const due = () => wanted || busy() || Date.now() - looked > CALM;
  const seen = () => !document.hidden && !document.querySelector("main .menu");
  const run = async () => {
    if (looking) return; // it goes on by itself when it has looked
    if (seen() && due()) {
      looking = true;
      wanted = false;
      try {
        await look();
      } catch {
        /* the connection badge tells */
      }
      looking = false;
      looked = Date.now();
    }
    later(wanted ? SOON : BUSY);
  };
  signal.addEventListener("abort", () => clearTimeout(timer), { once: true });
  later(BUSY);
  return {
    soon(wait = SOON) {
      wanted = true;
      later(wait);
    },
  };
}

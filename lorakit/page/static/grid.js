// All photos: filtered, sorted, judged by hand; only those in view are in the page.
import {
  html,
  useCallback,
  useEffect,
  useLayoutEffect,
  useRef,
  useState,
  useSize,
  Busy,
  Dialog,
  Empty,
  Key,
  Sign,
  count,
  figure,
  number,
  useAnswer,
} from "./ui.js";
import { ask, go, loadVisits, notice, poll, setVerdict, state, told, useStore } from "./store.js";
import { useKeys } from "./keys.js";
import { compile } from "./search.js";

// What is filtered by stays while one looks at a photo, and in this tab
const KEPT = `lorakit ${location.pathname} grid`;
export const wanted = {
  verdict: "",
  chips: [],
  query: "",
  sort: "name",
  current: null,
  ...JSON.parse(sessionStorage.getItem(KEPT) ?? "{}"),
};
const keepWanted = () => sessionStorage.setItem(KEPT, JSON.stringify(wanted));
export const selection = new Set();

const CHIPS = [
  ["chosen", "chosen", (row) => row.chosen],
  ["hand", "by hand", (row) => Object.keys(row.human ?? {}).length > 0],
  ["copies", "copies", (row) => row.of],
  ["untold", "no text", (row) => row.chosen && !row.text],
  ["faults", "text to look at", (row) => row.faults],
];
const SORTS = {
  name: ["Name", null],
  fits: ["Worst fit", (row) => row.fits ?? 9],
  loss: ["Highest loss", (row) => -(state.visits[row.id]?.[0] ?? -1)],
  sharp: ["Least sharp", (row) => row.sharp ?? 9],
  size: ["Smallest", (row) => Math.min(row.w ?? 0, row.h ?? 0)],
};
const words = (reason) => reason.split(":")[0];

let made = {};
// The rows that are shown, in order; made anew when rows or what is wanted changes.
export function shownRows() {
  const key = [state.version, wanted.verdict, wanted.chips.join(), wanted.query, wanted.sort].join("\n");
  if (made.key === key) return made;
  const rows = state.order.map((id) => state.rows.get(id)).filter(Boolean);
  const matches = compile(wanted.query),
    chips = wanted.chips.map(chipTest);
  const found = rows.filter((row) => chips.every((test) => test(row)) && matches(row, state.visits));
  const verdicts = { keep: 0, warn: 0, reject: 0 };
  for (const row of found) verdicts[row.verdict]++;
  let shown = wanted.verdict ? found.filter((row) => row.verdict === wanted.verdict) : found;
  const by = SORTS[wanted.sort]?.[1];
  if (by)
    shown = shown
      .map((row, at) => [by(row), at, row])
      .sort((one, other) => one[0] - other[0] || one[1] - other[1])
      .map((one) => one[2]);
  const reasons = new Map();
  const chipCounts = Object.fromEntries(CHIPS.map(([name]) => [name, 0]));
  for (const row of rows) {
    for (const [name, , test] of CHIPS) if (test(row)) chipCounts[name]++;
    for (const [, reason, said] of row.why ?? []) {
      const one = reasons.get(reason) ?? [words(said), 0, false];
      one[1]++;
      reasons.set(reason, one);
    }
    for (const [reason, said] of row.faults ?? []) {
      const one = reasons.get(reason) ?? [words(said), 0, true];
      one[1]++;
      reasons.set(reason, one);
    }
  }
  made = {
    key,
    rows: shown,
    total: rows.length,
    found: found.length,
    verdicts,
    chips: chipCounts,
    reasons: [...reasons].sort((one, other) => other[1][1] - one[1][1]),
  };
  return made;
}
function chipTest(name) {
  const fixed = CHIPS.find((chip) => chip[0] === name);
  return fixed ? fixed[2] : (row) => row.why?.some((why) => why[1] === name) || row.faults?.some((fault) => fault[0] === name);
}

export default function Grid() {
  useStore();
  const [, redraw] = useState(0),
    again = () => {
      keepWanted();
      redraw((n) => n + 1);
    };
  const [limits, showLimits] = useState(null);
  const search = useRef(),
    list = useRef(),
    found = shownRows(),
    rows = found.rows;
  useEffect(() => {
    if (told.views.includes("training")) loadVisits();
  }, []);
  const set = (changes) => {
    Object.assign(wanted, changes);
    list.current && (list.current.scrollTop = 0);
    again();
  };
  const toggle = (name) =>
    set({ chips: wanted.chips.includes(name) ? wanted.chips.filter((one) => one !== name) : [...wanted.chips, name] });
  const clear = () => set({ verdict: "", chips: [], query: "" });
  useKeys({ search: () => search.current.focus() });
  const reason = wanted.chips.find((chip) => found.reasons.some(([name, one]) => name === chip && !one[2]));
  if (!state.order.length)
    return html`<main>${
      state.facts.work
        ? html`<${Empty} title="The photos are being found"><p>They appear here as they are scanned.</p><//>`
        : html`<${Empty} title="No photos yet"><p>Name a folder of photos: <code>lorakit run PHOTOS -o ${state.facts.project?.name ?? "PROJECT"}</code></p><//>`
    }</main>`;
  return html`<main class="gridview"><h1 class="hidden">Photos</h1>
    <div class="toolbar">
      <div class="segments" role="group" aria-label="Verdict">
        ${[
          ["", "All", found.found],
          ["keep", "Keep", found.verdicts.keep],
          ["warn", "Warn", found.verdicts.warn],
          ["reject", "Reject", found.verdicts.reject],
        ].map(
          ([name, said, n]) => html`
          <button key=${name} class=${name} aria-pressed=${wanted.verdict === name} onClick=${() => set({ verdict: name })}>${said} <span>${number(n)}</span></button>`,
        )}
      </div>
      <label class="search"><span class="hidden">Search</span><input ref=${search} type="search" placeholder="Search: words, name:img* tokens>75 NOT dark" value=${wanted.query}
        onInput=${(event) => set({ query: event.target.value })} onKeyDown=${(event) => {
          if (event.key === "Escape" || event.key === "Enter") {
            event.target.blur();
            list.current?.querySelector("[role=listbox]")?.focus();
          }
        }} /><${Key}>/<//></label>
      <label class="sort"><span class="hidden">Sort by</span><select value=${wanted.sort} onChange=${(event) => set({ sort: event.target.value })}>
        ${Object.entries(SORTS).map(([name, [said]]) => html`<option key=${name} value=${name}>${said}</option>`)}</select></label>
    </div>
    <div class="chips" role="group" aria-label="Filters" onWheel=${sideways}>
      ${CHIPS.filter(([name]) => found.chips[name] || wanted.chips.includes(name)).map(([name, said]) => html`<button key=${name} class="chip" aria-pressed=${wanted.chips.includes(name)} onClick=${() => toggle(name)}>${said} <span>${number(found.chips[name])}</span></button>`)}
      ${found.reasons.slice(0, 14).map(([name, [said, n]], at) => html`<button key=${name} class=${`chip why${at === 0 ? " first" : ""}`} aria-pressed=${wanted.chips.includes(name)} onClick=${() => toggle(name)}><bdi>${said}</bdi> <span>${number(n)}</span></button>`)}
      ${wanted.chips.filter((name) => !CHIPS.some((chip) => chip[0] === name) && !found.reasons.slice(0, 14).some((one) => one[0] === name)).map((name) => html`<button key=${name} class="chip why" aria-pressed="true" onClick=${() => toggle(name)}>${name.replaceAll("_", " ")} <span>0</span></button>`)}
      ${reason && !told.readOnly && html`<button class="chip act" onClick=${() => showLimits(reason)}>Limits …</button>`}
    </div>
    ${
      rows.length
        ? html`<${Cells} key="cells" rows=${rows} list=${list} />`
        : html`<${Empty} title=${nothing(found)}><p>${count(found.total, "photo")} in all.</p><button onClick=${clear}>Show all</button><//>`
    }
    ${limits && html`<${Limits} reason=${limits} close=${() => showLimits(null)} />`}
  </main>`;
}

// A wheel that only turns up and down moves the chips along.
function sideways(event) {
  if (!event.deltaX && event.currentTarget.scrollWidth > event.currentTarget.clientWidth) {
    event.preventDefault();
    event.currentTarget.scrollLeft += event.deltaY;
  }
}

function nothing(found) {
  if (wanted.query) return `Nothing matches “${wanted.query}”`;
  if (wanted.chips.length === 1 && !wanted.verdict) return `No photo is here for “${wanted.chips[0].replaceAll("_", " ")}”`;
  if (wanted.verdict)
    return { keep: "No photo is simply kept", warn: "No photo has a warning", reject: "No photo is rejected" }[wanted.verdict];
  return "No photo is all of this";
}

const GAP = 12,
  CAPTION = 40,
  LEAST = 168;

function Cells({ rows, list }) {
  const own = useRef(),
    box = list ?? own;
  const [width, height] = useSize(box);
  const [top, setTop] = useState(0),
    [, redraw] = useState(0),
    anchor = useRef(null),
    pressTimer = useRef(null);
  const narrow = width < 560,
    pad = narrow ? 10 : 20;
  const columns = narrow ? 2 : Math.max(2, Math.floor((width - 2 * pad + GAP) / (LEAST + GAP)));
  const side = Math.floor((width - 2 * pad - (columns - 1) * GAP) / columns),
    step = side + CAPTION + GAP;
  const all = Math.ceil(rows.length / columns);
  const ids = rows.map((row) => row.id);
  let current = ids.indexOf(wanted.current);
  if (current < 0) current = 0;

  const show = useCallback(
    (at) => {
      const line = Math.floor(at / columns),
        from = pad + line * step,
        view = box.current;
      if (!view) return;
      if (from < view.scrollTop + pad) view.scrollTop = from - pad;
      else if (from + step > view.scrollTop + view.clientHeight) view.scrollTop = from + step - view.clientHeight + pad;
    },
    [columns, step, pad],
  );
  useLayoutEffect(() => {
    if (width && wanted.current) {
      show(current);
      setTop(box.current.scrollTop);
    }
  }, [width > 0]);
  useEffect(() => {
    box.current?.querySelector("[role=listbox]")?.focus({ preventScroll: true });
  }, []);

  const move = (to, extend) => {
    const at = Math.max(0, Math.min(rows.length - 1, to));
    if (extend) {
      anchor.current ??= current;
      mark(anchor.current, at);
    } else {
      anchor.current = null;
      if (selection.size <= 1) selection.clear();
    }
    wanted.current = ids[at];
    keepWanted();
    show(at);
    redraw((n) => n + 1);
  };
  const mark = (from, to) => {
    selection.clear();
    for (let at = Math.min(from, to); at <= Math.max(from, to); at++) selection.add(ids[at]);
  };
  const toggle = (id) => {
    if (selection.has(id)) selection.delete(id);
    else selection.add(id);
    redraw((n) => n + 1);
  };
  const marked = () => rows.filter((row) => selection.has(row.id));
  const judge = (verdict) => {
    const many = marked();
    if (many.length > 1) {
      setVerdict(many, verdict);
      return;
    }
    if (!rows[current]) return;
    const next = ids[current + 1] ?? ids[current - 1],
      shrinks = wanted.verdict && verdict !== wanted.verdict;
    setVerdict([rows[current]], verdict);
    selection.clear();
    if (shrinks) {
      wanted.current = next;
      keepWanted();
      redraw((n) => n + 1);
    } else move(current + 1);
  };
  const toFault = (way) => {
    for (let at = current + way; at >= 0 && at < rows.length; at += way) if (rows[at].why || rows[at].faults) return move(at);
    notice(way > 0 ? "No further photo has something to look at." : "None before has something to look at.");
  };
  const page = Math.max(1, Math.floor(height / step)) * columns;
  useKeys({
    left: (event) => move(current - 1, event.shiftKey),
    right: (event) => move(current + 1, event.shiftKey),
    up: (event) => move(current - columns < 0 ? current : current - columns, event.shiftKey),
    down: (event) => move(current + columns, event.shiftKey),
    first: () => move(0),
    last: () => move(rows.length - 1),
    "key PageDown": () => move(current + page),
    "key PageUp": () => move(current - page),
    open: () => {
      if (rows[current]) go(`photo/${rows[current].id}`);
    },
    select: () => toggle(ids[current]),
    all: () => {
      for (const id of ids) selection.add(id);
      redraw((n) => n + 1);
    },
    back: () => {
      if (!selection.size) return false;
      selection.clear();
      redraw((n) => n + 1);
    },
    keep: () => judge("keep"),
    reject: () => judge("reject"),
    judged: () => judge(null),
    fault: () => toFault(1),
    faultBefore: () => toFault(-1),
  });
  const press = (event, at) => {
    if (event.pointerType === "touch") {
      pressTimer.current = setTimeout(() => {
        pressTimer.current = "held";
        toggle(ids[at]);
        navigator.vibrate?.(8);
      }, 450);
    }
  };
  const click = (event, at) => {
    const held = pressTimer.current === "held";
    clearTimeout(pressTimer.current);
    pressTimer.current = null;
    if (held) return;
    if (event.pointerType === "touch") {
      wanted.current = ids[at];
      keepWanted();
      if (selection.size) toggle(ids[at]);
      else go(`photo/${ids[at]}`);
      return;
    }
    if (event.shiftKey) {
      anchor.current ??= current;
      mark(anchor.current, at);
      wanted.current = ids[at];
    } else if (event.ctrlKey || event.metaKey) {
      toggle(ids[at]);
      wanted.current = ids[at];
    } else {
      selection.clear();
      selection.add(ids[at]);
      wanted.current = ids[at];
      anchor.current = at;
    }
    keepWanted();
    redraw((n) => n + 1);
  };
  const from = Math.max(0, Math.floor((top - pad) / step) - 1),
    to = Math.min(all, Math.ceil((top + height) / step) + 1);
  const shown = width ? rows.slice(from * columns, to * columns) : [];
  const many = marked();
  return html`<div class="scroll" ref=${box} onScroll=${(event) => setTop(event.target.scrollTop)}>
    <div role="listbox" class="cells" tabindex="0" aria-label="Photos" aria-multiselectable="true" aria-activedescendant=${rows[current] && shown.includes(rows[current]) ? `p${rows[current].id}` : undefined}
      style=${{ height: `${2 * pad + all * step}px` }}>
      ${shown.map((row, n) => {
        const at = from * columns + n;
        return html`<${Cell} key=${row.id} row=${row} at=${at} total=${rows.length} side=${side}
        x=${pad + (at % columns) * (side + GAP)} y=${pad + Math.floor(at / columns) * step} current=${at === current} marked=${selection.has(row.id)} press=${press} click=${click} />`;
      })}
    </div>
    ${
      many.length > 0 &&
      html`<${Selected} rows=${many} clear=${() => {
        selection.clear();
        redraw((n) => n + 1);
      }} />`
    }
  </div>`;
}

// No picture is asked for of what no check could read.
function Cell({ row, at, total, side, x, y, current, marked, press, click }) {
  const image = useRef();
  useEffect(
    () => () => {
      if (image.current && !image.current.complete) image.current.src = "";
    },
    [],
  ); // no longer waited for
  const why = row.why?.find((one) => one[0] === row.verdict) ?? row.why?.[0],
    fault = row.faults?.[0];
  return html`<div role="option" id=${`p${row.id}`} class=${`cell ${row.verdict}${current ? " current" : ""}${marked ? " marked" : ""}`} aria-selected=${marked} aria-posinset=${at + 1} aria-setsize=${total}
    style=${{ width: `${side}px`, transform: `translate(${x}px, ${y}px)` }} onPointerDown=${(event) => press(event, at)} onClick=${(event) => click(event, at)} onDblClick=${() => go(`photo/${row.id}`)}
    onContextMenu=${(event) => event.pointerType === "touch" && event.preventDefault()}>
    ${row.w ? html`<img ref=${image} src=${`./thumb/${row.id}.jpg`} alt="" width=${side} height=${side} decoding="async" fetchpriority="low" draggable=${false} />` : html`<span class="none">no picture</span>`}
    <${Sign} row=${row} />
    <p class="name" dir="auto">${row.name}</p>
    <p class="why">${why && (why[0] === row.verdict || !row.human?.verdict) ? why[2] : row.human?.verdict ? `${row.human.verdict === "keep" ? "kept" : "rejected"} by hand` : fault ? fault[1] : row.w ? `${row.w} × ${row.h}` : ""}</p>
  </div>`;
}

function Selected({ rows, clear }) {
  if (told.readOnly) return null;
  return html`<div class="actions" role="toolbar" aria-label="Selected photos"><b>${count(rows.length, "photo")}</b>
    <button class="keep" onClick=${() => {
      setVerdict(rows, "keep");
    }}>✓ Keep <${Key}>A<//></button>
    <button class="reject" onClick=${() => {
      setVerdict(rows, "reject");
    }}>✕ Reject <${Key}>R<//></button>
    <button onClick=${() => {
      setVerdict(rows, null);
    }}>As judged <${Key}>U<//></button>
    ${rows.length === 1 && html`<button onClick=${() => go(`photo/${rows[0].id}`)}>Open <${Key}>⏎<//></button>`}
    ${rows.length > 1 && told.views.includes("words") && html`<button onClick=${() => go("words/selected")}>Change words</button>`}
    <button class="quiet" aria-label="Select none" onClick=${clear}>✕</button></div>`;
}

// The limits of the check behind a reason: what another would keep, before it is kept.
function Limits({ reason, close }) {
  const [values, set] = useState({}),
    [asked, setAsked] = useState({});
  useEffect(() => {
    const timer = setTimeout(() => setAsked(values), 120);
    return () => clearTimeout(timer);
  }, [values]);
  const { answer: now, error } = useAnswer(() => ask("limits/look", { reason, values: asked }), JSON.stringify(asked));
  const last = useRef();
  if (now) last.current = now;
  const answer = last.current,
    isChanged = Object.keys(values).length > 0;
  const save = async () => {
    try {
      await ask("limits/save", { check: answer.limits[0].key.split(".")[1], values });
      notice("The limits are kept in project.yaml; the next run chooses by them.");
      await poll();
      close();
    } catch (fault) {
      notice(fault.message, true);
    }
  };
  return html`<${Dialog} title="Limits" close=${close}>
    ${
      error
        ? html`<p class="bad">${error}</p>`
        : !answer
          ? html`<${Busy} />`
          : !answer.limits.length
            ? html`<p class="soft">This reason has no limit that could be another.</p>`
            : html`
    ${answer.limits.map((limit) => {
      const value = values[limit.key] ?? limit.value;
      return html`<label class="limit" key=${limit.key}>
      <span><b>${limit.key.split(".").slice(2).join(".").replaceAll("_", " ")}</b><output>${figure(value)}</output></span>
      <input type="range" min=${limit.least} max=${limit.most} step=${limit.step} value=${value} aria-label=${limit.key} onInput=${(event) => set({ ...values, [limit.key]: Number(event.target.value) })} />
      <small>${limit.help}</small></label>`;
    })}
    <p class="outcome" role="status">${!isChanged ? "Drag a limit to see what it would change." : answer.more || answer.fewer ? html`<b>${number(answer.more)}</b> more kept, <b>${number(answer.fewer)}</b> more rejected` : "No photo would be judged otherwise."}</p>
    ${isChanged && answer.shown.length > 0 && html`<div class="strip">${answer.shown.map((id) => html`<img key=${id} src=${`./thumb/${id}.jpg`} alt=${state.rows.get(id)?.name ?? ""} width="64" height="64" />`)}</div>`}
    <footer><button onClick=${close}>Leave as it is</button><button class="main" disabled=${!isChanged} onClick=${save}>Save</button></footer>`
    }
  <//>`;
}

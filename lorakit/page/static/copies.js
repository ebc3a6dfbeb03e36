// Copies, a group at a time: the kept one left and still, another right; which is better in what; one word settles it.
import { html, useEffect, useMemo, useRef, useState, Empty, Key, Sign, count, figure, number, size } from "./ui.js";
import { decide, go, notice, state, told, useStore } from "./store.js";
import { useKeys } from "./keys.js";
import { Stage, WHOLE, laidOut, useZoom } from "./stage.js";
import { useSize } from "./ui.js";

const LIKE = {
  duplicate: "the same file",
  near_duplicate: "nearly the same picture",
  mirrored: "mirrored or turned",
  burst: "the same moment",
};
const FACTS = [
  // name, value, as it is said, whether more is better
  ["Pixels", (row) => row.w * row.h, (row) => `${row.w} × ${row.h}`, true],
  ["Sharpness", (row) => row.sharp, (row) => figure(row.sharp, 2), true],
  ["JPEG quality", (row) => row.jpeg, (row) => row.jpeg, true],
  ["File", (row) => row.bytes, (row) => size(row.bytes), null],
  ["Text", (row) => row.text ?? "", (row) => row.text ?? "none", null],
];

let all = true;
const root = (row) => {
  const seen = new Set();
  while (row.of && state.rows.has(row.of) && !seen.has(row.of)) {
    seen.add(row.of);
    row = state.rows.get(row.of);
  }
  return row;
};
const isApart = (one, other) => one.human?.apart?.includes(other.id) || other.human?.apart?.includes(one.id);
const isOpen = ({ kept, copies }) => copies.some((copy) => !copy.human?.verdict && !isApart(copy, kept));

export function groups() {
  const found = new Map();
  for (const id of state.order) {
    const row = state.rows.get(id);
    if (row?.of && state.rows.has(row.of)) {
      const kept = root(row);
      if (!found.has(kept.id)) found.set(kept.id, []);
      found.get(kept.id).push(row);
    }
  }
  return [...found].map(([id, copies]) => ({ id, kept: state.rows.get(id), copies }));
}

export default function Copies({ rest }) {
  useStore();
  const [onlyOpen, setOnlyOpen] = useState(all),
    [, redraw] = useState(0),
    [mode, setMode] = useState("side"),
    [other, setOther] = useState(0),
    [flipped, setFlipped] = useState(false),
    shown = useRef(null);
  all = onlyOpen;
  const every = useMemo(groups, [state.version]);
  // a group that has just been settled stays where it is until one goes on
  const list = every.filter((group) => !onlyOpen || isOpen(group) || group.id === rest[0] || group.id === shown.current);
  let at = Math.max(
    0,
    list.findIndex((group) => group.id === (rest[0] ?? shown.current)),
  );
  const group = list[at];
  shown.current = group?.id ?? null;
  const [zoom, setZoom] = useZoom(group?.id);
  useEffect(() => setOther(0), [group?.id]);
  useEffect(() => {
    const up = (event) => event.key === " " && setFlipped(false);
    addEventListener("keyup", up);
    return () => removeEventListener("keyup", up);
  }, []);
  const members = group ? [group.kept, ...group.copies] : [],
    copy = group?.copies[Math.min(other, group.copies.length - 1)];
  const to = (by) => {
    const next = list[at + by];
    if (next) {
      shown.current = next.id;
      go(`copies/${next.id}`);
    } else notice(by > 0 ? "This is the last group." : "This is the first group.");
  };
  const settle = (changes) => {
    if (told.readOnly) return;
    decide(changes);
    const next = list.slice(at + 1).find(isOpen) ?? list.slice(0, at).find(isOpen);
    if (next) {
      shown.current = next.id;
      go(`copies/${next.id}`);
    }
  };
  const accept = (one = group) => [
    ...one.copies.filter((copy) => !copy.human?.verdict && !isApart(copy, one.kept)).map((copy) => [copy, "verdict", "reject"]),
  ];
  const keep = (n) => {
    const chosen = members[n];
    if (!chosen) return;
    if (n === 0)
      settle([
        ...group.copies.map((copy) => [copy, "verdict", "reject"]),
        ...(chosen.human?.verdict === "reject" ? [[chosen, "verdict", null]] : []),
      ]);
    else settle(members.map((row) => [row, "verdict", row === chosen ? "keep" : "reject"]));
  };
  const both = () =>
    settle([
      [copy, "apart", [...new Set([...(copy.human?.apart ?? []), group.kept.id])].sort()],
      [group.kept, "apart", [...new Set([...(group.kept.human?.apart ?? []), copy.id])].sort()],
    ]);
  const neither = () => settle(members.map((row) => [row, "verdict", "reject"]));
  const acceptAll = () => {
    const open = list.filter(isOpen),
      n = decide(open.flatMap(accept));
    notice(`${count(open.length, "group")} accepted: ${count(n, "copy", "copies")} rejected. Ctrl+Z takes it back.`);
  };
  const actions = {
    left: () => to(-1),
    right: () => to(1),
    up: () => setOther(Math.max(0, other - 1)),
    down: () => setOther(Math.min(group.copies.length - 1, other + 1)),
    open: () => settle(accept()),
    both,
    neither,
    flip: () => setFlipped(true),
    back: () => (zoom.z > 1 ? setZoom(WHOLE) : go("photos")),
    zoom: () => setZoom(zoom.z > 1 ? WHOLE : { z: 4, x: 0.5, y: 0.5 }),
  };
  for (let n = 1; n <= 9; n++) actions[`key ${n}`] = () => keep(n - 1);
  useKeys(group ? actions : { back: () => go("photos") });
  if (!group)
    return html`<main>${
      every.length
        ? html`<${Empty} title="All copies are settled"><p>${count(every.length, "group")} in all.</p><button onClick=${() => setOnlyOpen(false)}>Show them</button><//>`
        : html`<${Empty} title="No copies"><p>No photo of this project looks like another one.</p><a class="button" href="#/photos">All photos</a><//>`
    }</main>`;
  const facts = FACTS.filter(([, value]) => new Set([group.kept, copy].map(value)).size > 1);
  return html`<main class="copiesview"><h1 class="hidden">Copies</h1>
    <div class="toolbar"><div class="row"><button class="quiet" aria-label="Group before" disabled=${at === 0} onClick=${() => to(-1)}>‹</button><b>Group ${number(at + 1)} of ${number(list.length)}</b><button class="quiet" aria-label="Next group" disabled=${at + 1 >= list.length} onClick=${() => to(1)}>›</button></div>
      <div class="segments" role="group" aria-label="How they are compared">${[
        ["side", "Side by side"],
        ["slider", "Slider"],
        ["difference", "Difference"],
      ].map(
        ([name, said]) => html`<button key=${name} aria-pressed=${mode === name} onClick=${() => setMode(name)}>${said}</button>`,
      )}</div>
      <label class="check"><input type="checkbox" checked=${onlyOpen} onChange=${(event) => {
        shown.current = null;
        setOnlyOpen(event.target.checked);
      }} /> Only open ones</label>
      ${!told.readOnly && html`<button class="push" onClick=${acceptAll} disabled=${!list.some(isOpen)}><span>Accept all<span class="wide-only"> shown</span></span> <span class="soft">${number(list.filter(isOpen).length)}</span></button>`}</div>
    <div class=${`compare ${mode}`}>
      ${
        mode === "side"
          ? html`
        <figure><${Stage} row=${group.kept} zoom=${zoom} setZoom=${setZoom} label=${`Kept: ${group.kept.name}`} /><${Caption} n="1" row=${group.kept} kept facts=${facts} against=${copy} /></figure>
        <figure><${Stage} row=${flipped ? group.kept : copy} zoom=${zoom} setZoom=${setZoom} label=${`Copy: ${copy.name}`} /><${Caption} n=${members.indexOf(copy) + 1} row=${copy} like=${LIKE[copy.like] ?? copy.like} facts=${facts} against=${group.kept} /></figure>`
          : html`<figure class="both"><${Over} kept=${group.kept} copy=${copy} mode=${mode} /><div class="captions"><${Caption} n="1" row=${group.kept} kept facts=${facts} against=${copy} /><${Caption} n=${members.indexOf(copy) + 1} row=${copy} like=${LIKE[copy.like] ?? copy.like} facts=${facts} against=${group.kept} /></div></figure>`
      }
    </div>
    ${group.copies.length > 1 && html`<div class="filmstrip" role="group" aria-label="This group">${members.map((row, n) => html`<button key=${row.id} aria-pressed=${row === copy} disabled=${n === 0} aria-label=${`${n + 1}: ${row.name}`} onClick=${() => setOther(n - 1)}><img src=${`./thumb/${row.id}.jpg`} alt="" width="64" height="64" /><span>${n + 1}</span></button>`)}</div>`}
    ${
      !told.readOnly &&
      html`<div class="settle" role="toolbar" aria-label="This group">
      <button class="main" onClick=${() => settle(accept())}>Accept <${Key}>⏎<//></button>
      <button onClick=${() => keep(members.indexOf(copy))}>Keep the other <${Key}>${members.indexOf(copy) + 1}<//></button>
      <button onClick=${both} title="They are no copies of each other">Both <${Key}>B<//></button><button class="reject" onClick=${neither}>Neither <${Key}>X<//></button>
      <span class="hint soft small">hold <${Key}>Space<//> to flip</span></div>`
    }
  </main>`;
}

function Caption({ n, row, kept, like, facts, against }) {
  return html`<figcaption><p><${Key}>${n}<//> <b><bdi>${row.name}</bdi></b> <${Sign} row=${row} /> <span class="soft">${kept ? "kept" : like}</span></p>
    <dl>${facts.map(([name, value, said, more]) => {
      const better = more && (value(row) ?? -1) > (value(against) ?? -1);
      return html`<div key=${name} class=${better ? "better" : ""}><dt>${name}</dt><dd dir="auto">${said(row)}${better ? html`<span class="hidden">, better</span>` : ""}</dd></div>`;
    })}</dl></figcaption>`;
}

// Both photos in one place: under a slider, or their difference.
function Over({ kept, copy, mode }) {
  const ref = useRef(),
    [width, height] = useSize(ref),
    [part, setPart] = useState(50);
  const at = laidOut(kept, width, height, WHOLE),
    style = { width: `${at.w}px`, height: `${at.h}px`, transform: `translate(${at.left}px, ${at.top}px)` };
  return html`<div class="stage" ref=${ref}><img src=${`./view/${kept.id}.jpg`} alt=${`Kept: ${kept.name}`} style=${style} />
    <img src=${`./view/${copy.id}.jpg`} alt=${`Copy: ${copy.name}`} class=${mode} style=${{ ...style, ...(mode === "slider" ? { clipPath: `inset(0 0 0 ${part}%)` } : { filter: "none" }) }} />
    ${
      mode === "slider" &&
      html`<div class="knife" style=${{ left: `${at.left + (at.w * part) / 100}px`, top: `${at.top}px`, height: `${at.h}px` }}></div>
    <input class="slide" type="range" min="0" max="100" value=${part} aria-label="How much of the kept one is shown" style=${{ left: `${at.left}px`, width: `${at.w}px`, top: `${at.top}px`, height: `${at.h}px` }} onInput=${(event) => setPart(event.target.value)} />`
    }</div>`;
}

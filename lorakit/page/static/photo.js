// One photo: looked at, judged, its text written.
import { html, useEffect, useRef, useState, Key, Sign, count, figure, size, useAnswer } from "./ui.js";
import { ask, commit, go, notice, setVerdict, state, told, useStore } from "./store.js";
import { useKeys } from "./keys.js";
import { shownRows, wanted } from "./grid.js";
import { Stage, WHOLE, fullSize, useZoom } from "./stage.js";
import { Crop } from "./crop.js";
import { TextField } from "./text.js";

let order = []; // as the grid had it when the first photo was opened: judging does not take the next one away

export default function Photo({ rest }) {
  useStore();
  const id = rest[0],
    row = state.rows.get(id),
    view = useRef(),
    field = useRef();
  useEffect(() => {
    order = shownRows().rows.map((one) => one.id);
    if (!order.includes(id)) order = [...state.order];
    return () => {
      order = [];
    };
  }, []);
  const [zoom, setZoom] = useZoom(id),
    [cropping, setCropping] = useState(false);
  const { answer: detail } = useAnswer(
    () => (row ? ask(`photo/${id}`) : Promise.resolve(null)),
    `${id} ${row?.human ? JSON.stringify(row.human.crop) : ""}`,
  );
  const at = order.indexOf(id),
    next = at + 1 < order.length ? order[at + 1] : null,
    before = at > 0 ? order[at - 1] : null;
  useEffect(() => {
    for (const other of [next, before]) if (other) new Image().src = `./view/${other}.jpg`;
    wanted.current = id;
    return () => commit(id);
  }, [id, next]);
  const leave = (to) => {
    commit(id);
    if (to) go(`photo/${to}`);
    else notice(at + 1 >= order.length ? "This is the last one." : "This is the first one.");
  };
  const judge = (verdict) => {
    setVerdict([row], verdict);
    if (next) leave(next);
  };
  const toFault = (way) => {
    for (let other = at + way; other >= 0 && other < order.length; other += way) {
      const one = state.rows.get(order[other]);
      if (one?.why || one?.faults) return leave(one.id);
    }
    notice("No further photo has something to look at.");
  };
  const back = () => {
    commit(id);
    go("photos");
  };
  useKeys({
    left: () => leave(before),
    right: () => leave(next),
    back: () => {
      if (document.activeElement?.closest?.("textarea")) document.activeElement.blur();
      else if (zoom.z > 1) setZoom(WHOLE);
      else back();
    },
    keep: () => judge("keep"),
    reject: () => judge("reject"),
    judged: () => judge(null),
    fault: () => toFault(1),
    faultBefore: () => toFault(-1),
    text: () => {
      field.current?.focus();
    },
    saveNext: () => leave(next),
    crop: () => row?.w && setCropping(!cropping),
    copies: () => toCopies(row),
    zoom: () => setZoom(zoom.z > 1 ? WHOLE : fullSize(row, view.current.querySelector(".stage"))),
    first: () => leave(order[0]),
    last: () => leave(order[order.length - 1]),
  });
  if (!row)
    return html`<main><div class="empty"><h2>This photo is no longer in the project</h2><a class="button" href="#/photos">All photos</a></div></main>`;
  const canCrop = row.w && detail?.crop && !told.readOnly;
  return html`<main class="photoview" ref=${view}>
    <div class="look">
      ${
        cropping && detail?.crop
          ? html`<${Crop} key=${id} row=${row} facts=${detail.crop} close=${() => setCropping(false)} />`
          : html`<${Stage} row=${row} zoom=${zoom} setZoom=${setZoom} swipe=${(way) => leave(way > 0 ? next : before)} label=${`Photo ${row.name}`} />`
      }
      ${
        !cropping &&
        html`<div class="over left"><button class="round" onClick=${back} aria-label="Back to all photos" title="Back (Esc)">✕</button></div>
      <div class="over right"><span class="pill">${at >= 0 ? `${at + 1} of ${order.length}` : ""}</span></div>
      <button class="round before" disabled=${!before} onClick=${() => leave(before)} aria-label="Photo before" title="Before (←)">‹</button>
      <button class="round after" disabled=${!next} onClick=${() => leave(next)} aria-label="Next photo" title="Next (→)">›</button>`
      }
    </div>
    <aside class="panel" aria-label="About this photo">
      <header><h1><bdi>${row.name}</bdi></h1><${Sign} row=${row} /></header>
      ${
        told.readOnly
          ? ""
          : html`<div class="verdicts" role="group" aria-label="Verdict">
        <button class="keep" aria-pressed=${row.human?.verdict === "keep"} onClick=${() => judge("keep")}>✓ Keep <${Key}>A<//></button>
        <button class="reject" aria-pressed=${row.human?.verdict === "reject"} onClick=${() => judge("reject")}>✕ Reject <${Key}>R<//></button>
        <button aria-pressed=${!row.human?.verdict} onClick=${() => judge(null)} title="As the checks judge it">Judged <${Key}>U<//></button></div>`
      }
      <${Reasons} row=${row} />
      <${TextField} key=${id} row=${row} field=${field} />
      <div class="row">
        ${canCrop && html`<button aria-pressed=${cropping} onClick=${() => setCropping(!cropping)}>Crop <${Key}>C<//></button>`}
        ${groupOf(row) && told.views.includes("copies") && html`<button onClick=${() => toCopies(row)}>Copies <${Key}>D<//></button>`}
        ${row.w > 0 && html`<button onClick=${() => setZoom(zoom.z > 1 ? WHOLE : fullSize(row, view.current.querySelector(".stage")))}>${zoom.z > 1 ? "Whole" : "100 %"} <${Key}>Z<//></button>`}
      </div>
      <${Facts} row=${row} detail=${detail} />
    </aside>
  </main>`;
}

export const groupOf = (row) =>
  row.of && state.rows.has(row.of) ? row.of : [...state.rows.values()].some((other) => other.of === row.id) ? row.id : null;
function toCopies(row) {
  const of = row && groupOf(row);
  if (of) go(`copies/${of}`);
  else notice("This photo has no copies.");
}

function Reasons({ row }) {
  const why = row.why ?? [],
    failed = Object.entries(row.failed ?? {});
  if (!why.length && !failed.length)
    return html`<p class="soft calm">No check has anything against it${row.chosen ? "; it is chosen" : ""}.</p>`;
  return html`<ul class="reasons">${why.map(([verdict, reason, words]) => html`<li key=${reason} class=${verdict}><i aria-hidden="true"></i><span>${words}${reason === "near_duplicate" || row.like === reason ? html` of <a href=${`#/photo/${row.of}`}><bdi>${state.rows.get(row.of)?.name}</bdi></a>` : ""}</span></li>`)}
    ${failed.map(([stage, words]) => html`<li key=${stage} class="reject"><i aria-hidden="true"></i><span>${stage} failed: <bdi>${words}</bdi></span></li>`)}</ul>`;
}

function Facts({ row, detail }) {
  const loss = state.visits[row.id],
    crop = row.human?.crop ?? row.crop;
  const lines = [
    ["Size", row.w ? `${row.w} × ${row.h}, ${size(row.bytes)}` : size(row.bytes ?? 0)],
    ["Sharpness", row.sharp != null && figure(row.sharp, 2)],
    ["JPEG quality", row.jpeg],
    [
      "Crop",
      crop &&
        `${crop.box[2] - crop.box[0]} × ${crop.box[3] - crop.box[1]} for ${crop.bucket.join(" × ")}${row.human?.crop ? ", by hand" : ""}`,
    ],
    [
      "Fits its text",
      row.fits != null && html`${figure(row.fits, 2)}${row.edited ? html` <span class="soft">(of the former text)</span>` : ""}`,
    ],
    ["Mean loss", loss && `${figure(loss[0])} in ${count(loss[1], "visit")}`],
    ["Taken", detail?.taken?.replace("T", " ")],
    ["Read as", detail?.caption && html`<span dir="auto">${detail.caption}</span> <span class="soft">by ${detail.captionBy}</span>`],
    ["Seen", detail?.facets?.length > 0 && detail.facets.join(", ")],
    ["File", detail?.path && html`<bdi>${detail.path}</bdi>`],
  ].filter(([, value]) => value);
  return html`<dl class="facts">${lines.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
}

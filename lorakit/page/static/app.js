// The frame around the views: what the project is called, where one is, what is at work, what was said.
import { render } from "preact";
import { html, useEffect, useState, Busy, Dialog, Empty, Key, count } from "./ui.js";
import { ask, begin, dismiss, notice, poll, redo, state, told, undo, unsaved, usePlace, useStore } from "./store.js";
import { keyTable, letters, switchLetters, useKeys } from "./keys.js";
import { History } from "./history.js";

const VIEWS = {
  photos: ["Photos", () => import("./grid.js")],
  copies: ["Copies", () => import("./copies.js")],
  words: ["Words", () => import("./words.js")],
  training: ["Training", () => import("./training.js")],
  results: ["Results", () => import("./results.js")],
};
const SUBVIEWS = { photo: ["photos", () => import("./photo.js")] };
const there = Object.keys(VIEWS).filter((name) => told.views.includes(name));
const loaded = {};

function App() {
  const { facts, loading, unknown } = useStore(),
    { view, rest } = usePlace();
  const [help, showHelp] = useState(false),
    [history, showHistory] = useState(false);
  useKeys({ undo, redo, help: () => showHelp(true) });
  useEffect(() => {
    begin();
  }, []);
  const known = there.includes(view) || view in SUBVIEWS ? view : "photos";
  const name = facts.project?.name;
  return html`
    <header class="bar">
      <a class="name" href="#/photos" title=${name}><span class="mark" aria-hidden="true"></span><bdi>${name ?? "lorakit"}</bdi></a>
      <nav aria-label="Views">${there.map((one) => {
        const active = one === known || SUBVIEWS[known]?.[0] === one;
        return html`<a key=${one} href=${`#/${one}`} class=${`to-${one}`} aria-current=${active ? "page" : undefined}>${VIEWS[one][0]}</a>`;
      })}</nav>
      <div class="tools">
        <${Work} />
        ${
          told.readOnly
            ? html`<span class="pill">to look at only</span>`
            : html`
        <button class="quiet" onClick=${undo} disabled=${!facts.undo} aria-label="Undo" title=${facts.undo ? `Undo ${facts.undo.words} (Ctrl Z)` : "Nothing to undo"}><${Icon} name="undo" /></button>
        <button class="quiet" onClick=${redo} disabled=${!facts.redo} aria-label="Redo" title=${facts.redo ? `Redo ${facts.redo.words} (Ctrl ⇧ Z)` : "Nothing to redo"}><${Icon} name="redo" /></button>`
        }
        <button class="quiet wide-only" onClick=${() => showHistory(true)} aria-label="History" title="All decisions"><${Icon} name="history" /></button>
        <button class="quiet wide-only" onClick=${() => showHelp(true)} aria-label="Keys" title="Keys (?)"><${Icon} name="keys" /></button>
      </div>
    </header>
    <${Connection} />
    ${
      unknown
        ? html`<main><${Empty} title="This tab is not let in any more"><p>Run <code>lorakit open</code> again and open the address that it prints. What you decided here is kept in this tab until then.</p></></main>`
        : loading
          ? html`<main><${Busy} label="Opening the project" /></main>`
          : facts.fault && !state.order.length
            ? html`<main><${Empty} title="The project cannot be read"><p>${facts.fault}</p></></main>`
            : html`<${Lazy} key=${known} name=${known} rest=${rest} />`
    }
    <div class="notices" role="status" aria-live="polite">${state.notices.map(
      (one) => html`
      <button key=${one.n} class=${one.bad ? "bad" : ""} onClick=${() => dismiss(one)}>${one.words}</button>`,
    )}</div>
    ${help && html`<${Help} close=${() => showHelp(false)} />`}
    ${history && html`<${History} close=${() => showHistory(false)} />`}`;
}

function Lazy({ name, rest }) {
  const [View, set] = useState(() => loaded[name]);
  useEffect(() => {
    if (!View)
      (VIEWS[name] ?? SUBVIEWS[name])[1]().then((found) => {
        loaded[name] = found.default;
        set(() => found.default);
      });
  }, [name]);
  return View ? html`<${View} rest=${rest} />` : html`<main><${Busy} /></main>`;
}

function Connection() {
  const { online, facts } = useStore();
  if (!online)
    return html`<p class="banner" role="alert">No connection to lorakit. ${unsaved() ? `${count(unsaved(), "decision")} kept in this tab, and sent as soon as it is back.` : "It is tried again."}</p>`;
  if (facts.fault) return html`<p class="banner" role="alert">${facts.fault}</p>`;
  return null;
}

function Work() {
  const { facts } = useStore(),
    work = facts.work;
  const waiting = facts.project?.waiting ?? 0;
  const apply = () =>
    ask("apply", {}).then(
      () => {
        notice("Photos are chosen, cropped and worded anew by what you decided.");
        poll();
      },
      (error) => notice(error.message, true),
    );
  if (!work && state.child?.running) return html`<span class="pill live"><i></i>${state.child.words[0]}</span>`;
  if (!work)
    return waiting && !told.readOnly
      ? html`<button class="small apply" onClick=${apply} title="Choose, crop and word the photos anew by what was decided of them"><span>Apply<span class="wide-only"> to the set</span></span> <b>${waiting}</b></button>`
      : null;
  const words = work.stage ?? work.verb;
  return html`<a class="pill live" href=${told.views.includes("training") ? "#/training" : "#/photos"} title=${`lorakit ${work.verb}, process ${work.pid} on ${work.host}`}><i></i>${words}</a>`;
}

function Help({ close }) {
  const [on, set] = useState(letters.on);
  return html`<${Dialog} title="Keys" close=${close} wide>
    <div class="keytable">${keyTable().map(
      ([group, lines]) => html`<section key=${group}><h3>${group}</h3>
      <dl>${lines.map(([shown, words]) => html`<div key=${words}><dt><${Key}>${shown}<//></dt><dd>${words}</dd></div>`)}</dl></section>`,
    )}</div>
    <label class="check"><input type="checkbox" checked=${on} onChange=${(event) => {
      switchLetters(event.target.checked);
      set(event.target.checked);
    }} /> Single letters are keys</label>
  <//>`;
}

const PATHS = {
  undo: "M8 5 4 9l4 4M4 9h9a4 4 0 0 1 0 8h-3",
  redo: "m12 5 4 4-4 4M16 9H7a4 4 0 0 0 0 8h3",
  history: "M10 5v5l3 2M10 3a7 7 0 1 1-6.4 4.2M3 3v4h4",
  keys: "M3 6h14v8H3zM6 9h.01M10 9h.01M14 9h.01M7 11.6h6",
};
const Icon = ({ name }) => html`<svg viewBox="0 0 20 20" width="20" height="20" aria-hidden="true"><path d=${PATHS[name]} /></svg>`;

const root = document.getElementById("app");
root.textContent = "";
render(html`<${App} />`, root);

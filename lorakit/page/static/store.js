// What the page knows, and what it has decided and not yet been told that it is written: nothing of that is lost with the connection.
import { useEffect, useState } from "preact/hooks";

export const told = JSON.parse(document.getElementById("facts").textContent);
const PLACE = location.pathname;
const EVERY = 2000,
  AGAIN = 1500,
  PATIENCE = 800;

export const state = {
  rows: new Map(),
  order: [],
  facts: {},
  loading: true,
  online: true,
  unknown: null,
  visits: {},
  child: {},
  notices: [],
  version: 0,
};
const raw = new Map();
let epoch = "",
  revision = 0;

// Who draws is told once a frame

const listeners = new Set();
let waiting = false;
export function changed() {
  if (waiting) return;
  waiting = true;
  queueMicrotask(() => {
    waiting = false;
    state.version++;
    listeners.forEach((tell) => tell(state.version));
  });
}
export function useStore() {
  const [, set] = useState(0);
  useEffect(() => {
    listeners.add(set);
    return () => listeners.delete(set);
  }, []);
  return state;
}

// Asking

export class Refused extends Error {
  constructor(status, answer) {
    super(answer.error ?? `the server says ${status}`);
    this.status = status;
    this.answer = answer;
  }
}

export async function ask(path, body) {
  const sent = body === undefined ? undefined : JSON.stringify(body);
  const options =
    sent === undefined
      ? {}
      : {
          method: "POST",
          body: sent,
          headers: { "content-type": "application/json", "x-lorakit": "1" },
          keepalive: sent.length < 60000,
          priority: "high",
        };
  const answer = await fetch("./" + path, { credentials: "same-origin", ...options });
  const found = await answer.json().catch(() => ({}));
  if (answer.status === 401) state.unknown = found.error;
  if (!answer.ok) throw new Refused(answer.status, found);
  state.unknown = null;
  return found;
}

// Rows

function take(facts) {
  for (const key of ["undo", "redo", "project", "work", "fault", "child", "opening"]) if (key in facts) state.facts[key] = facts[key];
  if (!facts.child) return;
  const { running, exit, words, said = "" } = facts.child;
  if (state.child.running && running === false && exit) {
    const last = said.trim().split("\n").pop();
    notice(exit === 130 ? last : `lorakit ${words[0]}: ${last}`, exit !== 130 && exit !== 3);
  }
  state.child = facts.child;
}

function lay(rows) {
  for (const row of rows) {
    raw.set(row.id, row);
    merge(row.id);
  }
}

const asJudged = (row) => (row.judged === "keep" && row.faults ? "warn" : row.judged);

// What the server says of a photo, with what has been decided here and is not written yet.
function merge(id) {
  const row = raw.get(id);
  if (!row) return;
  let found = row;
  for (const item of outbox) for (const change of item.changes ?? []) if (change.id === id) found = patched(found, change);
  state.rows.set(id, found);
}

function patched(row, { what, now }) {
  const human = { ...row.human };
  if (now == null) delete human[what];
  else human[what] = now;
  const found = { ...row, human, pending: true };
  if (what === "verdict") found.verdict = now ?? asJudged(row);
  if (what === "text") {
    found.text = now ?? raw.get(row.id).text;
    found.edited = now != null;
  }
  if (what === "crop" && now) found.crop = now;
  return found;
}

export async function load() {
  try {
    const found = await ask("index");
    raw.clear();
    state.rows.clear();
    epoch = found.epoch;
    revision = found.revision;
    state.order = found.rows.map((row) => row.id);
    lay(found.rows);
    take(found);
    state.loading = false;
    state.online = true;
    document.title = found.project?.name ?? "lorakit";
  } catch (error) {
    failed(error);
    setTimeout(load, AGAIN);
  }
  changed();
}

function failed(error) {
  if (!(error instanceof Refused)) state.online = false;
}

let polling = false;
export async function poll() {
  if (polling || state.loading || document.hidden) return;
  polling = true;
  try {
    const found = await ask(`changes?epoch=${epoch}&since=${revision}`);
    const back = !state.online;
    state.online = true;
    if (found.again) {
      await load();
    } else {
      epoch = found.epoch;
      revision = found.revision;
      const before = JSON.stringify(state.facts);
      take(found);
      lay(found.rows);
      if (found.order) {
        state.order = found.order;
        const there = new Set(found.order);
        for (const id of raw.keys())
          if (!there.has(id)) {
            raw.delete(id);
            state.rows.delete(id);
          }
      }
      if (found.rows.length || found.order || back || before !== JSON.stringify(state.facts)) changed();
    }
  } catch (error) {
    if (state.online || state.unknown) {
      failed(error);
      changed();
    }
  }
  polling = false;
}
setInterval(poll, EVERY);

export async function loadVisits() {
  try {
    state.visits = (await ask("visits")).visits;
    changed();
  } catch {
    /* asked for again with the view */
  }
}

// What is decided: in order, kept in this tab until the server has it

const stored = (key, none) => {
  try {
    return JSON.parse(sessionStorage.getItem(`lorakit ${PLACE} ${key}`)) ?? none;
  } catch {
    return none;
  }
};
const store = (key, value) => {
  try {
    sessionStorage.setItem(`lorakit ${PLACE} ${key}`, JSON.stringify(value));
  } catch {
    /* full: kept in memory */
  }
};

const outbox = stored("outbox", []);
export const drafts = new Map(stored("drafts", [])); // id -> {text, was}: being written
export const conflicts = new Map(); // id -> {mine, theirs}
let sending = null;

export const unsaved = () => outbox.length + drafts.size;

function put(item) {
  if (told.readOnly) {
    notice("This page is open to look at only.", true);
    return;
  }
  outbox.push(item);
  store("outbox", outbox);
  for (const change of item.changes ?? []) merge(change.id);
  changed();
  sending ??= send().finally(() => {
    sending = null;
  });
}

async function send() {
  while (outbox.length) {
    const item = outbox[0];
    let answer;
    try {
      if (item.kind === "undo" && item.n == null) {
        item.n = state.facts[item.which]?.n;
        item.words = state.facts[item.which]?.words;
        store("outbox", outbox);
      }
      if (item.kind === "undo" && item.n == null) {
        notice(item.which === "undo" ? "There is nothing to take back." : "There is nothing to bring back.");
        answer = { rows: [] };
      } else answer = item.kind === "undo" ? await ask("undo", { n: item.n }) : await ask("decide", { changes: together(item.changes) });
      state.online = true;
    } catch (error) {
      if (!(error instanceof Refused) || error.status >= 500 || error.status === 401 || error.status === 423) {
        failed(error);
        changed();
        await new Promise((done) => setTimeout(done, AGAIN));
        continue;
      }
      answer = error.answer;
      if (error.answer.conflict)
        for (const change of item.changes ?? []) if (change.what === "text") conflicts.set(change.id, { mine: change.now });
      notice(error.message, true);
    }
    if (item.kind === "undo" && item.words && answer.rows && !answer.conflict)
      notice(`${item.which === "undo" ? "Taken back" : "Brought back"}: ${item.words}`);
    outbox.shift();
    store("outbox", outbox);
    take(answer);
    for (const change of item.changes ?? []) merge(change.id);
    lay(answer.rows ?? []);
    for (const row of answer.rows ?? []) if (conflicts.has(row.id)) conflicts.get(row.id).theirs = row.text ?? "";
    changed();
  }
}

// Alike changes of many photos in few bytes.
function together(changes) {
  const alike = new Map();
  for (const { id, ...change } of changes) {
    const key = JSON.stringify(change);
    if (!alike.has(key)) alike.set(key, { ids: [], ...change });
    alike.get(key).ids.push(id);
  }
  return [...alike.values()];
}

// Changes of photos as one decision: [[row, what, now], ...]
export function decide(wanted) {
  const changes = wanted
    .map(([row, what, now]) => ({ id: row.id, what, was: row.human?.[what] ?? null, now: now ?? null }))
    .filter((change) => JSON.stringify(change.was) !== JSON.stringify(change.now));
  if (changes.length) put({ kind: "decide", changes });
  return changes.length;
}

export function setVerdict(rows, verdict) {
  const done = decide(rows.map((row) => [row, "verdict", verdict]));
  if (done > 1) notice(`${done} photos: ${verdict ?? "as judged"}. Ctrl+Z takes it back.`);
}
export const undo = () => put({ kind: "undo", which: "undo", n: null });
export const redo = () => put({ kind: "undo", which: "redo", n: null });

// Texts: saved a moment after the last letter, on leaving, and when the tab is hidden; each under its own photo

const timers = new Map();
export function write(row, text) {
  drafts.set(row.id, { text, was: drafts.get(row.id)?.was ?? row.text ?? "" });
  store("drafts", [...drafts]);
  clearTimeout(timers.get(row.id));
  timers.set(
    row.id,
    setTimeout(() => commit(row.id), PATIENCE),
  );
  changed();
}
export function commit(id) {
  const draft = drafts.get(id),
    row = state.rows.get(id);
  clearTimeout(timers.get(id));
  timers.delete(id);
  if (!draft || !row) return;
  const text = draft.text.split(/\s+/).filter(Boolean).join(" ");
  drafts.delete(id);
  if (text !== (row.text ?? "") || (!text && row.human?.text != null)) decide([[row, "text", text || null]]);
  store("drafts", [...drafts]);
  changed();
}
const commitAll = () => {
  for (const id of [...drafts.keys()]) commit(id);
};
document.addEventListener("visibilitychange", () => (document.hidden ? commitAll() : poll()));
addEventListener("pagehide", commitAll);
addEventListener("beforeunload", (event) => {
  commitAll();
  if (outbox.length && !state.online) event.preventDefault();
});

// Words that come and go

let numbered = 0;
export function notice(words, bad = false) {
  const one = { n: ++numbered, words, bad };
  state.notices = [...state.notices.slice(-2), one];
  setTimeout(
    () => {
      state.notices = state.notices.filter((other) => other !== one);
      changed();
    },
    bad ? 9000 : 4000,
  );
  changed();
}
export function dismiss(one) {
  state.notices = state.notices.filter((other) => other !== one);
  changed();
}

export async function begin() {
  await load();
  commitAll();
  if (outbox.length)
    sending ??= send().finally(() => {
      sending = null;
    });
}

// Where one is: after the #, so that Back works and nothing is loaded

export const place = () => {
  const [view = "", ...rest] = decodeURI(location.hash.slice(1)).replace(/^\//, "").split("/");
  return { view: view || "photos", rest };
};
export function go(path) {
  if (location.hash !== "#/" + path) location.hash = "#/" + path;
}
export function usePlace() {
  const [found, set] = useState(place());
  useEffect(() => {
    const moved = () => set(place());
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  return found;
}

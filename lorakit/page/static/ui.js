// What all views draw with: html templates, the signs of verdicts, empty states, figures in words.
import { h } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import htm from "htm";

export const html = htm.bind(h);
export { useEffect, useLayoutEffect, useMemo, useRef, useState, useCallback } from "preact/hooks";

export const SIGNS = { keep: "✓", warn: "!", reject: "✕" };
export const VERDICTS = { keep: "kept", warn: "kept, with a warning", reject: "rejected" };

export const Sign = ({ row }) => html`<span class=${`sign ${row.verdict}${row.human?.verdict ? " hand" : ""}`}
  title=${VERDICTS[row.verdict] + (row.human?.verdict ? ", by hand" : "")} role="img"
  aria-label=${VERDICTS[row.verdict] + (row.human?.verdict ? ", by hand" : "")}>${SIGNS[row.verdict]}</span>`;

export const Empty = ({ title, children }) => html`<div class="empty" role="status"><h2>${title}</h2><div>${children}</div></div>`;

// Shown only when something takes longer than a glance.
export function Busy({ label = "Loading" }) {
  const [shown, show] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => show(true), 300);
    return () => clearTimeout(timer);
  }, []);
  return html`<div class="busy" role="status">${shown ? html`<i class="bar"></i><span>${label} …</span>` : ""}</div>`;
}

export const Key = ({ children }) => html`<kbd aria-hidden="true">${children}</kbd>`;

export const number = (value) => value.toLocaleString("en");
export const count = (n, one, many = one + "s") => `${number(n)} ${n === 1 ? one : many}`;
export const figure = (value, digits = 3) => (value == null ? "–" : Number(value.toPrecision(digits)).toString());
export const size = (bytes) => (bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${Math.max(1, Math.round(bytes / 1e3))} kB`);
export function duration(seconds) {
  if (seconds < 100) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 100 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// The width and height of an element, as they are now.
export function useSize(ref) {
  const [size, set] = useState([0, 0]);
  useLayoutEffect(() => {
    const one = ref.current;
    if (!one) return;
    const measure = () =>
      set((old) => (old[0] === one.clientWidth && old[1] === one.clientHeight ? old : [one.clientWidth, one.clientHeight]));
    measure();
    const watch = new ResizeObserver(measure);
    watch.observe(one);
    return () => watch.disconnect();
  }, [ref.current]);
  return size;
}

// A dialog that takes the keys until it is closed, and gives the focus back.
export function Dialog({ title, close, children, wide }) {
  const ref = useRef();
  useEffect(() => {
    const before = document.activeElement;
    ref.current.showModal();
    return () => before?.focus?.();
  }, []);
  return html`<dialog ref=${ref} class=${wide ? "wide" : ""} aria-label=${title} onClose=${close}
      onClick=${(event) => event.target === ref.current && ref.current.close()}>
    <div class="in"><header><h2>${title}</h2><button class="quiet" aria-label="Close" onClick=${() => ref.current.close()}>✕</button></header>${children}</div></dialog>`;
}

// Asked for once, and again when `key` is another. `answer` is undefined until it is there.
export function useAnswer(ask, key) {
  const [found, set] = useState({});
  useEffect(() => {
    let left = false;
    set((old) => ({ ...old, stale: true }));
    ask().then(
      (answer) => left || set({ answer }),
      (error) => left || set({ error: error.message }),
    );
    return () => {
      left = true;
    };
  }, [key]);
  return found;
}

// A photo that can be zoomed and moved: by wheel, drag, pinch. Its zoom is {z, x, y}: how many times the fitted size, and which point of
// the photo (0 to 1) lies in the middle, so that two photos of different size can be looked at alike.
import { html, useEffect, useLayoutEffect, useRef, useState, useSize } from "./ui.js";

export const WHOLE = { z: 1, x: 0.5, y: 0.5 };
const MOST = 24,
  SWIPE = 60;

export function laidOut(row, width, height, zoom) {
  const fit = row.w && row.h ? Math.min(width / row.w, height / row.h) : 0,
    scale = fit * zoom.z;
  const w = row.w * scale,
    h = row.h * scale;
  const along = (whole, shown, at) => (shown <= whole ? (whole - shown) / 2 : Math.min(0, Math.max(whole - shown, whole / 2 - at * shown)));
  return { fit, scale, w, h, left: along(width, w, zoom.x), top: along(height, h, zoom.y) };
}

export function Stage({ row, zoom, setZoom, swipe, children, label, still, inset = 0 }) {
  const ref = useRef(),
    pointers = useRef(new Map()),
    latest = useRef(),
    begun = useRef();
  const [outerWidth, outerHeight] = useSize(ref),
    [loaded, setLoaded] = useState(null),
    [failed, setFailed] = useState(null);
  const width = Math.max(1, outerWidth - 2 * inset),
    height = Math.max(1, outerHeight - 2 * inset);
  const at = laidOut(row, width, height, zoom);
  latest.current = { at, zoom, width, height };
  const needsAll = at.scale * Math.max(row.w, row.h) * devicePixelRatio > 1750 && Math.max(row.w, row.h) > 1600;
  const kind = needsAll ? "full" : "view",
    shown = loaded?.id === row.id && loaded.kind === "full" ? "full" : kind;

  const toward = (factor, px, py) => {
    const { at, zoom, width, height } = latest.current,
      z = Math.max(1, Math.min(MOST, zoom.z * factor));
    const x = (px - at.left) / at.w,
      y = (py - at.top) / at.h,
      by = z / zoom.z; // the point under the hand stays there
    setZoom(
      z === 1 ? WHOLE : { z, x: (x * at.w * by - (px - width / 2)) / (at.w * by), y: (y * at.h * by - (py - height / 2)) / (at.h * by) },
    );
  };
  useEffect(() => {
    const wheel = (event) => {
      event.preventDefault();
      const box = ref.current.getBoundingClientRect();
      toward(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0016)), event.clientX - box.left - inset, event.clientY - box.top - inset);
    };
    const one = ref.current;
    one.addEventListener("wheel", wheel, { passive: false });
    return () => one.removeEventListener("wheel", wheel);
  }, []);
  const down = (event) => {
    if (still || event.button > 0) return;
    pointers.current.set(event.pointerId, [event.clientX, event.clientY]);
    begun.current = { x: event.clientX, y: event.clientY, one: pointers.current.size === 1 };
    ref.current.setPointerCapture(event.pointerId);
  };
  const move = (event) => {
    const before = pointers.current.get(event.pointerId);
    if (!before) return;
    const now = [event.clientX, event.clientY],
      others = [...pointers.current].filter(([id]) => id !== event.pointerId);
    pointers.current.set(event.pointerId, now);
    if (others.length) {
      begun.current.one = false;
      const [ox, oy] = others[0][1],
        box = ref.current.getBoundingClientRect(),
        far = (a) => Math.hypot(a[0] - ox, a[1] - oy);
      toward(far(now) / Math.max(1, far(before)), (now[0] + ox) / 2 - box.left - inset, (now[1] + oy) / 2 - box.top - inset);
    } else if (latest.current.zoom.z > 1) {
      const { at, zoom, width, height } = latest.current,
        half = [Math.min(0.5, width / 2 / at.w), Math.min(0.5, height / 2 / at.h)];
      const within = (value, edge) => Math.max(edge, Math.min(1 - edge, value));
      setZoom({
        ...zoom,
        x: within(zoom.x - (now[0] - before[0]) / at.w, half[0]),
        y: within(zoom.y - (now[1] - before[1]) / at.h, half[1]),
      });
    }
  };
  const up = (event) => {
    if (!pointers.current.delete(event.pointerId)) return;
    const { x, one } = begun.current,
      dx = event.clientX - x,
      dy = event.clientY - begun.current.y;
    if (
      swipe &&
      one &&
      event.pointerType === "touch" &&
      latest.current.zoom.z === 1 &&
      Math.abs(dx) > SWIPE &&
      Math.abs(dx) > 2 * Math.abs(dy)
    )
      swipe(dx < 0 ? 1 : -1);
  };
  const style = { width: `${at.w}px`, height: `${at.h}px`, transform: `translate(${at.left + inset}px, ${at.top + inset}px)` };
  return html`<div class=${`stage${zoom.z > 1 ? " zoomed" : ""}`} ref=${ref} onPointerDown=${down} onPointerMove=${move} onPointerUp=${up} onPointerCancel=${up}
      onDblClick=${(event) => {
        const box = ref.current.getBoundingClientRect();
        if (zoom.z > 1) setZoom(WHOLE);
        else toward(Math.max(2, 1 / at.fit), event.clientX - box.left, event.clientY - box.top);
      }}>
    ${
      !row.w || failed === row.id
        ? html`<p class="unshown">This file cannot be shown as a picture.</p>`
        : html`
    ${loaded?.id !== row.id && html`<img class="under" src=${`./thumb/${row.id}.jpg`} alt="" style=${style} draggable=${false} />`}
    <img key=${row.id + shown} src=${`./${shown}/${row.id}.jpg`} alt=${label ?? row.name} style=${style} draggable=${false} class=${zoom.z * at.fit >= 2 ? "pixels" : ""}
      onLoad=${() => setLoaded({ id: row.id, kind: shown })} onError=${() => setFailed(row.id)} />
    ${loaded?.id !== row.id && html`<i class="loading" role="status"><span class="hidden">Loading the photo</span></i>`}
    ${children && at.scale > 0 && children({ ...at, left: at.left + inset, top: at.top + inset })}`
    }
  </div>`;
}

// 100 %: a pixel of the photo is one of the screen.
export const fullSize = (row, element) => {
  const fit = Math.min(element.clientWidth / row.w, element.clientHeight / row.h);
  return { z: Math.max(1.01, Math.min(MOST, 1 / fit / devicePixelRatio)), x: 0.5, y: 0.5 };
};

// A zoom that begins anew with another photo.
export function useZoom(key) {
  const [zoom, set] = useState(WHOLE);
  useLayoutEffect(() => set(WHOLE), [key]);
  return [zoom, set];
}

// The box of a photo that is cut out, of its bucket's shape: moved, drawn larger, of another shape, or as it would be without a person.
import { html, useEffect, useRef, useState, Key, figure } from "./ui.js";
import { decide } from "./store.js";
import { useKeys } from "./keys.js";
import { Stage, WHOLE } from "./stage.js";

const SOON = 350; // milliseconds after the last key

// The largest box of a bucket's shape in a photo, as lorakit/photos/buckets.py makes it.
function largest(row, [bw, bh]) {
  const aspect = bw / bh;
  return [Math.max(1, Math.min(row.w, Math.round(row.h * aspect))), Math.max(1, Math.min(row.h, Math.round(row.w / aspect)))];
}
function placed(row, bucket, height, cx, cy) {
  const [mostWidth, mostHeight] = largest(row, bucket),
    aspect = bucket[0] / bucket[1];
  const h = Math.max(Math.min(32, mostHeight), Math.min(mostHeight, Math.round(height))),
    w = h === mostHeight ? mostWidth : Math.max(1, Math.min(mostWidth, Math.round(h * aspect)));
  const left = Math.max(0, Math.min(row.w - w, Math.round(cx - w / 2))),
    top = Math.max(0, Math.min(row.h - h, Math.round(cy - h / 2)));
  return [left, top, left + w, top + h];
}

export function Crop({ row, facts, close }) {
  const [crop, set] = useState(row.human?.crop ?? facts.auto),
    timer = useRef(),
    latest = useRef(crop),
    drag = useRef(null),
    shown = useRef();
  const [box, bucket] = [crop.box, crop.bucket],
    buckets = facts.buckets;
  const to = (box, bucket, soon) => {
    latest.current = { box, bucket };
    set(latest.current);
    clearTimeout(timer.current);
    if (soon) timer.current = setTimeout(keep, SOON);
  };
  const keep = () => {
    clearTimeout(timer.current);
    timer.current = null;
    decide([[row, "crop", latest.current]]);
  };
  useEffect(
    () => () => {
      if (timer.current) keep();
    },
    [],
  );
  const middle = (b) => [(b[0] + b[2]) / 2, (b[1] + b[3]) / 2];
  const shift = (dx, dy, soon = true) => {
    const [l, t, r, b] = latest.current.box,
      x = Math.max(-l, Math.min(row.w - r, dx)),
      y = Math.max(-t, Math.min(row.h - b, dy));
    to([l + x, t + y, r + x, b + y], latest.current.bucket, soon);
  };
  const grow = (factor) => {
    const b = latest.current.box;
    to(placed(row, latest.current.bucket, (b[3] - b[1]) * factor, ...middle(b)), latest.current.bucket, true);
  };
  const choose = (at) => {
    const other = buckets[Math.max(0, Math.min(buckets.length - 1, at))];
    to(placed(row, other, row.h, ...middle(latest.current.box)), [...other], true);
  };
  const number = buckets.findIndex((one) => one[0] === bucket[0] && one[1] === bucket[1]);
  const automatic = () => {
    clearTimeout(timer.current);
    timer.current = null;
    latest.current = facts.auto;
    set(facts.auto);
    decide([[row, "crop", null]]);
  };
  const by = (event) => (event.shiftKey ? 10 : 1);
  useKeys({
    left: (event) => shift(-by(event), 0),
    right: (event) => shift(by(event), 0),
    up: (event) => shift(0, -by(event)),
    down: (event) => shift(0, by(event)),
    bucketBefore: () => choose(number - 1),
    bucketNext: () => choose(number + 1),
    automatic,
    smaller: () => grow(0.96),
    larger: () => grow(1 / 0.96),
    "key =": () => grow(1 / 0.96),
    back: () => {
      if (timer.current) keep();
      close();
    },
    crop: () => {
      if (timer.current) keep();
      close();
    },
    open: () => {
      if (timer.current) keep();
      close();
    },
    keep: () => {},
    reject: () => {},
    judged: () => {},
    zoom: () => {},
    text: () => {},
    fault: () => {},
    faultBefore: () => {},
  });
  const down = (event, corner) => {
    event.stopPropagation();
    event.currentTarget.setPointerCapture(event.pointerId);
    drag.current ??= { pointers: new Map(), corner, box: latest.current.box, x: event.clientX, y: event.clientY };
    drag.current.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (drag.current.pointers.size === 2) Object.assign(drag.current, { box: latest.current.box, far: far(drag.current.pointers) });
  };
  const far = (pointers) => {
    const [one, other] = [...pointers.values()];
    return Math.max(1, Math.hypot(one[0] - other[0], one[1] - other[1]));
  };
  const move = (event) => {
    const held = drag.current;
    if (!held?.pointers.has(event.pointerId)) return;
    held.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    const [l, t, r, b] = held.box,
      scale = shown.current.scale,
      dx = (event.clientX - held.x) / scale,
      dy = (event.clientY - held.y) / scale,
      bucket = latest.current.bucket;
    if (held.pointers.size === 2) to(placed(row, bucket, ((b - t) * far(held.pointers)) / held.far, ...middle(held.box)), bucket);
    else if (!held.corner) {
      const x = Math.round(Math.max(-l, Math.min(row.w - r, dx))),
        y = Math.round(Math.max(-t, Math.min(row.h - b, dy)));
      to([l + x, t + y, r + x, b + y], bucket);
    } else {
      const [sx, sy] = held.corner,
        aspect = bucket[0] / bucket[1],
        fixed = [sx > 0 ? l : r, sy > 0 ? t : b]; // the corner across stays
      const room = Math.min(sy > 0 ? row.h - t : b, (sx > 0 ? row.w - l : r) / aspect);
      let h = Math.max(24, Math.min(room, Math.max(b - t + sy * dy, (r - l + sx * dx) / aspect)));
      h = Math.floor(h);
      let w = Math.max(1, Math.min(Math.round(h * aspect), sx > 0 ? row.w - l : r));
      const left = sx > 0 ? fixed[0] : fixed[0] - w,
        top = sy > 0 ? fixed[1] : fixed[1] - h;
      to([left, top, left + w, top + h], bucket);
    }
  };
  const up = (event) => {
    if (!drag.current?.pointers.delete(event.pointerId)) return;
    if (!drag.current.pointers.size) {
      drag.current = null;
      keep();
    }
  };
  const width = box[2] - box[0],
    height = box[3] - box[1],
    enlarged = bucket[0] / width,
    left = 1 - (width * height) / (row.w * row.h);
  const cut = facts.faces.filter((face) => inside(face, box) < 1 && inside(face, box) > 0).length,
    out = facts.faces.filter((face) => inside(face, box) === 0).length;
  return html`<${Stage} row=${row} zoom=${WHOLE} setZoom=${() => {}} still inset=${28} label=${`Photo ${row.name}`}>${(at) => {
    shown.current = at;
    return html`
      <div class="shades" style=${{ left: `${at.left}px`, top: `${at.top}px`, width: `${at.w}px`, height: `${at.h}px` }}>
        ${facts.faces.map((face, n) => html`<i class="face" key=${n} style=${{ left: `${face[0] * at.scale}px`, top: `${face[1] * at.scale}px`, width: `${(face[2] - face[0]) * at.scale}px`, height: `${(face[3] - face[1]) * at.scale}px` }}></i>`)}
        <div class="cropbox" role="group" aria-label=${`Crop ${box.join(", ")} for ${bucket.join(" × ")}`} style=${{ left: `${box[0] * at.scale}px`, top: `${box[1] * at.scale}px`, width: `${width * at.scale}px`, height: `${height * at.scale}px` }}
          onPointerDown=${(event) => down(event, null)} onPointerMove=${move} onPointerUp=${up} onPointerCancel=${up}>
          ${[
            [-1, -1],
            [1, -1],
            [-1, 1],
            [1, 1],
          ].map(
            (corner) =>
              html`<i key=${corner.join()} class=${`corner ${corner[1] < 0 ? "n" : "s"}${corner[0] < 0 ? "w" : "e"}`} onPointerDown=${(event) => down(event, corner)} onPointerMove=${move} onPointerUp=${up} onPointerCancel=${up}></i>`,
          )}
        </div></div>`;
  }}<//>
    <div class="cropbar" role="toolbar" aria-label="Crop">
      <label>Bucket <${Key}>[<//><${Key}>]<//> <select aria-label="Bucket" value=${String(number)} onChange=${(event) => choose(Number(event.target.value))}>${number < 0 && html`<option value="-1">${bucket.join(" × ")}</option>`}${buckets.map((one, n) => html`<option key=${n} value=${String(n)}>${one.join(" × ")}</option>`)}</select></label>
      <p class="small" role="status"><output>${width} × ${height}</output>${enlarged > 1.005 ? html`, <span class=${enlarged > facts.most ? "bad" : ""}>enlarged ${figure(enlarged, 2)} times</span>` : ""}, ${Math.round(100 * left)} % left out${cut || out ? html`, <span class="warned">${cut ? `${cut} face${cut > 1 ? "s" : ""} cut` : ""}${cut && out ? ", " : ""}${out ? `${out} outside` : ""}</span>` : ""}</p>
      <span class="row"><button onClick=${automatic} disabled=${!row.human?.crop}>Automatic <${Key}>0<//></button><button class="main" onClick=${() => {
        if (timer.current) keep();
        close();
      }}>Done <${Key}>Esc<//></button></span>
    </div>`;
}

function inside([l, t, r, b], [left, top, right, bottom]) {
  const w = Math.max(0, Math.min(r, right) - Math.max(l, left)),
    h = Math.max(0, Math.min(b, bottom) - Math.max(t, top));
  return (w * h) / Math.max(1, (r - l) * (b - t));
}

// A training as it goes: its curves, how far it is, what it will take; started and stopped from here.
import { html, useEffect, useMemo, useRef, useState, useSize, Busy, Empty, count, duration, figure, number } from "./ui.js";
import { ask, go, notice, state, told, useStore } from "./store.js";
import { useKeys } from "./keys.js";
import { wanted } from "./grid.js";

const EVERY = 2000;
const SAID = {
  training: "Training",
  stopping: "Stopping after this step",
  starting: "Starting",
  stopped: "Stopped; it can go on",
  done: "Done",
  none: "Nothing has been trained yet",
};

// All lines of a run, read on from where the last answer ended.
function useMetrics(n) {
  const [shown, set] = useState(null);
  useEffect(() => {
    let left = false,
      timer,
      of = "",
      from = 0,
      lines = null;
    const read = async () => {
      try {
        const found = await ask(`runs/${n}/metrics?from=${from}&of=${of}`);
        if (left) return;
        const isNew = found.from === 0 || !lines;
        if (isNew) lines = found.columns;
        else if (found.next > found.from) for (const name of Object.keys(lines)) lines[name] = lines[name].concat(found.columns[name]);
        if (isNew || found.next > found.from || found.standing !== shownStanding) {
          set({ lines, run: found.run, standing: found.standing });
          shownStanding = found.standing;
        }
        from = found.next;
        of = found.of;
      } catch {
        /* the connection is spoken of elsewhere */
      }
      timer = setTimeout(read, document.hidden ? 4 * EVERY : EVERY);
    };
    let shownStanding = null;
    set(null);
    read();
    return () => {
      left = true;
      clearTimeout(timer);
    };
  }, [n]);
  return shown;
}

export function smoothed(values, keep) {
  let sum = 0,
    weight = 0;
  return values.map((value) => {
    if (value != null) {
      sum = keep * sum + (1 - keep) * value;
      weight = keep * weight + 1 - keep;
    }
    return weight ? sum / weight : null;
  });
}
const median = (values) => {
  const sorted = values.filter((value) => value != null).sort((one, other) => one - other);
  return sorted.length ? sorted[sorted.length >> 1] : null;
};

export function useRuns() {
  const [found, set] = useState(null),
    { facts } = useStore(),
    key = `${facts.work?.stage} ${facts.work?.pid} ${state.child?.running} ${state.child?.words}`;
  const load = () => ask("runs").then(set, () => set((old) => old ?? { runs: [], standing: "none", child: {} }));
  useEffect(() => {
    load();
    const timer = setInterval(load, 3 * EVERY);
    return () => clearInterval(timer);
  }, [key]);
  return [found, load];
}

export default function Training() {
  useStore();
  const [found, load] = useRuns(),
    [chosen, choose] = useState(null);
  useKeys({ back: () => go("photos") });
  if (!found) return html`<main><${Busy} /></main>`;
  const { runs, standing } = found,
    n = chosen ?? runs.length - 1,
    isNewest = n === runs.length - 1;
  return html`<main class="page training">
    <header class="row between"><div><h1>${isNewest ? SAID[standing] : "A former training"}</h1></div>
      ${runs.length > 1 && html`<label><span class="hidden">Which training</span><select value=${String(n)} onChange=${(event) => choose(Number(event.target.value))}>${runs.map((run) => html`<option key=${run.n} value=${String(run.n)}>${run.name.replace("_", " ")}</option>`).reverse()}</select></label>`}</header>
    ${!runs.length ? html`<${None} standing=${standing} load=${load} />` : html`<${Run} key=${runs[n]?.name} n=${n} isNewest=${isNewest} load=${load} child=${found.child} />`}
  </main>`;
}

function None({ standing, load }) {
  const chosen = state.order.filter((id) => state.rows.get(id)?.chosen).length;
  return html`<div class="card"><p>${standing === "starting" ? "The base is being loaded; the first step follows." : chosen ? `${count(chosen, "photo")} are chosen.` : "No photos are chosen yet: a training chooses them first."}</p>
    ${!told.readOnly && standing === "none" && html`<div class="row"><${Start} load=${load} label="Start the training" main /></div>`}<${Child} /></div>`;
}

async function command(path, body, words, load) {
  try {
    await ask(path, body);
    notice(words);
  } catch (error) {
    notice(error.message, true);
  }
  setTimeout(load, 400);
}
const Start = ({ load, label, main, fresh }) =>
  html`<button class=${main ? "main" : ""} onClick=${() => command("train", { new: !!fresh }, "The training is started; it goes on when this page is closed.", load)}>${label}</button>`;

function Run({ n, isNewest, load, child }) {
  const data = useMetrics(n),
    [log, setLog] = useState(false),
    [cut, setCut] = useState(true),
    [advice, setAdvice] = useState(null);
  const lines = data?.lines,
    steps = lines?.step ?? [],
    last = steps[steps.length - 1] ?? 0,
    planned = data?.run.planned.steps ?? data?.run.settings["train.steps"] ?? 0;
  const round = Math.floor(steps.length / 50);
  useEffect(() => {
    let left = false;
    if (steps.length)
      ask(`runs/${n}/judgement`).then(
        (found) => left || setAdvice(found),
        () => {},
      );
    return () => {
      left = true;
    };
  }, [n, round, data?.standing]);
  const loss = useMemo(
    () => lines && [lines.step, lines.loss, smoothed(lines.loss, Math.min(0.98, 1 - 4 / Math.max(8, lines.loss.length))), lines.validation],
    [data],
  );
  const marks = data ? [...data.run.sampled.map((step) => [step, "sample"]), ...data.run.saved.map((step) => [step, "checkpoint"])] : [];
  if (!data) return html`<${Busy} label="Reading the curve" />`;
  const standing = isNewest ? data.standing : data.run.done.includes("train") ? "done" : "stopped",
    running = ["training", "stopping"].includes(standing);
  const pace = median(lines.seconds.slice(-60)),
    remaining = Math.max(0, planned - last),
    every = data.run.planned.sample_every;
  const left = pace && remaining ? remaining * pace + (every ? Math.floor(remaining / every) * data.run.sampleSeconds : 0) : 0;
  const busy = !!state.facts.work;
  return html`
    <div class="card standing">
      <div class="meter big" role="progressbar" aria-label="Steps" aria-valuemin="0" aria-valuemax=${planned} aria-valuenow=${last}><i style=${{ width: `${planned ? Math.min(100, (100 * last) / planned) : 0}%` }}></i></div>
      <dl class="numbers">
        <div><dt>step</dt><dd>${number(last)}${planned ? html`<small> of ${number(planned)}</small>` : ""}</dd></div>
        <div><dt>loss, smoothed</dt><dd>${figure(loss[2][loss[2].length - 1], 3)}</dd></div>
        ${lines.validation.some((value) => value != null) && html`<div><dt>validation</dt><dd>${figure(lines.validation.filter((value) => value != null).at(-1), 3)}</dd></div>`}
        <div><dt>pace</dt><dd>${pace ? (pace > 1 ? `${figure(pace, 2)}` : figure(1 / pace, 2)) : "–"}<small> ${pace > 1 ? "s a step" : "steps a second"}</small></dd></div>
        ${running && left > 0 && html`<div><dt>left</dt><dd>${duration(left)}</dd></div>`}
        <div><dt>checkpoints</dt><dd>${data.run.saved.length}</dd></div>
      </dl>
      ${
        !told.readOnly &&
        isNewest &&
        html`<div class="row">
        ${
          standing === "training"
            ? html`<button class="reject" onClick=${() => command("stop", {}, "It finishes this step, writes a checkpoint, and stops.", load)}>Stop</button>`
            : standing === "stopping"
              ? html`<button disabled>Stopping …</button>`
              : standing === "starting"
                ? html`<span class="soft">The photos are looked at and the base is loaded; this may take a minute.</span>`
                : html`${standing === "stopped" ? html`<${Start} load=${load} label="Go on" main />` : ""}${!busy && html`<${Start} load=${load} label="Again with these settings" fresh />`}`
        }
        <button onClick=${() => {
          wanted.sort = "loss";
          wanted.verdict = "";
          wanted.chips = ["chosen"];
          wanted.query = "";
          go("photos");
        }}>Photos by loss</button>
        ${told.views.includes("results") && html`<a class="button" href="#/results">Its pictures</a>`}</div>`
      }
      ${advice?.advice && html`<p class="soft"><b>${advice.verdict.replaceAll("_", " ")}</b>: ${advice.advice}</p>`}
      ${isNewest && html`<${Child} />`}
    </div>
    ${
      steps.length < 2
        ? html`<${Empty} title="The first steps are being made"><p>The curve begins with the second.</p><//>`
        : html`
    <figure class="card chart"><header><h2>Loss</h2><div class="row"><label class="check"><input type="checkbox" checked=${cut} onChange=${(event) => setCut(event.target.checked)} /> cut outliers</label><label class="check"><input type="checkbox" checked=${log} onChange=${(event) => setLog(event.target.checked)} /> logarithmic</label></div></header>
      <${Plot} data=${loss} log=${log} cut=${cut} marks=${marks} height=${300} series=${[
        ["each step", "raw"],
        ["smoothed", "course"],
        ["validation", "held"],
      ]} />
      <p class="small soft legend"><span class="raw">each step</span><span class="course">smoothed</span>${lines.validation.some((value) => value != null) && html`<span class="held">validation</span>`}<span class="mark-sample">pictures</span><span class="mark-checkpoint">checkpoint</span></p></figure>
    <div class="two"><figure class="card chart"><header><h2>Rate</h2></header><${Plot} data=${[lines.step, lines.rate]} height=${140} series=${[["rate", "course"]]} /></figure>
      <figure class="card chart"><header><h2>Gradient norm</h2></header><${Plot} data=${[lines.step, lines.grad_norm]} cut height=${140} series=${[["norm", "course"]]} /></figure></div>
    <div class="card"><h2>Settings</h2><dl class="facts">${Object.entries(data.run.settings).map(([name, value]) => html`<div key=${name}><dt>${name.replace("train.", "")}</dt><dd>${String(value)}</dd></div>`)}</dl></div>`
    }`;
}

export function Child() {
  const child = state.child;
  if (!child?.words) return null;
  const failed = !child.running && child.exit !== 0 && child.exit !== 130;
  return html`<details class="said" open=${failed}><summary>${child.running ? "What it says" : failed ? html`<span class="warned">lorakit ${child.words.join(" ")} ended with ${child.exit}</span>` : `lorakit ${child.words.join(" ")} has ended`}</summary><pre tabindex="0">${child.said}</pre></details>`;
}

function Plot({ data, series, marks = [], height, log, cut }) {
  const ref = useRef(),
    plot = useRef(),
    latest = useRef({}),
    [width] = useSize(ref),
    [made, setMade] = useState(0);
  latest.current = { marks, cut, data };
  useEffect(() => {
    let gone = false;
    if (width < 50) return;
    import("uplot").then(({ default: UPlot }) => {
      if (gone) return;
      const style = getComputedStyle(document.documentElement),
        colour = (name) => style.getPropertyValue(name).trim();
      const strokes = { raw: [colour("--edge") + "70", 1], course: [colour("--accent"), 2], held: [colour("--warn"), 2] };
      const range = (plot, low, high) => {
        const { cut, data } = latest.current;
        if (!cut || !data) return log ? [low, high] : [Math.min(0, low), high * 1.04 || 1];
        const values = data
            .slice(1)
            .flat()
            .filter((value) => value != null && (!log || value > 0))
            .sort((one, other) => one - other),
          top = values[Math.min(values.length - 1, Math.floor(values.length * 0.985))] ?? 1;
        return log ? [values[Math.floor(values.length * 0.005)] ?? low, top * 1.1] : [0, top * 1.1 || 1];
      };
      const axis = {
        stroke: colour("--soft"),
        font: "12px system-ui",
        ticks: { show: false },
        grid: { stroke: colour("--line"), width: 1 },
      };
      const mark = (plot) => {
        const { ctx, bbox } = plot;
        ctx.save();
        for (const [step, kind] of latest.current.marks) {
          const x = Math.round(plot.valToPos(step, "x", true)) + 0.5;
          if (x < bbox.left || x > bbox.left + bbox.width) continue;
          ctx.strokeStyle = colour(kind === "sample" ? "--warn" : "--soft");
          ctx.lineWidth = devicePixelRatio;
          ctx.beginPath();
          const from = bbox.top + bbox.height,
            length = (kind === "sample" ? 12 : 7) * devicePixelRatio;
          ctx.moveTo(x, from);
          ctx.lineTo(x, from - length);
          ctx.stroke();
        }
        ctx.restore();
      };
      plot.current = new UPlot(
        {
          width,
          height,
          legend: { show: false },
          cursor: { points: { size: 7 }, drag: { x: true, y: false } },
          padding: [8, 18, 0, 0],
          scales: { x: { time: false }, y: { distr: log ? 3 : 1, range } },
          axes: [
            { ...axis, grid: { show: false }, size: 32 },
            { ...axis, size: 62, values: (_, ticks) => ticks.map((tick) => (tick == null ? "" : figure(tick, 2))) },
          ],
          series: [
            { label: "step" },
            ...series.map(([label, kind]) => ({
              label,
              stroke: strokes[kind][0],
              width: strokes[kind][1],
              points: { show: kind === "held" ? undefined : false },
              spanGaps: kind === "held",
            })),
          ],
          hooks: { draw: [mark] },
        },
        latest.current.data,
        ref.current,
      );
      setMade((n) => n + 1);
    });
    return () => {
      gone = true;
      plot.current?.destroy();
      plot.current = null;
    };
  }, [width, log, cut, height, matchMedia("(prefers-color-scheme: dark)").matches]);
  useEffect(() => {
    plot.current?.setData(data);
  }, [data, made]);
  return html`<div class="plot" ref=${ref} role="img" aria-label=${`Curve of ${series.map(([label]) => label).join(", ")}`} style=${{ height: `${height}px` }}></div>`;
}

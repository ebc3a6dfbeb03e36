// What a training draws: by step, by strength, large and beside each other; one is picked, and becomes the file.
import { html, useEffect, useRef, useState, Busy, Empty, Key, figure, size, useAnswer } from "./ui.js";
import { ask, go, notice, poll, state, told, useStore } from "./store.js";
import { useKeys } from "./keys.js";
import { Child, useRuns } from "./training.js";

const STRENGTHS = [0, 0.4, 0.7, 1];

export default function Results() {
  useStore();
  const [found] = useRuns(),
    [chosen, choose] = useState(null),
    [round, again] = useState(0);
  const n = chosen ?? (found ? found.runs.length - 1 : -1),
    saved = found?.runs[n] ? JSON.stringify([found.runs[n].sampled, found.runs[n].done, found.runs[n].saved]) : "";
  const key = `${n} ${round} ${saved} ${state.facts.work?.stage} ${state.child?.running}`;
  const { answer, error } = useAnswer(() => (n < 0 ? Promise.resolve(null) : ask(`runs/${n}/results`)), key),
    last = useRef(null);
  if (answer) last.current = answer;
  const shown = last.current?.run.n === n ? last.current : null,
    [open, setOpen] = useState(null),
    [pinned, pin] = useState(null);
  useKeys({ back: () => go("photos") });
  if (!found || (n >= 0 && !shown && !error)) return html`<main><${Busy} /></main>`;
  if (n < 0)
    return html`<main><${Empty} title="No pictures yet"><p>They are drawn while a training goes on, and at its end.</p>${told.views.includes("training") && html`<a class="button" href="#/training">Training</a>`}<//></main>`;
  if (error) return html`<main><${Empty} title="The pictures cannot be listed"><p>${error}</p><//></main>`;
  const rows = stepRows(shown),
    sheets = shown.grids.filter((grid) => grid.cells.length);
  const show = (sheet, row, column) => setOpen({ sheet, row, column });
  return html`<main class="page results">
    <header class="row between"><h1>Results</h1>${
      found.runs.length > 1 &&
      html`<label><span class="hidden">Which training</span><select value=${String(n)} onChange=${(event) => {
        choose(Number(event.target.value));
        setOpen(null);
      }}>${found.runs.map((run) => html`<option key=${run.n} value=${String(run.n)}>${run.name.replace("_", " ")}</option>`).reverse()}</select></label>`
    }</header>
    <${Pick} key=${`${n} ${JSON.stringify(shown.picked)}`} shown=${shown} again=${() => again(round + 1)} />
    ${
      rows.length
        ? html`<section aria-labelledby="by-step"><h2 id="by-step">By step</h2><p class="lead">The same seeds as the training went on. Prompts without the trigger show what leaks.</p>
      <${Sheet} label="Pictures by step" heads=${shown.prompts} rows=${rows} picked=${shown.picked?.step} show=${(row, column) => show(rows, row, column)} across /></section>`
        : html`<${Empty} title="No samples yet"><p>The first are drawn at step ${shown.run.planned.sample_every || "…"}.</p><//>`
    }
    ${sheets.map((grid, at) => {
      const turned = gridRows(shown, grid, shown.grids.indexOf(grid));
      return html`<section key=${at}><h2>By strength${grid.step ? `, step ${grid.step}` : ""}${grid.of ? `, ${grid.of}` : ""}</h2><p class="lead">Take the lowest strength at which the subject is itself.</p>
      <${Sheet} label=${`Pictures by strength, sheet ${at + 1}`} heads=${grid.columns.map((words, n) => ({ text: grid.strengths[n] === 0 ? words : `strength ${words}`, note: scored(grid.scores, n) }))} rows=${turned} show=${(row, column) => show(turned, row, column)} /></section>`;
    })}
    ${!told.readOnly && shown.present && shown.run.saved.length > 0 && html`<${Draw} shown=${shown} again=${() => again(round + 1)} />`}
    ${shown.files.length > 0 && html`<section><h2>Files</h2><ul class="files">${shown.files.map((file, at) => html`<li key=${file.name}><a href=${`./runs/${n}/file/${at}`} download=${file.name}><bdi>${file.name}</bdi></a><span class="soft small">${size(file.bytes)}</span></li>`)}</ul></section>`}
    ${
      open &&
      html`<${Viewer} ...${open} pinned=${pinned} pin=${pin} close=${() => {
        setOpen(null);
        pin(null);
      }} />`
    }
  </main>`;
}

// What open_clip has seen in a column of a sheet: the subject, what the class word alone brings of it, and what is burnt out.
function scored(scores, n) {
  const share = (name) => (scores[name]?.[n] != null ? `${Math.round(100 * scores[name][n])} %` : null);
  const parts = [
    share("subject") && `subject ${share("subject")}`,
    share("leak") && `leak ${share("leak")}`,
    scores.burnt?.[n] > 0 && `burnt ${share("burnt")}`,
  ];
  return parts.filter(Boolean).join(", ");
}

// Rows of cells {src, said}: the base, every step, the final file; columns are prompts.
function stepRows({ run, prompts, steps, final }) {
  const at = (cells) =>
    cells.map(({ src, when }, column) => (when ? { src: `./runs/${run.n}/${src}?v=${when}`, prompt: prompts[column]?.text } : null));
  const rows = [];
  if (final.some((one) => one.base))
    rows.push({ name: "base", cells: at(final.map((one) => ({ src: `final/${one.cell}/base.jpg`, when: one.base }))) });
  for (const { step, cells } of steps)
    rows.push({ name: `step ${step}`, step, cells: at(cells.map((when, cell) => ({ src: `step/${step}/${cell}.jpg`, when }))) });
  if (final.some((one) => one.lora))
    rows.push({ name: "the file", cells: at(final.map((one) => ({ src: `final/${one.cell}/lora.jpg`, when: one.lora }))) });
  return rows;
}
const gridRows = ({ run }, grid, n) =>
  grid.prompts.map((prompt, row) => ({
    name: prompt.text,
    leak: prompt.leak,
    cells: grid.cells[row].map((when, column) =>
      when
        ? {
            src: `./runs/${run.n}/grid/${n}/${row}/${column}.jpg?v=${when}`,
            prompt: prompt.text,
            said: grid.strengths[column] === 0 ? "base" : `strength ${grid.columns[column]}`,
          }
        : null,
    ),
  }));

function Sheet({ label, heads, rows, show, picked, across }) {
  return html`<div class="sheet" style=${{ "--cell": `${Math.max(120, Math.min(190, Math.floor(960 / heads.length)))}px` }} tabindex="0" role="region" aria-label=${label}><table><thead><tr><td></td>${heads.map((head, n) => html`<th scope="col" key=${n} class=${head.leak ? "leak" : ""}><span dir="auto">${head.text}</span>${head.note && html`<small>${head.note}</small>`}${head.leak && html`<i>no trigger</i>`}</th>`)}</tr></thead>
    <tbody>${rows.map(
      (
        row,
        y,
      ) => html`<tr key=${y} class=${row.step != null && row.step === picked ? "picked" : ""}><th scope="row" class=${row.leak ? "leak" : ""}><span dir="auto">${row.name}</span>${row.leak && html`<i>no trigger</i>`}${row.step != null && row.step === picked && html`<i class="is-picked">picked</i>`}</th>
      ${row.cells.map((cell, x) => html`<td key=${x}>${cell ? html`<button onClick=${() => show(y, x)} aria-label=${`${row.name}: ${cell.said ?? cell.prompt}`}><img src=${cell.src} alt="" loading="lazy" width="160" height="160" /></button>` : html`<span class="none">–</span>`}</td>`)}</tr>`,
    )}</tbody></table></div>`;
}

function Viewer({ sheet, row: firstRow, column: firstColumn, pinned, pin, close }) {
  const [row, setRow] = useState(firstRow),
    [column, setColumn] = useState(firstColumn),
    [zoom, setZoom] = useState(1),
    ref = useRef();
  const cell = sheet[row]?.cells[column],
    within = (value, most) => Math.max(0, Math.min(most - 1, value));
  useEffect(() => {
    const before = document.activeElement;
    ref.current.focus();
    return () => before?.focus?.();
  }, []);
  useKeys({
    left: () => setColumn(within(column - 1, sheet[row].cells.length)),
    right: () => setColumn(within(column + 1, sheet[row].cells.length)),
    up: () => setRow(within(row - 1, sheet.length)),
    down: () => setRow(within(row + 1, sheet.length)),
    back: close,
    open: close,
    select: () => pin(pinned ? null : { cell, name: sheet[row].name }),
    zoom: () => setZoom(zoom === 1 ? 2 : zoom === 2 ? 4 : 1),
    undo: () => {},
    redo: () => {},
    alone: true,
  });
  const Picture = ({ of, name }) =>
    html`<figure><div class="shown"><img class=${`z${zoom}`} src=${of?.src} alt=${`${name}: ${of?.said ?? of?.prompt}`} /></div><figcaption><b dir="auto">${name}</b> <span dir="auto">${of?.said ?? of?.prompt}</span></figcaption></figure>`;
  return html`<div class="viewer" role="dialog" aria-modal="true" aria-label="Picture" tabindex="-1" ref=${ref}>
    <div class="pictures">${pinned && html`<${Picture} of=${pinned.cell} name=${pinned.name} />`}${cell ? html`<${Picture} of=${cell} name=${sheet[row].name} />` : html`<figure><p>not drawn</p></figure>`}</div>
    <div class="row"><button onClick=${() => setColumn(within(column - 1, sheet[row].cells.length))} aria-label="To the left">←</button><button onClick=${() => setColumn(within(column + 1, sheet[row].cells.length))} aria-label="To the right">→</button><button onClick=${() => setRow(within(row - 1, sheet.length))} aria-label="Up">↑</button><button onClick=${() => setRow(within(row + 1, sheet.length))} aria-label="Down">↓</button>
      <button aria-pressed=${!!pinned} onClick=${() => pin(pinned ? null : { cell, name: sheet[row].name })}>${pinned ? "Compare no more" : "Compare with"} <${Key}>S<//></button><button onClick=${() => setZoom(zoom === 1 ? 2 : zoom === 2 ? 4 : 1)}>${zoom} × <${Key}>Z<//></button><button onClick=${close}>Close <${Key}>Esc<//></button></div></div>`;
}

function Pick({ shown, again }) {
  const { run, picked, lora, present } = shown,
    [step, setStep] = useState(picked?.step ?? run.saved.at(-1) ?? 0),
    [strength, setStrength] = useState(picked?.strength ?? 0.8),
    [busy, setBusy] = useState(false);
  const isPicked = picked?.step === step && (picked?.strength ?? null) === strength,
    name = lora?.name ?? "name",
    trigger = state.facts.project?.trigger;
  const act = async (path, body, words) => {
    setBusy(true);
    try {
      await ask(path, body);
      notice(words);
      await poll();
      again();
    } catch (error) {
      notice(error.message, true);
    }
    setBusy(false);
  };
  const prompt = `${shown.prompts.find((one) => !one.leak)?.text ?? trigger ?? "a photo"} <lora:${name}:${figure(strength, 2)}>`;
  const loaded = Object.entries(shown.loaded);
  return html`<div class="card pick"><div class="row between"><h2>${picked ? `Picked: step ${picked.step}${picked.strength != null ? ` at strength ${figure(picked.strength, 2)}` : ""}` : lora ? "The last checkpoint is the file" : "Not exported yet"}</h2>
      ${picked && present && !told.readOnly && html`<button class="small" disabled=${busy} onClick=${() => act("pick", { n: run.n, step: null, strength: null }, "The last checkpoint is taken again.")}>Take the last again</button>`}</div>
    ${
      present &&
      !told.readOnly &&
      run.saved.length > 0 &&
      html`<div class="row pickrow"><label>Step <select aria-label="Step" value=${String(step)} onChange=${(event) => setStep(Number(event.target.value))}>${run.saved.map((one) => html`<option key=${one} value=${String(one)}>${one}</option>`)}</select></label>
      <label class="grow strength">Strength <input type="range" min="0.1" max="1.5" step="0.05" value=${strength} aria-label="Strength" onInput=${(event) => setStrength(Number(event.target.value))} /><output>${figure(strength, 2)}</output></label>
      <button class=${isPicked ? "" : "main"} disabled=${busy || isPicked} onClick=${() => act("pick", { n: run.n, step, strength }, `Step ${step} is picked. Ctrl+Z takes it back.`)}>${isPicked ? "Picked" : "Pick"}</button>
      <button class=${isPicked ? "main" : ""} disabled=${busy || !!state.facts.work} onClick=${() => act("export", {}, "The file is being written and checked.")}>Export</button></div>`
    }
    ${!present && html`<p class="soft">A former training: the present settings or photos are others, so nothing is picked of it.</p>`}
    ${lora && html`<dl class="facts"><div><dt>File</dt><dd><bdi>${lora.name}.safetensors</bdi>, ${size(lora.bytes)}</dd></div>${loaded.length > 0 && html`<div><dt>Loaded by</dt><dd>${loaded.map(([tool, keys]) => `${tool} ${keys} keys`).join(", ")}</dd></div>`}<div><dt>Prompt</dt><dd><code class="copy" tabindex="0">${prompt}</code></dd></div></dl>`}
    <${Child} /></div>`;
}

function Draw({ shown, again }) {
  const [step, setStep] = useState(shown.picked?.step ?? shown.run.saved.at(-1)),
    busy = !!state.facts.work;
  const drawn = shown.grids.some((grid) => !grid.of && grid.cells.length && (grid.step ?? null) === step);
  return html`<section class="card"><h2>Draw strengths</h2><p class="soft">Every prompt, with the trigger and without, at strengths ${STRENGTHS.join(", ")}.</p><div class="row"><label>Of step <select aria-label="Of step" value=${String(step)} onChange=${(event) => setStep(Number(event.target.value))}>${shown.run.saved.map((one) => html`<option key=${one} value=${String(one)}>${one}</option>`)}</select></label>
    <button disabled=${busy} onClick=${async () => {
      try {
        await ask("draw", { step, strengths: STRENGTHS });
        notice("They are being drawn; it goes on when this page is closed.");
        again();
      } catch (error) {
        notice(error.message, true);
      }
    }}>${drawn ? "Draw again" : "Draw"}</button>${busy && html`<span class="soft small">lorakit ${state.facts.work.verb} is at work</span>`}</div></section>`;
}

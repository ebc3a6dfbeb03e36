// The words of the set: counted, and changed at once; every change is shown before it is made.
import { html, useEffect, useRef, useState, Busy, Empty, Key, count, number, useAnswer } from "./ui.js";
import { ask, go, notice, poll, state, told, useStore } from "./store.js";
import { useKeys } from "./keys.js";
import { selection, shownRows, wanted } from "./grid.js";

const SHOWN = 400;

export default function Words({ rest }) {
  useStore();
  const work = state.facts.work?.stage ?? "",
    ended = useRef(work);
  const [round, again] = useState(0);
  useEffect(() => {
    if (ended.current !== work) {
      ended.current = work;
      again(round + 1);
    }
  }, [work]);
  const { answer, error } = useAnswer(() => ask("words"), round),
    last = useRef();
  if (answer) last.current = answer;
  const table = last.current;
  const [query, setQuery] = useState(""),
    [active, setActive] = useState(null),
    [fresh, setFresh] = useState([]),
    [gone, setGone] = useState([]);
  const [scope, setScope] = useState(rest[0] === "selected" && selection.size ? "selected" : "set");
  const search = useRef();
  useKeys({ search: () => search.current?.focus(), back: () => (active != null ? setActive(null) : go("photos")) });
  const put = (rule) => {
    if (rule && !fresh.includes(rule)) setFresh([...fresh, rule]);
  };
  if (error && !table) return html`<main><${Empty} title="The words cannot be counted"><p>${error}</p><//></main>`;
  if (!table) return html`<main><${Busy} label="Counting the words" /></main>`;
  if (!table.texts)
    return html`<main><${Empty} title="No texts yet"><p>They are written once photos are chosen: <code>lorakit caption ${state.facts.project?.name ?? "PROJECT"}</code></p><//></main>`;
  const phrases = table.phrases.filter(([phrase]) => phrase.includes(query.toLowerCase())),
    shown = phrases.slice(0, SHOWN),
    most = table.phrases[0]?.[1] ?? 1;
  const ids =
    scope === "filtered"
      ? shownRows()
          .rows.filter((row) => row.text)
          .map((row) => row.id)
      : scope === "selected"
        ? [...selection].filter((id) => state.rows.get(id)?.text)
        : null;
  const rules = ids ? fresh : [...table.rules.filter((rule) => !gone.includes(rule)), ...fresh],
    isChanged = fresh.length > 0 || (!ids && gone.length > 0);
  const done = () => {
    setFresh([]);
    setGone([]);
    setActive(null);
    again(round + 1);
  };
  return html`<main class="wordsview"><h1 class="hidden">Words</h1>
    <section class="phrases" aria-label="Phrases">
      <label class="search"><span class="hidden">Find a phrase</span><input ref=${search} type="search" placeholder=${`${count(table.phrases.length, "phrase")} in ${count(table.texts, "text")}`} value=${query} onInput=${(event) => setQuery(event.target.value)} /><${Key}>/<//></label>
      ${shown.length ? html`<ul>${shown.map(([phrase, n]) => html`<li key=${phrase}><button aria-pressed=${phrase === active} onClick=${() => setActive(phrase === active ? null : phrase)} style=${{ "--share": `${(100 * n) / most}%` }}><span dir="auto">${phrase}</span><small>${number(n)} <i>${Math.round((100 * n) / table.texts)} %</i></small></button></li>`)}</ul>` : html`<${Empty} title="No phrase is like this" />`}
      ${phrases.length > SHOWN && html`<p class="soft small">${number(phrases.length - SHOWN)} more; search narrows them down.</p>`}
    </section>
    <section class="changes" aria-label="Changes">
      ${active != null && html`<${Phrase} key=${active} phrase=${active} put=${put} />`}
      ${
        told.readOnly
          ? active == null && html`<${Empty} title="Words of the set"><p>Take a phrase on the left to see its photos.</p><//>`
          : html`
      <div class="card"><h2>Change the words</h2>
        <${Add} put=${put} common=${table.common} prune=${() => setFresh([...new Set([...fresh, ...table.common.map(([phrase]) => `remove: ${phrase}`)])])} />
        ${fresh.length > 0 && html`<div class="tags">${fresh.map((rule) => html`<button class="chip on" key=${rule} aria-label=${`Not: ${rule}`} onClick=${() => setFresh(fresh.filter((other) => other !== rule))}><bdi>${rule}</bdi> <span>✕</span></button>`)}</div>`}
        <fieldset class="scope"><legend>In</legend>
          ${[
            ["set", "the whole set", "a rule: later photos follow"],
            ["filtered", `the ${count(shownRows().rows.length, "photo")} filtered`, "by hand, in one decision"],
            ["selected", `the ${count(selection.size, "photo")} selected`, "by hand, in one decision"],
          ].map(
            ([name, said, hint]) => html`
            <label key=${name} class=${scope === name ? "on" : ""}><input type="radio" name="scope" checked=${scope === name} disabled=${name === "selected" && !selection.size} onChange=${() => setScope(name)} /><span>${said}<small>${hint}</small></span></label>`,
          )}</fieldset>
        ${isChanged ? html`<${Preview} rules=${rules} ids=${ids} done=${done} />` : html`<p class="soft">Take a phrase on the left, or add a tag. Every text that would change is shown before anything is.</p>`}
      </div>`
      }
      ${
        table.rules.length > 0 &&
        html`<div class="card"><h2>Rules that hold</h2><ul class="rules">${table.rules.map(
          (rule) =>
            html`<li key=${rule} class=${gone.includes(rule) ? "gone" : ""}><bdi>${rule}</bdi>${
              !told.readOnly &&
              html`<button class="small" onClick=${() => {
                setScope("set");
                setGone(gone.includes(rule) ? gone.filter((other) => other !== rule) : [...gone, rule]);
              }}>${gone.includes(rule) ? "Leave it" : "Take out"}</button>`
            }</li>`,
        )}</ul></div>`
      }
    </section>
  </main>`;
}

function Phrase({ phrase, put }) {
  const [other, setOther] = useState(phrase),
    field = useRef();
  useEffect(() => {
    field.current?.focus();
    field.current?.select();
  }, []);
  const find = () => {
    Object.assign(wanted, { query: `text:"${phrase}"`, verdict: "", chips: [] });
    go("photos");
  };
  return html`<div class="card phrase"><header><h2 dir="auto">${phrase}</h2><button class="small" onClick=${find}>Show its photos</button></header>
    ${
      !told.readOnly &&
      html`<form class="row" onSubmit=${(event) => {
        event.preventDefault();
        if (other.trim() && other.trim() !== phrase) put(`replace: ${phrase} => ${other.trim()}`);
      }}>
      <label class="grow"><span class="hidden">Call it</span><input ref=${field} type="text" value=${other} onInput=${(event) => setOther(event.target.value)} /></label><button type="submit">Rename</button></form>
    <div class="row"><button onClick=${() => put(`remove: ${phrase}`)}>Remove</button><button onClick=${() => put(`drop: ${phrase}`)} title="Take out every tag or phrase that has it in it">Blacklist</button></div>`
    }</div>`;
}

function Add({ put, common, prune }) {
  const [tag, set] = useState("");
  return html`<form class="row" onSubmit=${(event) => {
    event.preventDefault();
    if (tag.trim()) {
      put(`add: ${tag.trim()}`);
      set("");
    }
  }}>
    <label class="grow"><span class="hidden">A tag for every text</span><input type="text" placeholder="A tag for every text" value=${tag} onInput=${(event) => set(event.target.value)} /></label><button type="submit">Add</button>
    ${common.length > 0 && html`<button type="button" onClick=${prune} title=${common.map(([phrase, n]) => `${phrase} (${n})`).join(", ")}>Remove what is in nearly all <span class="soft">${common.length}</span></button>`}</form>`;
}

function Preview({ rules, ids, done }) {
  const key = JSON.stringify([rules, ids]),
    [asked, setAsked] = useState(key),
    [busy, setBusy] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setAsked(key), 150);
    return () => clearTimeout(timer);
  }, [key]);
  const body = () => {
    const [rules, ids] = JSON.parse(asked);
    return ids ? { rules, ids } : { rules };
  };
  const { answer, error, stale } = useAnswer(() => ask("words/look", body()), asked);
  const apply = async () => {
    setBusy(true);
    try {
      const found = await ask("words/save", { ...body(), mark: answer.mark });
      notice(
        {
          "": `${count(found.count, "text")} changed. Ctrl+Z takes it back.`,
          now: `The rule is kept; ${count(found.count, "text")} follow now.`,
          later: `The rule is kept; ${count(found.count, "text")} follow with the work that is going on.`,
        }[found.follows],
      );
      await poll();
      done();
    } catch (fault) {
      notice(fault.message, true);
    }
    setBusy(false);
  };
  if (error) return html`<p class="bad">${error}</p>`;
  if (!answer) return html`<${Busy} label="Looking" />`;
  return html`<div class="preview"><div class="row between"><p role="status">${answer.count ? html`<b>${count(answer.count, "text")}</b> would change` : "No text would change."}</p>
      <button class="main" disabled=${busy || stale || key !== asked} onClick=${apply}>Apply</button></div>
    <ol>${answer.shown.map(([id, name, before, after]) => html`<li key=${id}><a href=${`#/photo/${id}`} aria-label=${`Photo ${name}`}><img src=${`./thumb/${id}.jpg`} alt="" width="56" height="56" loading="lazy" /></a><div><p class="small soft"><bdi>${name}</bdi></p><p dir="auto">${difference(before, after)}</p></div></li>`)}</ol>
    ${answer.count > answer.shown.length && html`<p class="soft small">and ${number(answer.count - answer.shown.length)} more</p>`}</div>`;
}

// What goes and what comes, word by word.
export function difference(before, after) {
  const one = before.split(/(?<=\s)|(?=,)/),
    other = after.split(/(?<=\s)|(?=,)/);
  const table = Array.from({ length: one.length + 1 }, () => new Uint16Array(other.length + 1));
  for (let i = one.length - 1; i >= 0; i--)
    for (let j = other.length - 1; j >= 0; j--)
      table[i][j] = one[i].trim() === other[j].trim() ? table[i + 1][j + 1] + 1 : Math.max(table[i + 1][j], table[i][j + 1]);
  const parts = [],
    add = (kind, text) => {
      const last = parts[parts.length - 1];
      if (last?.kind === kind) last.text += text;
      else parts.push({ kind, text });
    };
  let i = 0,
    j = 0;
  while (i < one.length || j < other.length) {
    if (i < one.length && j < other.length && one[i].trim() === other[j].trim()) {
      add("", other[j]);
      i++;
      j++;
    } else if (j >= other.length || (i < one.length && table[i + 1][j] >= table[i][j + 1])) add("del", one[i++]);
    else add("ins", other[j++]);
  }
  return parts.map(({ kind, text }, n) =>
    kind === "del" ? html`<del key=${n}>${text}</del>` : kind === "ins" ? html`<ins key=${n}>${text}</ins>` : text,
  );
}

// A training text while it is written: saved by itself, looked at by the server, words offered.
import { html, useEffect, useRef, useState, Key } from "./ui.js";
import { ask, changed, commit, conflicts, decide, drafts, state, told, write, useStore } from "./store.js";

const OFFERED = 7;
let phrases = null;
async function loadPhrases() {
  phrases ??= ask("phrases").then(
    (found) => found.phrases,
    () => {
      phrases = null;
      return [];
    },
  );
  return phrases;
}

export function TextField({ row, field }) {
  useStore();
  const draft = drafts.get(row.id),
    text = draft?.text ?? row.text ?? "",
    own = useRef(),
    mirror = useRef();
  const [seen, setSeen] = useState(null),
    [offers, setOffers] = useState(null),
    [active, setActive] = useState(-1);
  const isTags = state.facts.project?.style === "tags",
    conflict = conflicts.get(row.id);
  useEffect(() => {
    let left = false;
    const timer = setTimeout(
      () => {
        ask("text/look", { id: row.id, text }).then(
          (found) => left || setSeen({ ...found, of: text }),
          () => {},
        );
      },
      seen ? 250 : 0,
    );
    return () => {
      left = true;
      clearTimeout(timer);
    };
  }, [text, row.id]);
  useEffect(() => {
    if (field) field.current = own.current;
    const one = own.current;
    one.style.height = "auto";
    one.style.height = `${Math.max(92, one.scrollHeight + 2)}px`;
  }, [text]);
  const type = (value) => {
    write(row, value.replace(/\n/g, " "));
  };
  const part = () => {
    const before = text.slice(0, own.current.selectionStart),
      start = Math.max(before.lastIndexOf(","), isTags ? -1 : before.lastIndexOf(" ")) + 1;
    return [before.slice(start).trimStart(), before.length - before.slice(start).trimStart().length];
  };
  const offer = async () => {
    const [begun] = part(),
      wanted = begun.toLowerCase();
    if (wanted.length < 2) return setOffers(null);
    const found = (await loadPhrases()).filter(([phrase]) => phrase.toLowerCase().includes(wanted) && phrase.toLowerCase() !== wanted);
    found.sort((one, other) => other[0].toLowerCase().startsWith(wanted) - one[0].toLowerCase().startsWith(wanted) || other[1] - one[1]);
    setOffers(found.length ? found.slice(0, OFFERED) : null);
    setActive(-1);
  };
  const accept = (phrase) => {
    const [, start] = part(),
      end = own.current.selectionStart,
      value = text.slice(0, start) + phrase + (isTags && end === text.length ? ", " : "") + text.slice(end);
    type(value);
    setOffers(null);
    requestAnimationFrame(() => {
      own.current.focus();
      const to = start + phrase.length + (isTags && end === text.length ? 2 : 0);
      own.current.setSelectionRange(to, to);
    });
  };
  const key = (event) => {
    if (event.key === "Enter" && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      if (offers && active >= 0) accept(offers[active][0]);
      else commit(row.id);
      return;
    }
    if (!offers) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      setActive(
        (active + (event.key === "ArrowDown" ? 1 : -1) + offers.length + 1) % (offers.length + 1) === offers.length
          ? -1
          : (active + (event.key === "ArrowDown" ? 1 : -1) + offers.length + 1) % (offers.length + 1),
      );
    } else if (event.key === "Tab" && !event.shiftKey) {
      event.preventDefault();
      accept(offers[Math.max(0, active)][0]);
    } else if (event.key === "Escape") {
      event.stopPropagation();
      setOffers(null);
    }
  };
  const fresh = seen && seen.of === text ? seen : null,
    saved = !draft && !row.pending;
  const most = seen ? Math.max(...Object.values(seen.tokens)) : 0,
    share = seen ? most / seen.budget : 0;
  const tags = text
    .split(",")
    .map((tag) => tag.trim())
    .filter(Boolean);
  return html`<section class="text">
    <div class="head"><label for="text">Training text <${Key}>E<//></label><span class=${`saved${saved ? "" : " not"}`} role="status">${told.readOnly ? "" : !state.online && !saved ? "not saved yet: no connection" : !saved ? "saving …" : row.human?.text != null ? "by hand, saved" : ""}</span></div>
    <div class="written"><div class="mirror" dir="auto" ref=${mirror} aria-hidden="true">${marked(text, fresh)}</div>
      <textarea id="text" ref=${own} dir="auto" spellcheck="true" rows="3" value=${text} readOnly=${told.readOnly} aria-describedby="about-text" aria-autocomplete="list" aria-controls=${offers ? "offers" : undefined} aria-activedescendant=${offers && active >= 0 ? `offer${active}` : undefined}
        placeholder=${row.chosen ? "Empty: as captioned" : "Not chosen, so it has no text yet"} onInput=${(event) => {
          type(event.target.value);
          offer();
        }} onKeyDown=${key} onBlur=${() => {
          commit(row.id);
          setTimeout(() => setOffers(null), 150);
        }} />
      ${
        offers &&
        html`<ul class="offers" id="offers" role="listbox" aria-label="Words to put in">${offers.map(
          ([phrase, n], at) =>
            html`<li key=${phrase} id=${`offer${at}`} role="option" aria-selected=${at === active} onPointerDown=${(event) => {
              event.preventDefault();
              accept(phrase);
            }}><span>${phrase}</span><small>${n || ""}</small></li>`,
        )}</ul>`
      }
    </div>
    ${
      isTags &&
      tags.length > 0 &&
      !told.readOnly &&
      html`<div class="tags">${tags.map(
        (tag, at) =>
          html`<button class="chip" key=${tag + at} aria-label=${`Take out ${tag}`} onClick=${() => {
            type(tags.filter((_, other) => other !== at).join(", "));
            commit(row.id);
          }}>${tag} <span>✕</span></button>`,
      )}</div>`
    }
    <div id="about-text">
      ${
        seen &&
        html`<div class=${`meter${share > 1 ? " past" : ""}`}><i style=${{ width: `${Math.min(100, 100 * share)}%` }}></i></div>
      <p class="small soft">${Object.entries(seen.tokens)
        .map(([name, n]) => `${n} of ${seen.budget} tokens${name === "about" ? ", about" : ` (${name.split(" (")[0]})`}`)
        .join(", ")}${share > 1 ? "; what is struck through is not read" : ""}</p>
      ${seen.faults.length > 0 && html`<ul class="reasons">${seen.faults.map(([reason, words]) => html`<li key=${words} class="warn"><i aria-hidden="true"></i><span dir="auto">${words}</span></li>`)}</ul>`}
      ${seen.trained !== text.split(/\s+/).filter(Boolean).join(" ") && text && html`<p class="small soft">Trained as: <span dir="auto">${seen.trained}</span></p>`}`
      }
    </div>
    ${
      conflict &&
      html`<div class="conflict" role="alert"><p><b>Changed elsewhere meanwhile.</b></p><p class="small soft">There</p><p dir="auto">${conflict.theirs ?? row.text}</p><p class="small soft">Yours</p><p dir="auto">${conflict.mine ?? "as captioned"}</p>
      <div class="row"><button class="main" onClick=${() => {
        conflicts.delete(row.id);
        decide([[row, "text", conflict.mine]]);
        changed();
      }}>Take mine</button><button onClick=${() => {
        conflicts.delete(row.id);
        changed();
      }}>Leave theirs</button></div></div>`
    }
    ${row.human?.text != null && !told.readOnly && html`<button class="small quiet" onClick=${() => decide([[row, "text", null]])}>As captioned again</button>`}
  </section>`;
}

// The text with what is wrong in it, and what is not read any more, as marks.
function marked(text, seen) {
  if (!seen) return text + " ";
  const spans = seen.faults.flatMap(([, words, places]) => places.map(([from, to]) => [from, to, "fault"]));
  if (seen.past != null) spans.push([seen.past, text.length, "past"]);
  const edges = [...new Set([0, text.length, ...spans.flatMap(([from, to]) => [from, to])])]
    .filter((at) => at <= text.length)
    .sort((one, other) => one - other);
  return edges
    .slice(0, -1)
    .map((from, n) => {
      const to = edges[n + 1],
        kinds = spans.filter((span) => span[0] <= from && span[1] >= to).map((span) => span[2]);
      return kinds.length ? html`<mark key=${from} class=${kinds.join(" ")}>${text.slice(from, to)}</mark>` : text.slice(from, to);
    })
    .concat(" ");
}

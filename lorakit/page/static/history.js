// All decisions, newest first; each can be taken back, and brought back.
import { html, useState, Busy, Dialog, useAnswer } from "./ui.js";
import { ask, notice, poll, told } from "./store.js";

export function History({ close }) {
  const [round, again] = useState(0);
  const { answer, error } = useAnswer(() => ask("history"), round);
  const takeBack = async (line) => {
    try {
      await ask("undo", { n: line.n });
      await poll();
    } catch (fault) {
      notice(fault.message, true);
    }
    again(round + 1);
  };
  return html`<${Dialog} title="Decisions" close=${close} wide>
    ${
      error
        ? html`<p class="bad">${error}</p>`
        : !answer
          ? html`<${Busy} />`
          : !answer.lines.length
            ? html`<p class="soft">Nothing has been decided by hand yet.</p>`
            : html`
    <ol class="history">${answer.lines.map(
      (line) => html`<li key=${line.n} class=${line.undone_by ? "undone" : ""}>
      <span class="n">${line.n}</span>
      <div><p><bdi>${line.words || "nothing was left to change"}</bdi></p><p class="soft small">${line.at.slice(0, 16).replace("T", " ")}, by ${line.by}${line.undoes ? `, undoes ${line.undoes}` : ""}${line.undone_by ? `, undone by ${line.undone_by}` : ""}</p></div>
      ${!told.readOnly && !line.undone_by && html`<button class="small" onClick=${() => takeBack(line)}>${line.undoes ? "Bring back" : "Take back"}</button>`}</li>`,
    )}</ol>`
    }
  <//>`;
}

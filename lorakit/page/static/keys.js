// Every key of the page, in one list: the table of `?` is drawn from it, and views say what their actions do.
import { useEffect, useRef } from "./ui.js";

export const KEYS = {
  left: ["ArrowLeft", "Everywhere", "one to the left, or the one before", "←"],
  right: ["ArrowRight", "Everywhere", "one to the right, or the next", "→"],
  up: ["ArrowUp", "Everywhere", "one up", "↑"],
  down: ["ArrowDown", "Everywhere", "one down", "↓"],
  open: ["Enter", "Everywhere", "open", "Enter"],
  back: ["Escape", "Everywhere", "back", "Esc"],
  undo: ["ctrl+z", "Everywhere", "undo", "Ctrl Z"],
  redo: ["ctrl+shift+z", "Everywhere", "redo", "Ctrl ⇧ Z"],
  search: ["/", "Everywhere", "search", "/"],
  help: ["?", "Everywhere", "this table", "?"],
  keep: ["a", "Photos", "keep, then the next", "A"],
  reject: ["r", "Photos", "reject, then the next", "R"],
  judged: ["u", "Photos", "as judged, then the next", "U"],
  select: ["s", "Photos", "select, or not", "S"],
  all: ["ctrl+a", "Photos", "select all that are shown", "Ctrl A"],
  fault: ["n", "Photos", "next with something to look at", "N"],
  faultBefore: ["p", "Photos", "the one before with something to look at", "P"],
  first: ["Home", "Photos", "first", "Home"],
  last: ["End", "Photos", "last", "End"],
  text: ["e", "One photo", "write the text", "E"],
  saveNext: ["ctrl+Enter", "One photo", "save the text and go on", "Ctrl Enter"],
  zoom: ["z", "One photo", "100 %, or the whole photo", "Z"],
  crop: ["c", "One photo", "crop", "C"],
  copies: ["d", "One photo", "its copies", "D"],
  bucketBefore: ["[", "Crop", "a narrower bucket", "["],
  bucketNext: ["]", "Crop", "a wider bucket", "]"],
  smaller: ["-", "Crop", "smaller", "−"],
  larger: ["+", "Crop", "larger", "+"],
  automatic: ["0", "Crop", "as it would be without you", "0"],
  both: ["b", "Copies", "both: they are no copies", "B"],
  neither: ["x", "Copies", "neither", "X"],
  flip: [" ", "Copies", "hold: show the kept one in its place", "Space"],
};
const ONLY_TOLD = [
  ["Crop", "⇧ arrows", "by 10 pixels"],
  ["Copies", "1 – 9", "keep that one of the group"],
];

const stack = [];
export const letters = { on: localStorage.getItem("lorakit.letters") !== "off" };
export function switchLetters(on) {
  letters.on = on;
  localStorage.setItem("lorakit.letters", on ? "on" : "off");
}

const named = Object.fromEntries(Object.entries(KEYS).map(([name, [key]]) => [key, name]));
const isField = (target) =>
  target.closest?.("textarea, select, [contenteditable], input:not([type=checkbox]):not([type=radio]):not([type=range])");

function pressed(event) {
  const key = event.key.length === 1 && !"?+[]".includes(event.key) ? event.key.toLowerCase() : event.key;
  return (
    (event.ctrlKey || event.metaKey ? "ctrl+" : "") +
    (event.shiftKey && key.length === 1 && (event.ctrlKey || event.metaKey) ? "shift+" : "") +
    key
  );
}

document.addEventListener("keydown", (event) => {
  if (event.isComposing || event.altKey) return;
  if (document.querySelector("dialog[open]")) return; // it has keys of its own
  const key = pressed(event),
    field = isField(event.target);
  if (field && !(key === "ctrl+Enter" || key === "Escape")) return;
  if (key.length === 1 && !letters.on && key !== "?") return;
  if (
    event.target.closest?.("button, a, summary, [role=slider], input[type=range]") &&
    (key === "Enter" || key === " " || (event.target.type === "range" && key.startsWith("Arrow")))
  )
    return;
  for (let at = stack.length - 1; at >= 0; at--) {
    const actions = stack[at].current,
      action = actions[named[key]] ?? actions["key " + key];
    if (action) {
      if (action(event) !== false) event.preventDefault();
      return;
    }
    if (actions.alone) return;
  }
});

// What the keys do while this view is shown; those of a view opened later come first. `alone: true`: no others count.
export function useKeys(actions) {
  const ref = useRef(actions);
  ref.current = actions;
  useEffect(() => {
    stack.push(ref);
    return () => {
      stack.splice(stack.indexOf(ref), 1);
    };
  }, []);
}

export function keyTable() {
  const groups = new Map();
  for (const [, group, words, shown] of Object.values(KEYS)) groups.set(group, [...(groups.get(group) ?? []), [shown, words]]);
  for (const [group, shown, words] of ONLY_TOLD) groups.get(group).push([shown, words]);
  return [...groups];
}

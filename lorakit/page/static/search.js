// What is typed into the search: words, "quoted words", name: text: reason:, tokens>75, NOT, OR, brackets, * as any letters.
const NUMBERS = {
  tokens: (row) => row.tokens,
  fits: (row) => row.fits,
  loss: (row, visits) => visits[row.id]?.[0],
  visits: (row, visits) => visits[row.id]?.[1],
  sharp: (row) => row.sharp,
  width: (row) => row.w,
  height: (row) => row.h,
  bytes: (row) => row.bytes,
};
const FIELDS = {
  name: (row) => row.name,
  text: (row) => row.text ?? "",
  reason: (row) =>
    [...(row.why ?? []).map((why) => `${why[1]} ${why[2]}`), ...(row.faults ?? []).map((fault) => fault.join(" "))].join("\n"),
  is: (row) => [row.verdict, row.chosen ? "chosen" : "", row.of ? "copy" : "", Object.keys(row.human ?? {}).length ? "hand" : ""].join(" "),
};
const anywhere = (row) => `${row.name}\n${row.text ?? ""}`;

export function compile(query) {
  const words = query.match(/\(|\)|[A-Za-z]+:"[^"]*"?|"[^"]*"?|[^\s()]+/g) ?? [];
  let at = 0;
  const either = () => {
    const parts = [both()];
    while (words[at] === "OR") {
      at++;
      parts.push(both());
    }
    return parts.length === 1 ? parts[0] : (row, visits) => parts.some((part) => part(row, visits));
  };
  const both = () => {
    const parts = [];
    while (at < words.length && words[at] !== "OR" && words[at] !== ")") {
      if (words[at] === "AND") at++;
      else parts.push(one());
    }
    return (row, visits) => parts.every((part) => part(row, visits));
  };
  const one = () => {
    const word = words[at++];
    if (word === "NOT" || word === "-") {
      if (at >= words.length) return () => true;
      const part = one();
      return (row, visits) => !part(row, visits);
    }
    if (word === "(") {
      const part = either();
      if (words[at] === ")") at++;
      return part;
    }
    if (word.length > 1 && word.startsWith("-")) {
      const part = term(word.slice(1));
      return (row, visits) => !part(row, visits);
    }
    return term(word);
  };
  const parts = [];
  while (at < words.length) {
    if (words[at] === ")") at++;
    else parts.push(either());
  }
  return (row, visits) => parts.every((part) => part(row, visits));
}

function term(word) {
  const compared = word.match(/^([a-z]+)(<=|>=|<|>|=)(-?[\d.]+)$/i),
    of = compared && NUMBERS[compared[1].toLowerCase()];
  if (of) {
    const limit = Number(compared[3]);
    const holds = {
      "<": (n) => n < limit,
      ">": (n) => n > limit,
      "<=": (n) => n <= limit,
      ">=": (n) => n >= limit,
      "=": (n) => n === limit,
    }[compared[2]];
    return (row, visits) => {
      const n = of(row, visits);
      return n != null && holds(n);
    };
  }
  const named = word.match(/^([a-z]+):(.*)$/is),
    field = named && FIELDS[named[1].toLowerCase()];
  const find = field ?? anywhere,
    wanted = (field ? named[2] : word).replace(/^"|"$/g, "").toLowerCase();
  if (!wanted) return () => true;
  if (!wanted.includes("*")) return (row) => find(row).toLowerCase().includes(wanted);
  const pattern = new RegExp(
    wanted
      .split("*")
      .map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&"))
      .join(".*"),
    "s",
  );
  return (row) => pattern.test(find(row).toLowerCase());
}

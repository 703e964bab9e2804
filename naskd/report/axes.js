// Choices as axes: numbers on a scale, words as ticks, and a place of its own for what a design does not have.
const MOST_WORDS = 10;
const NOT_USED = "not used";
// Spaces ask for more than a design has a use for. Where trials do not say what that was, the designs themselves tell.
const saysWhatIsUsed =
  complete.every((t) => t.unused) && complete.some((t) => Object.keys(t.parameters || {}).length);
const parametersOf = (t) =>
  Object.fromEntries(Object.entries(t.parameters || {}).filter(([name]) => !t.unused.design.includes(name)));
const chosenIn = new Map(complete.map((t) => [t, saysWhatIsUsed ? parametersOf(t) : t.choices]));
const choiceIn = (t, name) => (saysWhatIsUsed ? chosenIn.get(t)[name] : t.choices[name] && choiceOf(t, name));
function axisOf(name, read, given = {}) {
  const values = complete.map(read).filter((v) => v !== undefined),
    distinct = [...new Set(values)];
  const absent = values.length < complete.length;
  if (given.scale || (values.every(ok) && distinct.length > 8)) {
    const isWide = Math.min(...values) > 0 && Math.max(...values) / Math.min(...values) >= 20;
    const make = given.scale ?? (isWide ? log : linear),
      [low, high] = given.domain ?? [Math.min(...values), Math.max(...values)];
    const scale = make(low, high, 0, 1);
    return {
      name,
      title: name,
      absent,
      wordy: false,
      at: (t) => {
        const v = read(t);
        return v === undefined || v === null ? null : Math.min(Math.max(scale(v), 0), 1);
      },
      ticks: (n) =>
        scale.ticks(n).map((v, _, all) => ({ at: scale(v), text: (given.text ?? tickText)(v, all) })),
      value: read,
      invert: scale.invert,
      place: scale,
      ...given.more,
    };
  }
  const tally = new Map();
  for (const v of values) tally.set(plain(v) || "none", (tally.get(plain(v) || "none") || 0) + 1);
  let labels = [...tally.keys()];
  if (labels.length > MOST_WORDS) {
    labels.sort((a, b) => tally.get(b) - tally.get(a));
    labels = labels.slice(0, MOST_WORDS - 1);
  }
  const others = tally.size - labels.length;
  labels.sort(values.every(ok) ? (a, b) => a - b : (a, b) => a.localeCompare(b));
  if (others) labels.push(`${others} others`);
  const labelOf = (t) => {
    const v = read(t);
    if (v === undefined) return undefined;
    const label = plain(v) || "none";
    return labels.includes(label) ? label : labels.at(-1);
  };
  const place = (label) => (labels.indexOf(label) + 0.5) / labels.length;
  return {
    name,
    title: name,
    absent,
    wordy: true,
    at: (t) => (labelOf(t) === undefined ? null : place(labelOf(t))),
    ticks: () => labels.map((text) => ({ at: place(text), text })),
    value: labelOf,
    place,
    labels,
  };
}
// Those that differ, the ones that mattered most for accuracy first.
function choiceAxes() {
  const shares = data.importance?.val_accuracy || {};
  const names = [...new Set(complete.flatMap((t) => Object.keys(chosenIn.get(t))))];
  return names
    .map((name) => ({
      ...axisOf(name, (t) => choiceIn(t, name)),
      share: ok(shares[name]) ? shares[name] : null,
    }))
    .filter((axis) => new Set(complete.map((t) => axis.value(t))).size > 1)
    .sort((a, b) => (b.share ?? -1) - (a.share ?? -1));
}
// Where the bulk of accuracies begins: one collapsed trial must not flatten all others.
function accuracyDomain() {
  const all = complete.map((t) => t.val_accuracy).filter(ok);
  return [Math.min(quantile(all, 0.08), ...front.map((t) => t.val_accuracy).filter(ok)), Math.max(...all)];
}

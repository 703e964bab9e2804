// The record, the selected trial, and the head of a report.
// ---- The record
const trials = data.trials;
const byNumber = new Map(trials.map((t) => [t.number, t]));
const front = data.front.map((n) => byNumber.get(n)).filter(Boolean);
// Of each design, however often it was trained, the first trial stands for it.
const complete = trials.filter((t) => t.state === "COMPLETE" && !ok(t.replicate_of));
const teacher = data.teacher;
const tests = new Map(
  (data.retrained ? [...data.retrained.earlier, ...data.retrained.designs] : []).map((d) => [d.number, d]),
);
// What the commands of the page are about.
const run = data.run || "RUN";
// Costs that tables do not show anyway.
const otherCosts = data.costs.filter((k) => !["macs", "n_params"].includes(k));
const curveOf = (t, name) => {
  const c = t.curve || {};
  return (c.epoch || []).map((e, i) => [e, (c[name] || [])[i]]).filter((p) => ok(p[0]) && ok(p[1]));
};

// ---- State: one selected trial, and those who want to know.
const narrow = matchMedia("(max-width: 900px)");
const listeners = [];
const chosen = remembered("chosen", { number: null });
let selected = byNumber.has(chosen.number) ? chosen.number : null;
function select(number) {
  if (!byNumber.has(number)) return;
  selected = number;
  chosen.number = number;
  if (!narrow.matches) address(`#trial-${number}`);
  for (const listener of listeners) listener();
}
// What a reader picks is also opened, where details are a page of their own.
const opener = { open: () => {} };
function choose(number) {
  select(number);
  if (selected === number) opener.open();
}
function address(hash) {
  try {
    history.replaceState(null, "", hash);
  } catch {
    /* some browsers refuse on file: pages */
  }
}
const onSelect = (listener) => listeners.push(listener);

// Of a whole training, the part of the paused trial included; of a design of another trial's training none.
function trainingSeconds(t) {
  if (ok(t.trained_in)) return null;
  return ok(t.continues) && byNumber.has(t.continues)
    ? t.wall_seconds + trainingSeconds(byNumber.get(t.continues))
    : t.wall_seconds;
}

function trialTip(t) {
  const test = tests.get(t.number);
  return [
    h(
      "div",
      {},
      h("b", {}, percent(t.val_accuracy)),
      `  trial ${t.number}${t.on_front ? ", on the front" : ""}`,
    ),
    h("div", {}, `${count(t.macs)} MACs · ${count(t.n_params)} parameters`),
    ...otherCosts.filter((k) => ok(t[k])).map((k) => h("div", {}, costPhrase(k, t[k]))),
    test
      ? h("div", {}, `test ${withSd(test.test_accuracy_mean, test.test_accuracy_sd)} over ${test.n} seeds`)
      : null,
    t.student ? h("div", {}, t.student) : null,
    t.taught_by ? h("div", { class: "soft" }, "taught by ", t.taught_by) : null,
    ok(t.trained_in) ? h("div", { class: "soft" }, `trained in trial ${t.trained_in}`) : null,
  ].filter(Boolean);
}

// ---- Head
function tile(name, value, more) {
  return h(
    "div",
    { class: "tile" },
    h("div", { class: "name" }, name),
    h("div", { class: "value" }, value),
    more ? h("div", { class: "more" }, more) : null,
  );
}
// A student may also have more MACs than a small teacher.
function times(fewer) {
  return fewer >= 1 ? `${short(fewer)}× fewer` : `${short(1 / fewer)}× more`;
}
function smallestLikeTeacher() {
  const r = data.retrained;
  if (!r || !ok(r.teacher_test_accuracy) || !ok(r.teacher_test_standard_error)) return null;
  return {
    found: r.matches_teacher,
    error: r.teacher_test_standard_error,
    atChance: r.teacher_at_chance,
  };
}
function head() {
  const objectives = (data.objectives || [])
    .map((o) => `${o.direction === "maximize" ? "more" : "less"} ${words(o.name)}`)
    .join(", ");
  const measured = front.filter((t) => ok(t.val_accuracy));
  const best = measured.reduce((a, t) => (!a || t.val_accuracy > a.val_accuracy ? t : a), null);
  const costed = isLog(data.cost) ? front.map((t) => t[data.cost]).filter(positive) : [];
  const counts = data.counts || {};
  const like = smallestLikeTeacher();
  const bank = data.bank;
  const tiles = [
    tile(
      "On the front",
      String(front.length),
      costed.length > 1
        ? `${short(Math.max(...costed) / Math.min(...costed))}× between cheapest and dearest`
        : null,
    ),
    best
      ? tile(
          "Most accurate",
          percent(best.val_accuracy),
          `validation, ${costPhrase(data.cost, best[data.cost])}`,
        )
      : null,
    teacher
      ? tile(
          "Teacher",
          percent(teacher.val_accuracy),
          ok(teacher.macs) ? `validation, ${count(teacher.macs)} MACs` : teacher.name,
        )
      : null,
    like?.found
      ? tile(
          "As good as the teacher",
          count(like.found.macs),
          `MACs, trial ${like.found.number}, test ${percent(tests.get(like.found.number)?.test_accuracy_mean)}` +
            (teacher && positive(teacher.macs) ? `, ${times(teacher.macs / like.found.macs)} MACs` : ""),
        )
      : null,
    ok(data.hypervolume) ? tile("Hypervolume", volume(data.hypervolume), `of ${volumeOf()}`) : null,
    ok(data.train_macs)
      ? tile(
          "Spent on the search",
          macs(data.train_macs),
          data.train_macs_with_teachers > data.train_macs
            ? `${macs(data.train_macs_with_teachers)} with the teachers' training`
            : "trainings, teachers' answers included",
        )
      : null,
    bank && positive(bank.asked_images)
      ? tile(
          "From the bank",
          percent(Math.max(0, 1 - bank.forward_images / bank.asked_images), 0),
          `of ${count(bank.asked_images)} answers of teachers` +
            (positive(bank.saved_macs) ? `, ${macs(bank.saved_macs)} saved` : "") +
            (positive(bank.size_bytes) ? `, ${bytes(bank.size_bytes)} kept` : ""),
        )
      : null,
    tile(
      "Trials",
      String(counts.complete ?? complete.length),
      [
        counts.siblings ? `${counts.siblings} trained in another` : null,
        counts.failed ? `${counts.failed} failed` : null,
        counts.turned_away ? `${counts.turned_away} turned away` : null,
      ]
        .filter(Boolean)
        .join(", ") || "none failed",
    ),
  ];
  document
    .getElementById("head")
    .append(
      h("h1", {}, data.study ?? "study"),
      h(
        "div",
        { class: "soft" },
        `Students: accuracy against ${moreIsBetter(data.cost) ? words(data.cost) : "cost"}`,
        objectives ? ` · searched for ${objectives}` : "",
      ),
      h("div", { class: "tiles" }, tiles),
    );
  if ((data.warnings || []).length)
    document.getElementById("head").append(
      h(
        "div",
        { class: "warnings", role: "note" },
        h("strong", {}, data.warnings.length > 1 ? "Read these first" : "Read this first"),
        h(
          "ul",
          {},
          data.warnings.map((w) => h("li", {}, String(w))),
        ),
      ),
    );
}

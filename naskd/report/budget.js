// The budget: of the designs that it affords the most accurate, and of equal ones the cheapest. Of an objective that is
// on the front; of another cost it need not be.
const budgeted = (key) => (data.costs.includes(key) ? front : complete);
function pickOf(view) {
  const key = view.key,
    limit = view.limits[key],
    more = moreIsBetter(key);
  const affords = (t) => !ok(limit) || (more ? t[key] >= limit : t[key] <= limit);
  return budgeted(key)
    .filter((t) => usable(key, t[key]) && ok(t.val_accuracy) && affords(t))
    .reduce(
      (best, t) =>
        !best ||
        t.val_accuracy > best.val_accuracy ||
        (t.val_accuracy === best.val_accuracy && (more ? t[key] > best[key] : t[key] < best[key]))
          ? t
          : best,
      null,
    );
}
function budgetControls(view, redraw) {
  const STEPS = 400;
  let scale = null;
  const range = h("input", { type: "range", min: 0, max: STEPS, step: 1, oninput: () => slide() });
  const limitText = h("input", { type: "text", size: 9, onchange: () => type(), spellcheck: "false" });
  const wrong = h("span", { class: "wrong", role: "alert" });
  const lead = h("span", {}),
    tail = h("span", {});
  const clear = h("button", { type: "button", onclick: () => put(undefined) }, "no limit");
  const answer = h("div", { class: "answer", "aria-live": "polite" });
  const row = h("div", { class: "budget" }, h("label", {}, lead, limitText, tail), clear, wrong);
  const slider = h("div", { hidden: !front.length }, h("div", { class: "along" }, range), row);

  const more = () => moreIsBetter(view.key);
  const inside = (px) => Math.min(Math.max(px, 0), STEPS);
  const end = () => (more() ? 0 : STEPS);
  function slide() {
    const at = Number(range.value);
    put(at === end() ? undefined : Number(scale.invert(at).toPrecision(3)));
  }
  function type() {
    const text = limitText.value.trim().replace(measure(view.key).unit || words(view.key), ""),
      number = readNumber(text),
      fine = ["", "any"].includes(text) || ok(number);
    limitText.setAttribute("aria-invalid", String(!fine));
    wrong.textContent = fine ? "" : "A number, such as 50000, 50k or 1e6; empty for no limit.";
    if (fine) put(ok(number) ? number : undefined);
  }
  function put(limit) {
    if (limit === undefined) delete view.limits[view.key];
    else view.limits[view.key] = limit;
    redraw();
    say();
    const pick = pickOf(view);
    if (pick) select(pick.number);
  }
  function tell() {
    const limit = view.limits[view.key],
      unit = words(view.key),
      bound = more() ? "at least" : "at most";
    lead.textContent = more() ? "I need at least " : "I can afford at most ";
    tail.textContent = ` ${unit}`;
    if (document.activeElement !== limitText || !wrong.textContent)
      limitText.value = ok(limit) ? costText(view.key, limit) : "any";
    range.setAttribute("aria-label", `Budget: ${bound} so many ${unit}`);
    const pick = pickOf(view);
    range.setAttribute(
      "aria-valuetext",
      `${ok(limit) ? `${bound} ${costText(view.key, limit)}` : "no limit"}: ` +
        (pick ? `trial ${pick.number}, ${percent(pick.val_accuracy)}` : "no design"),
    );
    clear.hidden = !ok(limit);
  }
  function say() {
    tell();
    const pick = pickOf(view),
      key = view.key;
    if (!pick) {
      const there = budgeted(key).filter((t) => usable(key, t[key])),
        best = there.reduce((a, t) => (!a || (more() ? t[key] > a[key] : t[key] < a[key]) ? t : a), null);
      answer.replaceChildren(
        h("p", {}, `No design${data.costs.includes(key) ? " on the front" : ""} is within this budget.`),
        best
          ? h("p", { class: "note" }, `The nearest is trial ${best.number}, ${costPhrase(key, best[key])}.`)
          : "",
      );
      answer.hidden = !best;
      return;
    }
    const test = testOf(pick),
      fewer = teacher && positive(teacher.macs) && positive(pick.macs) ? teacher.macs / pick.macs : null;
    answer.replaceChildren(
      ...[
        h(
          "p",
          {},
          h("b", {}, `Take trial ${pick.number}: ${percent(pick.val_accuracy)}`),
          ` validation${test ? `, test ${withSd(test.test_accuracy_mean, test.test_accuracy_sd)}` : ""}, ` +
            `${costPhrase(key, pick[key])}${key === "macs" ? "" : `, ${count(pick.macs)} MACs`}` +
            `${fewer ? ` (${times(fewer)} MACs than the teacher)` : ""}. `,
          h("span", { class: "soft" }, `${pick.student}, taught by ${pick.taught_by}`),
        ),
        test ? null : copyable(`naskd retrain ${run} ${pick.number}`),
        copyable(`naskd export ${run} ${pick.number} --format onnx`),
        h(
          "button",
          { type: "button", class: "only-narrow", onclick: () => choose(pick.number) },
          "Its details",
        ),
      ].filter(Boolean),
    );
  }
  say();
  return {
    slider,
    answer,
    say,
    // Beneath the axis, so that the thumb stands where the limit is drawn.
    lay(f, key) {
      scale = costScale(key, f.x.domain, 0, STEPS);
      range.parentNode.style.marginLeft = `${f.box.x0 - 8}px`;
      range.parentNode.style.width = `${f.box.x1 - f.box.x0 + 16}px`;
      const limit = view.limits[key];
      range.value = ok(limit) && usable(key, limit) ? inside(scale(limit)) : end();
      tell();
    },
  };
}

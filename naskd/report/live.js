// Only in a page that naskd serve sends: asks for newer data, and draws it where the reader is.
const line = document.createElement("div");
line.id = "live";
const title = document.createElement("b"),
  rest = document.createElement("div");
// Read out are its changes, and not each epoch.
title.setAttribute("role", "status");
if (given.up) {
  const up = document.createElement("a");
  up.href = given.up;
  up.textContent = "← All runs";
  line.append(up);
}
line.append(title, rest);
document.body.prepend(line);
const live = { stamp: given.stamp, failures: 0, state: "", pressed: false, since: new Date() };
addEventListener("pointerdown", () => {
  live.pressed = true;
});
for (const name of ["pointerup", "pointercancel"])
  addEventListener(name, () => {
    live.pressed = false;
  });

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(60_000) });
  if (!answer.ok) throw new Error(answer.status === 401 ? "token" : String(answer.status));
  return answer.json();
}
// Nothing moves beneath a pointer that is down, an open menu or page, or a number that is half written.
const isBusy = () =>
  live.pressed ||
  document.querySelector("dialog[open]") ||
  document.activeElement?.matches("select, input[type=text]") ||
  !getSelection().isCollapsed;
const REACHED = "a, button, input, select, summary, [tabindex]";
const scrolling = () => [...document.querySelectorAll(".scroll, .details")];
function drawAgain(data) {
  const place = [scrollX, scrollY],
    inner = scrolling().map((node) => [node.getAttribute("aria-label"), node.scrollTop, node.scrollLeft]),
    opened = [...document.querySelectorAll("details")].map((node) => node.open);
  const within = document.activeElement?.closest("[id]"),
    index = within ? [...within.querySelectorAll(REACHED)].indexOf(document.activeElement) : -1;
  for (const id of ["head", "main", "foot"]) document.getElementById(id).replaceChildren();
  document.getElementById("tip").hidden = true;
  drawPage(data);
  // Charts draw themselves in a microtask, before which the page is too short to be scrolled.
  queueMicrotask(() => {
    for (const node of scrolling()) {
      const was = inner.find(([label]) => label === node.getAttribute("aria-label"));
      if (was) [, node.scrollTop, node.scrollLeft] = was;
    }
    [...document.querySelectorAll("details")].forEach((node, i) => {
      if (opened[i]) node.open = true;
    });
    if (index >= 0)
      [...(document.getElementById(within.id)?.querySelectorAll(REACHED) ?? [])][index]?.focus({
        preventScroll: true,
      });
    scrollTo(...place);
  });
}
function say(state, text, more = []) {
  line.className = state;
  for (const [node, words] of [
    [title, text],
    [rest, more.join("\n")],
  ])
    if (node.textContent !== words) node.textContent = words;
}
const clock = (date) => date.toLocaleTimeString();
async function look() {
  try {
    const found = await ask("state.json");
    if (found.stamp !== live.stamp && !isBusy()) {
      const data = await ask("data.json");
      drawAgain(data);
      live.stamp = data.stamp;
    }
    live.failures = 0;
    live.since = new Date();
    const ended = live.state === "searching" && found.state === "idle";
    live.state = ended ? "ended" : found.state === "idle" && live.state === "ended" ? "ended" : found.state;
    say(live.state, live.state === "ended" ? "The search has ended." : found.title, found.lines);
  } catch (error) {
    live.failures += 1;
    if (error.message === "token")
      say("gone", "The server asks for its token: open the address that naskd serve has printed.");
    else if (live.failures > 1)
      say("gone", `The server does not answer: this is what it said at ${clock(live.since)}.`);
  }
  setTimeout(look, document.hidden ? 10_000 : 2000);
}
look();

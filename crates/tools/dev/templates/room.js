// The live part of the control room. The server sends values by name; an element says in
// `data-bind` which of its attributes show which value: `text:NAME`, or `ATTRIBUTE:NAME`.

const connection = document.getElementById("connection");
const story = document.getElementById("story");
const dots = document.querySelector(".dots");
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const STORY_MAX = 8;

// The token has become a cookie.
if (location.search) history.replaceState(null, "", "/");
connection.textContent = "";

/** By the name of a value: the elements that show it, each with an attribute. */
const bound = new Map();
for (const element of document.querySelectorAll("[data-bind]")) {
  for (const pair of element.dataset.bind.split(" ")) {
    const colon = pair.indexOf(":");
    const name = pair.slice(colon + 1);
    if (!bound.has(name)) bound.set(name, []);
    bound.get(name).push([element, pair.slice(0, colon)]);
  }
}

/** By the name of a position: the line on which events move when it grows. */
const lines = new Map();
for (const line of document.querySelectorAll("[data-moves]")) lines.set(line.dataset.moves, line);
const positions = new Map();

function show(name, value) {
  for (const [element, attribute] of bound.get(name) ?? []) {
    if (attribute !== "text") element.setAttribute(attribute, value);
    else if (element.textContent !== value) element.textContent = value;
  }
  const line = lines.get(name);
  if (!line) return;
  const before = positions.get(name);
  positions.set(name, Number(value));
  if (before < Number(value)) move(line, Number(value) - before);
}

/** One dot for some events; it is larger for more. */
function move(line, events) {
  if (calm.matches || document.hidden) return;
  const dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  dot.setAttribute("r", String(4 + Math.min(6, Math.log2(events))));
  dots.append(dot);
  const at = (end) => {
    const [x, y] = ["x", "y"].map((axis) => line.getAttribute(axis + end));
    return { transform: `translate(${x}px, ${y}px)` };
  };
  const moving = dot.animate([at(1), at(2)], { duration: 600, easing: "ease-in-out" });
  moving.finished.finally(() => dot.remove());
}

function report({ number, text }) {
  if (Number(story.firstElementChild?.dataset.number ?? 0) >= number) return;
  const item = document.createElement("li");
  item.dataset.number = number;
  item.textContent = text;
  story.prepend(item);
  while (story.children.length > STORY_MAX) story.lastElementChild.remove();
}

let live;
function follow() {
  live = new EventSource("/live");
  live.addEventListener("open", () => { connection.textContent = ""; });
  live.addEventListener("values", (event) => {
    for (const [name, value] of Object.entries(JSON.parse(event.data))) show(name, value);
  });
  live.addEventListener("report", (event) => report(JSON.parse(event.data)));
  live.addEventListener("error", () => {
    connection.textContent = live.readyState === EventSource.CLOSED
      ? "cargo dev was started again: open the address that it has printed."
      : "cargo dev does not answer; trying again.";
  });
}

// Nobody is asked while nobody looks.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) live.close();
  else if (live.readyState === EventSource.CLOSED) follow();
});
follow();

document.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = event.submitter;
  if (button.getAttribute("aria-disabled") === "true") return;
  try {
    await fetch(button.formAction, { method: "POST", redirect: "manual" });
  } catch {
    connection.textContent = "cargo dev does not answer; nothing was done.";
  }
});

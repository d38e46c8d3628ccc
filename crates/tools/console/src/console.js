// Pages that follow. An element with `data-live` names a stream of server-sent events: `page`
// replaces its content, `row` adds a row at its top, `end` is the last update.
// Updates wait while they are paused, and while the reader selects text or is in a table.

const ROWS_MAX = 500;

const live = document.querySelector("[data-live]");
const state = document.getElementById("live-state");
const pause = document.getElementById("live-pause");

if (live) follow(live);

function follow(target) {
  let waiting = [];
  let isPaused = false;
  const source = new EventSource(target.dataset.live);

  const say = (text) => {
    if (state && state.textContent !== text) state.textContent = text;
  };

  const isReading = () => {
    const selection = document.getSelection();
    const selects = selection && !selection.isCollapsed && target.contains(selection.anchorNode);
    const table = target.closest("table") ? target.closest("table") : target;
    const held = table.matches("tbody, table")
      ? table.matches(":hover, :focus-within")
      : table.querySelector("table:hover, table:focus-within, .bar:focus-within") !== null;
    return selects || held;
  };

  const apply = ({ name, html }) => {
    if (name !== "row") {
      target.innerHTML = html;
      return;
    }
    document.getElementById("none")?.remove();
    target.insertAdjacentHTML("afterbegin", html);
    while (target.rows.length > ROWS_MAX) target.deleteRow(-1);
  };

  const show = () => {
    if (isPaused || isReading()) {
      if (waiting.length > 0) {
        say(isPaused ? `Paused; ${waiting.length} updates wait.` : "Waits while you read.");
      }
      return;
    }
    if (waiting.length === 0) return;
    waiting.forEach(apply);
    waiting = [];
    say("Updates as it changes.");
  };

  const take = (name) => (event) => {
    const update = { name, html: event.data };
    // Of a page, only the newest counts.
    if (name === "row") waiting.push(update);
    else waiting = [update];
    waiting = waiting.slice(-ROWS_MAX);
    show();
  };

  source.addEventListener("page", take("page"));
  source.addEventListener("row", take("row"));
  source.addEventListener("end", (event) => {
    source.close();
    target.innerHTML = event.data;
  });
  source.addEventListener("error", () => {
    const isOver = source.readyState === EventSource.CLOSED;
    say(isOver ? "No more updates: reload the page." : "Connection lost; trying again.");
  });
  source.addEventListener("open", () => say("Updates as it changes."));

  for (const name of ["mouseout", "focusout", "selectionchange"]) {
    document.addEventListener(name, () => setTimeout(show, 0));
  }

  if (pause) {
    pause.hidden = false;
    pause.addEventListener("click", () => {
      isPaused = !isPaused;
      pause.setAttribute("aria-pressed", String(isPaused));
      pause.textContent = isPaused ? "Resume updates" : "Pause updates";
      say(isPaused ? "Paused." : "Updates as it changes.");
      show();
    });
  }
}

// Shows on the page of a user what its stream brings: new cards, changed ones, their order.
// The HTML comes from the server, which escapes what people wrote.

const byId = id => document.getElementById(id);
const [live, news, list] = ['live', 'news', 'cards'].map(byId);
const isLater = 'newest' in live.dataset;
// The page is as of these positions: the stream begins with what has changed since.
let { seen } = live.dataset;
let source, again;

const say = state => {
  live.hidden = false;
  live.textContent = state;
};

const parse = html => {
  const template = document.createElement('template');
  template.innerHTML = html;
  return template.content;
};

const titleOf = card => card.querySelector('h2').textContent;
const timesOf = card => card.querySelector('p').textContent;

// Fills `old` with the children of `next`; the keyboard focus stays where it is.
const replace = (old, next) => {
  if (old.isEqualNode(next)) return;
  const stops = () => [...old.querySelectorAll('a, button')];
  const stop = stops().indexOf(document.activeElement);
  old.replaceChildren(...next.childNodes);
  stops()[stop]?.focus({ preventScroll: true });
};

const show = ({ order, html }) => {
  const said = [];
  for (const part of ['count', 'note', 'pages'].filter(part => part in html)) {
    const next = byId(part).cloneNode();
    next.append(parse(html[part]));
    replace(byId(part), next);
  }
  for (const id of order.filter(id => id in html)) {
    const [old, card] = [byId(id), parse(html[id]).firstElementChild];
    if (old) {
      const [before, now] = [old, card].map(titleOf);
      if (before !== now) said.push(`${before} is now ${now}`);
      else if (timesOf(old) !== timesOf(card)) said.push(`${now} was ordered again`);
      replace(old, card);
    } else {
      list.append(card);
      said.push(`${titleOf(card)} was ordered`);
    }
  }
  order.forEach((id, place) => {
    const [card, there] = [byId(id), list.children[place]];
    if (card !== there) list.insertBefore(card, there);
  });
  while (list.children.length > order.length) list.lastElementChild.remove();
  news.textContent = said.length > 3 ? `${said.length} products have changed` : said.join('. ');
};

// A later page stays as it is.
const tell = ({ order: [first] }) => {
  if (first === live.dataset.newest) return;
  byId('newer').hidden = false;
  news.textContent = 'There is something newer';
};

// An order was placed with the form and was not in the page: now it may be.
const positions = text => text.split(',').map(each => each.split(':'));
const arrive = () => {
  const note = byId('unseen');
  const reached = new Map(positions(seen));
  const is = ([source, position]) => Number(reached.get(source)) >= Number(position);
  if (!note || !positions(note.dataset.position).every(is)) return;
  note.removeAttribute('id');
  note.className = 'note good';
  note.textContent = 'Your order is in this page now.';
};

const stop = () => {
  clearTimeout(again);
  source?.close();
};

const gone = () => {
  document.removeEventListener('visibilitychange', turn);
  stop();
  document.title = 'No such user';
  list.parentElement.replaceChildren(parse('<h1>No such user</h1>'), live, news);
  say('This user was erased');
  news.textContent = live.textContent;
};

const follow = () => {
  stop();
  say('Connecting');
  const own = source = new EventSource(`${live.dataset.follow}&seen=${encodeURIComponent(seen)}`);
  source.onopen = () => say('Live: changes appear here as they happen');
  source.addEventListener('purchases', event => {
    (isLater ? tell : show)(JSON.parse(event.data));
    seen = event.lastEventId;
    if (isLater) return;
    byId('as-of').textContent = seen;
    arrive();
  });
  source.addEventListener('erased', gone);
  source.onerror = async () => {
    say('Reconnecting');
    // The browser itself tries again only after an answer, and does not say which answer it got.
    if (own.readyState !== EventSource.CLOSED) return;
    const answer = await fetch(live.dataset.follow, { method: 'HEAD' }).catch(() => undefined);
    if (source !== own || document.hidden) return;
    // Erased while nobody followed.
    if (answer?.status === 404) gone();
    else again = setTimeout(follow, 4000 + 4000 * Math.random());
  };
};

// Nobody reads a hidden page.
const turn = () => {
  if (document.hidden) {
    stop();
    say('Paused');
  } else {
    follow();
  }
};

document.addEventListener('visibilitychange', turn);
turn();

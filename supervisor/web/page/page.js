'use strict';

// The page asks viscript what the shell asks, and shows it. Texts of apps and peers are set as text, never as HTML.

const $ = id => document.getElementById(id);
const maxLines = 2000; // shown of a log; the rest is in viscript
let token = sessionStorage.getItem('token') || '';
let box = '';
let shown = 0; // id of the app whose log is open
const streams = {};

function say(text, bad) {
  $('message').textContent = text;
  $('message').className = bad ? 'bad' : '';
}

async function post(path, body) {
  const r = await fetch(path, {
    method: 'POST', body: JSON.stringify(body),
    headers: { 'Content-Type': 'application/json', 'X-Skywire-Token': token },
  });
  const answer = await r.json();
  if (answer.error) {
    const e = new Error(answer.error.message);
    e.status = r.status;
    throw e;
  }
  return answer;
}

async function call(method, params) {
  return (await post('/call', { node: box, method, params: params || {} })).result;
}

function cell(row, text, name) {
  const td = row.insertCell();
  td.textContent = text;
  if (name) td.className = name;
  return td;
}

function bytes(n) {
  if (n == null) return 'n/a';
  for (const unit of ['B', 'kB', 'MB', 'GB']) {
    if (n < 1000 || unit === 'GB') return (n < 10 && unit !== 'B' ? n.toFixed(1) : Math.round(n)) + ' ' + unit;
    n /= 1000;
  }
}

const fixed = (n, digits, unit) => n == null ? 'n/a' : n.toFixed(digits) + unit;

function button(text, label, act) {
  const b = document.createElement('button');
  b.type = 'button';
  b.textContent = text;
  b.setAttribute('aria-label', label);
  b.onclick = async () => {
    b.disabled = true;
    try { await act(); } catch (e) { say(`${label}: ${e.message}`, true); }
    b.disabled = false;
  };
  return b;
}

async function apps() {
  const list = await call('viscript.top');
  const body = $('apps').tBodies[0];
  const focused = document.activeElement.getAttribute('aria-label');
  body.replaceChildren();
  for (const a of list) {
    const row = body.insertRow();
    row.dataset.id = a.id;
    cell(row, a.id, 'number');
    cell(row, a.name);
    cell(row, a.state + (a.exit_reason && a.state !== 'ready' && a.state !== 'running' ? ': ' + a.exit_reason : ''), a.state);
    cell(row, a.pid ?? '', 'number');
    cell(row, a.started ? new Date(a.started).toLocaleString() : '');
    cell(row, a.restarts, 'number');
    cell(row, fixed(a.cpu_percent, 1, ' %'), 'number');
    cell(row, bytes(a.rss_bytes), 'number');
    const name = `${a.name}#${a.id}`, id = String(a.id), todo = row.insertCell();
    todo.append(
      button('log', `log of ${name}`, () => open(a.id, a.name)),
      button('ping', `ping ${name}`, async () => {
        const r = await call('viscript.ping', { id });
        say(`${name} answered in ${r.rtt_ms.toFixed(1)} ms (${r.answered_by})`);
      }),
      button('ru', `resources of ${name}`, async () => {
        await open(a.id, a.name);
        $('facts').textContent = JSON.stringify(await call('viscript.ru', { id }), null, 1);
        $('facts').hidden = false;
      }),
      button('restart', `restart ${name}`, async () => { await call('viscript.restart', { id }); say(`${name} started again`); await apps(); }),
      button('stop', `stop ${name}`, async () => { await call('viscript.stop', { id }); say(`${name} stopped, nothing of it is left`); await apps(); }),
    );
  }
  if (focused) body.querySelector(`[aria-label=${JSON.stringify(focused)}]`)?.focus();
}

function follow(name, query, show) {
  streams[name]?.close();
  const s = streams[name] = new EventSource('/stream?' + new URLSearchParams({ node: box, ...query }));
  s.onmessage = e => show(JSON.parse(e.data));
  s.addEventListener('failed', e => { s.close(); say(`${name}: ${JSON.parse(e.data).message}`, true); });
}

function add(pre, text) {
  const atEnd = pre.scrollTop + pre.clientHeight >= pre.scrollHeight - 4;
  pre.append(text + '\n');
  while (pre.childNodes.length > maxLines) pre.firstChild.remove();
  if (atEnd) pre.scrollTop = pre.scrollHeight;
}

const time = t => new Date(t).toLocaleTimeString();

async function open(id, name) {
  shown = id;
  $('h-app').textContent = `${name}#${id}`;
  $('about-app').hidden = false;
  $('facts').hidden = true;
  $('log').textContent = '';
  follow('log', { method: 'viscript.logs', id }, l => add($('log'), `${time(l.time)} ${l.text}`));
}

$('close').onclick = () => {
  streams.log?.close();
  $('about-app').hidden = true;
  shown = 0;
};

async function mesh() {
  $('mesh').hidden = true;
  if (box) return;
  let st;
  try { st = await call('node.status'); } catch { return; } // no node on this box
  const peers = await call('node.peers');
  const facts = {
    name: st.name || 'without', key: st.key, address: st.address, links: st.links, sessions: st.sessions,
    received: bytes(st.rx_bytes), sent: bytes(st.tx_bytes), relayed: bytes(st.relayed_bytes),
  };
  $('node').replaceChildren();
  for (const [k, v] of Object.entries(facts)) {
    const dt = document.createElement('dt'), dd = document.createElement('dd');
    dt.textContent = k;
    dd.textContent = v;
    $('node').append(dt, dd);
  }
  const body = $('peers').tBodies[0];
  body.replaceChildren();
  for (const p of Array.isArray(peers) ? peers : peers.peers || []) {
    const row = body.insertRow();
    cell(row, p.name || p.key.slice(0, 12) + '…').title = p.key;
    cell(row, p.state, p.state === 'up' ? 'ready' : 'failed');
    cell(row, p.endpoint || '');
    cell(row, fixed(p.rtt_ms, 1, ' ms'), 'number');
    cell(row, p.loss == null ? 'n/a' : (100 * p.loss).toFixed(1) + ' %', 'number');
  }
  $('mesh').hidden = false;
}

$('start').onsubmit = async e => {
  e.preventDefault();
  const app = $('app').value, args = $('args').value.trim();
  try {
    const r = await call('viscript.start', { app, args: args ? args.split(/\s+/) : [] });
    say(`${app}#${r.id} started`);
    await apps();
    await open(r.id, app);
  } catch (err) {
    say(`start ${app}: ${err.message}`, true);
  }
};

// show begins with a box anew.
async function show() {
  for (const s of Object.values(streams)) s.close();
  $('about-app').hidden = true;
  $('events').textContent = '';
  const st = await call('viscript.status');
  $('about').textContent = `version ${st.version}, ${st.running} of ${st.apps} apps run` + (st.problem ? `; ${st.problem}` : '');
  $('main').hidden = false;
  $('app').replaceChildren();
  for (const a of await call('viscript.apps')) {
    const o = new Option(a.desc ? `${a.name}: ${a.desc}` : a.name, a.name);
    $('app').append(o);
  }
  await apps();
  await mesh();
  follow('events', { method: 'viscript.events' }, e => {
    add($('events'), `${time(e.time)} ${e.app ? `${e.app}#${e.id} ` : ''}${e.event}${e.reason ? ': ' + e.reason : ''}`);
    if (!soon) soon = setTimeout(() => { soon = 0; apps().catch(trouble); }, 150);
  });
}
let soon = 0;

function trouble(e) {
  if (e.status === 401) {
    $('main').hidden = true;
    say('Not logged in. Run "viscript web" on this box and open the address that it prints.', true);
    return;
  }
  say(e.message, true);
}

$('box').onchange = () => {
  box = $('box').value;
  say('');
  show().catch(trouble);
};

async function begin() {
  const invited = location.hash.slice(1);
  if (invited) {
    history.replaceState(null, '', location.pathname);
    token = (await post('/login', { token: invited })).token;
    sessionStorage.setItem('token', token);
  }
  await show();
  try {
    for (const k of await call('boxes')) $('box').append(new Option(k.slice(0, 12) + '…', k));
  } catch { /* no node, no other boxes */ }
  setInterval(() => {
    if (!document.hidden && !$('main').hidden) Promise.all([apps(), mesh()]).catch(trouble);
  }, 5000);
}

begin().catch(trouble);

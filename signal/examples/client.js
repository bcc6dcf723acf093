#!/usr/bin/env node
// An app of viscript without a library: joins, serves, answers ping, ru and shutdown. See ../SPEC.md.
'use strict';
const net = require('net');
const readline = require('readline');

const env = {};
for (const name of Object.keys(process.env)) {
  if (name.startsWith('SIGNAL_')) {
    env[name] = process.env[name];
    delete process.env[name]; // not for programs of our own
  }
}

if (env.SIGNAL_CLIENT !== 'true') {
  console.error('not started by viscript');
  process.exit(1);
}

function answer(method) {
  switch (method) {
    case 'ping':
    case 'shutdown':
      return { result: { pid: process.pid } };
    case 'ru':
      return { result: { heap_bytes: process.memoryUsage().heapUsed } };
  }
  return { error: { code: -32601, name: 'unknown_method', message: 'unknown method ' + method } };
}

// The inherited descriptor, and when viscript was restarted, the address with the token.
function join() {
  const hello = { proto: [1], name: 'client.js', pid: process.pid };
  let conn;
  if (env.SIGNAL_FD) {
    conn = new net.Socket({ fd: Number(env.SIGNAL_FD), readable: true, writable: true });
    delete env.SIGNAL_FD;
  } else {
    conn = net.connect(env.SIGNAL_SERVER_ADDRESS);
    Object.assign(hello, { id: Number(env.SIGNAL_CLIENT_ID), token: env.SIGNAL_TOKEN });
  }
  const send = (message, done) => conn.write(JSON.stringify({ jsonrpc: '2.0', ...message }) + '\n', done);
  conn.on('error', () => {}); // no viscript at the moment
  conn.on('close', () => setTimeout(join, 1000));
  readline.createInterface({ input: conn }).on('line', (text) => {
    const m = text.trim() ? JSON.parse(text) : {};
    if (m.method !== undefined && m.id !== undefined) {
      send({ id: m.id, ...answer(m.method) }, m.method === 'shutdown' ? () => process.exit(0) : undefined);
    } else if (m.id === 1 && m.result) { // the answer to hello
      send({ method: 'status', params: { text: 'hello from JavaScript' } });
      send({ method: 'ready', params: {} });
    }
  });
  send({ id: 1, method: 'hello', params: hello });
}

join();

#!/usr/bin/env python3
"""An app of viscript without a library: joins, serves, answers ping, ru and shutdown. See ../SPEC.md."""
import json
import os
import resource
import socket
import sys
import time


env = {k: os.environ.pop(k) for k in list(os.environ) if k.startswith("SIGNAL_")}


def join():
    """The inherited descriptor, and when viscript was restarted, the address with the token."""
    hello = {"proto": [1], "name": "client.py", "pid": os.getpid()}
    if "SIGNAL_FD" in env:
        s = socket.socket(fileno=int(env.pop("SIGNAL_FD")))
        os.set_inheritable(s.fileno(), False)
    else:
        s = socket.socket(socket.AF_UNIX)
        s.connect(env["SIGNAL_SERVER_ADDRESS"])
        hello.update(id=int(env["SIGNAL_CLIENT_ID"]), token=env["SIGNAL_TOKEN"])
    return s.makefile("r", encoding="utf-8", newline="\n"), s.makefile("w", encoding="utf-8", newline="\n"), hello


def send(out, **message):
    out.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    out.flush()


def answer(method):
    if method == "ping" or method == "shutdown":
        return {"result": {"pid": os.getpid()}}
    if method == "ru":
        return {"result": {"max_rss_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "since": time.time()}}
    return {"error": {"code": -32601, "name": "unknown_method", "message": "unknown method " + method}}


def session():
    lines, out, hello = join()
    send(out, id=1, method="hello", params=hello)
    for text in lines:
        m = json.loads(text) if text.strip() else {}
        if "method" in m and "id" in m:
            send(out, id=m["id"], **answer(m["method"]))
            if m["method"] == "shutdown":
                sys.exit(0)
        elif m.get("id") == 1 and "result" in m:  # the answer to hello
            send(out, method="status", params={"text": "hello from Python"})
            send(out, method="ready", params={})


while env.get("SIGNAL_CLIENT") == "true":
    try:
        session()
    except OSError:
        pass  # no viscript at the moment
    time.sleep(1)

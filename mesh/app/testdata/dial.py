"""Join standard input and output with a service in the mesh: dial.py RUN-DIRECTORY KEY SERVICE [HEADER]

No library is needed: a stream is a connection to the node's socket, one line of JSON each way, then bytes.
"""
import base64
import json
import socket
import sys
import threading


def dial(run, key, service, header=b""):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.connect(run + "/node.sock")
    params = {"key": key, "service": service, "header": base64.b64encode(header).decode()}
    s.sendall(json.dumps({"method": "stream.dial", "params": params}).encode() + b"\n")
    line = b""
    while not line.endswith(b"\n"):  # byte by byte: what follows the newline belongs to the stream
        byte = s.recv(1)
        if not byte:
            raise ConnectionError("the node closed the connection")
        line += byte
    answer = json.loads(line)
    if "error" in answer:
        raise ConnectionError("{name}: {message}".format(**answer["error"]))
    return s, base64.b64decode(answer["result"].get("reply", ""))


def send(s):
    for block in iter(lambda: sys.stdin.buffer.read1(65536), b""):
        s.sendall(block)
    s.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    stream, reply = dial(*sys.argv[1:4], header=" ".join(sys.argv[4:]).encode())
    threading.Thread(target=send, args=(stream,), daemon=True).start()
    for block in iter(lambda: stream.recv(65536), b""):
        sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()

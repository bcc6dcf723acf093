// An app of viscript without a library: joins by the inherited descriptor, serves, answers ping, ru and shutdown.
// cc -o client client.c; see ../SPEC.md. It looks for members in the text, which is enough for what viscript asks.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

// Copies the value of a member as it is written; a member of params does not count.
static int member(const char *line, const char *name, char *out, size_t size) {
	int depth = 0, text = 0;
	size_t len = strlen(name), n = 0;
	for (const char *p = line; *p; p++) {
		if (*p == '"' && !text && depth == 1 && !strncmp(p + 1, name, len) && p[len + 1] == '"') {
			p += len + 2 + strspn(p + len + 2, " :");
			for (int quoted = 0; *p && n + 1 < size && (quoted || !strchr(",} \n", *p)); p++) {
				quoted ^= *p == '"';
				out[n++] = *p;
			}
			out[n] = 0;
			return n > 0;
		}
		if (*p == '\\' && text) p++;
		else if (*p == '"') text = !text;
		else if (!text) depth += (*p == '{' || *p == '[') - (*p == '}' || *p == ']');
	}
	return 0;
}

int main(void) {
	const char *fd = getenv("SIGNAL_FD");
	if (!fd) return fputs("not started by viscript, or without SIGNAL_FD\n", stderr), 1;
	FILE *in = fdopen(atoi(fd), "r"), *out = fdopen(fcntl(atoi(fd), F_DUPFD_CLOEXEC, 3), "w");
	fcntl(atoi(fd), F_SETFD, FD_CLOEXEC);
	for (const char **v = (const char *[]){"FD", "CLIENT", "CLIENT_ID", "SERVER_ADDRESS", "TOKEN", 0}; *v; v++) {
		char name[32];
		snprintf(name, sizeof name, "SIGNAL_%s", *v);
		unsetenv(name);
	}
	fprintf(out, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"hello\",\"params\":{\"proto\":[1],\"name\":\"client.c\",\"pid\":%d}}\n", getpid());
	char *line = 0, id[64], method[64];
	for (size_t cap = 0; fflush(out), getline(&line, &cap, in) > 0;) {
		int asked = member(line, "method", method, sizeof method), named = member(line, "id", id, sizeof id);
		struct rusage ru;
		if (!asked && named && !strcmp(id, "1")) // the answer to hello
			fputs("{\"jsonrpc\":\"2.0\",\"method\":\"status\",\"params\":{\"text\":\"hello from C\"}}\n{\"jsonrpc\":\"2.0\",\"method\":\"ready\"}\n", out);
		if (!asked || !named) continue;
		fprintf(out, "{\"jsonrpc\":\"2.0\",\"id\":%s,", id);
		if (!strcmp(method, "\"ping\"") || !strcmp(method, "\"shutdown\"")) fprintf(out, "\"result\":{\"pid\":%d}}\n", getpid());
		else if (!strcmp(method, "\"ru\"") && !getrusage(RUSAGE_SELF, &ru)) fprintf(out, "\"result\":{\"max_rss_kb\":%ld}}\n", ru.ru_maxrss);
		else fputs("\"error\":{\"code\":-32601,\"name\":\"unknown_method\",\"message\":\"unknown method\"}}\n", out);
		if (!strcmp(method, "\"shutdown\"")) return fflush(out), 0;
	}
	for (;;) pause(); // without viscript the app goes on with its work; SIGNAL_SERVER_ADDRESS is for joining again
}

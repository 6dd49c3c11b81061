/* A command for WASI preview 1 in C: it reads the context from standard input, and writes the result to standard output and
 * the log to standard error. The id of the context's `actor` chooses the task. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern char **environ;

int main(int argc, char **argv) {
    (void)argv;
    static char context[1 << 16];
    size_t length = fread(context, 1, sizeof context - 1, stdin);
    context[length] = 0;
    fprintf(stderr, "%zu bytes of context\n", length);
    if (strstr(context, "\"actor\":{\"id\":\"amend\"")) {
        puts("{\"amend\":{\"n\":9007199254740993.10}}");
    } else if (strstr(context, "\"actor\":{\"id\":\"reject\"")) {
        puts("{\"reject\":\"no\",\"fields\":{\"/a\":\"bad\"}}");
    } else if (strstr(context, "\"actor\":{\"id\":\"exit\"")) {
        fputs("the reason", stderr);
        exit(3);
    } else if (strstr(context, "\"actor\":{\"id\":\"zero\"")) {
        puts("{\"accept\":true}");
        exit(0);
    } else if (strstr(context, "\"actor\":{\"id\":\"nothing\"")) {
        return 0;
    } else if (strstr(context, "\"actor\":{\"id\":\"look\"")) {
        /* A sandbox must provide none of these. */
        FILE *file = fopen("/etc/passwd", "r");
        FILE *made = fopen("made", "w");
        printf("{\"reject\":\"%d arguments, %s environment, %s file, %s made\"}", argc > 0 ? argc - 1 : 0,
               environ && environ[0] ? "an" : "no", file ? "a" : "no", made ? "a file" : "nothing");
    } else {
        puts("{\"accept\":true}");
    }
    return 0;
}

/* A command for WASI preview 1 in C: the context comes on standard input, the answer goes to standard output, the log to
 * standard error. The word in the context's `actor` says what it does. */

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
        /* What a sandbox must not have. */
        FILE *file = fopen("/etc/passwd", "r");
        FILE *made = fopen("made", "w");
        printf("{\"reject\":\"%d arguments, %s environment, %s file, %s made\"}", argc > 0 ? argc - 1 : 0,
               environ && environ[0] ? "an" : "no", file ? "a" : "no", made ? "a file" : "nothing");
    } else {
        puts("{\"accept\":true}");
    }
    return 0;
}

/* What host.c says of each call: that it goes well, or how it is refused. */
#ifndef EXPECT_H
#define EXPECT_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <spark_backbone.h>

static void stop(int line, const char *what, const char *said) {
    fprintf(stderr, "host.c:%d: %s\n%s\n", line, what, said == NULL ? "" : said);
    exit(1);
}

#define EXPECT(condition)                          \
    do {                                           \
        if (!(condition)) {                        \
            stop(__LINE__, #condition, NULL);      \
        }                                          \
    } while (0)

/* `call` uses `error` for its text. */
#define OK(call)                                   \
    do {                                           \
        char *error = NULL;                        \
        if ((call) != SPARK_OK) {                  \
            stop(__LINE__, #call, error);          \
        }                                          \
        EXPECT(error == NULL);                     \
    } while (0)

/* How many calls were not refused as they must be: all are looked at. */
static int unexpected = 0;

static void check_refusal(int line, const char *call, SparkStatus status, char *error,
                          SparkStatus expected, const char *first, const char *second) {
    if (status != expected || error == NULL || strstr(error, first) == NULL ||
        strstr(error, second) == NULL) {
        fprintf(stderr, "host.c:%d: %s\nexpected %d with \"%s\" and \"%s\", got %d: %s\n", line, call,
                (int)expected, first, second, (int)status, error == NULL ? "" : error);
        ++unexpected;
    }
    printf("%d  %s\n", (int)status, error == NULL ? "" : error);
    spark_string_free(error);
}

/* `call` is refused with this status and a sentence that has both parts. */
#define REFUSED(expected, first, second, call)                                            \
    do {                                                                                  \
        char *error = NULL;                                                               \
        const SparkStatus status = (call);                                                \
        check_refusal(__LINE__, #call, status, error, (expected), (first), (second));     \
    } while (0)

#endif

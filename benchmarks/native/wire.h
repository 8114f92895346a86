/* What the simulated model server and the load generator share: a clock, buffers, HTTP heads and chunked bodies.
 *
 * Both read what gateways send, so they check it: `body_feed` answers -1 for bytes that are no valid framing.
 */
#ifndef WIRE_H
#define WIRE_H

#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static inline uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static inline void fail(const char *what) {
    perror(what);
    exit(2);
}

static inline void allow_many_sockets(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static inline void no_delay(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static inline void watch(int poll, int operation, int fd, uint32_t events, void *data) {
    struct epoll_event event = {.events = events, .data.ptr = data};
    if (epoll_ctl(poll, operation, fd, &event) < 0)
        fail("epoll_ctl");
}

/* Bytes that grow at their end and are taken from their beginning. */
typedef struct {
    char *data;
    size_t length, size;
} buffer;

static inline char *buffer_room(buffer *b, size_t bytes) {
    if (b->size - b->length < bytes) {
        size_t size = b->size ? b->size : 4096;
        while (size - b->length < bytes)
            size *= 2;
        b->data = realloc(b->data, size);
        if (!b->data)
            fail("realloc");
        b->size = size;
    }
    return b->data + b->length;
}

static inline void buffer_add(buffer *b, const void *data, size_t bytes) {
    if (!bytes)
        return;
    memcpy(buffer_room(b, bytes), data, bytes);
    b->length += bytes;
}

static inline void buffer_take(buffer *b, size_t bytes) {
    b->length -= bytes;
    if (b->length)
        memmove(b->data, b->data + bytes, b->length);
}

static inline void buffer_free(buffer *b) {
    free(b->data);
    *b = (buffer){0};
}

/* Length of the head at the start of `data`, with its empty line; 0 while it is incomplete. */
static inline size_t head_length(const char *data, size_t n) {
    const char *end = memmem(data, n, "\r\n\r\n", 4);
    return end ? (size_t)(end - data) + 4 : 0;
}

/* The value of a header in a complete head, or NULL. It ends at CR. */
static inline const char *header(const char *head, size_t n, const char *name) {
    size_t length = strlen(name);
    const char *line = memmem(head, n, "\r\n", 2);
    while (line && line + 2 + length < head + n) {
        line += 2;
        if (strncasecmp(line, name, length) == 0 && line[length] == ':') {
            line += length + 1;
            while (*line == ' ')
                line++;
            return line;
        }
        line = memmem(line, (size_t)(head + n - line), "\r\n", 2);
    }
    return NULL;
}

enum { BY_LENGTH, BY_CHUNKS, BY_CLOSE };
enum { SIZE, EXTENSION, DATA, AFTER_DATA, TRAILER };

typedef struct {
    int kind, state;
    uint64_t left;     /* of the body (BY_LENGTH) or of the chunk */
    unsigned digits, line;
    bool done;
} body;

/* How the body behind a head is framed. `without`: what no header says (a request has none, an answer goes on
 * until the connection closes). */
static inline void body_begin(body *b, const char *head, size_t n, int without) {
    const char *length = header(head, n, "Content-Length"), *coding = header(head, n, "Transfer-Encoding");
    *b = (body){.kind = without};
    if (coding && strncasecmp(coding, "chunked", 7) == 0)
        b->kind = BY_CHUNKS;
    else if (length)
        b->left = strtoull(length, NULL, 10), b->kind = BY_LENGTH;
    b->done = b->kind == BY_LENGTH && b->left == 0;
}

/* Takes the framing off. Answers how many bytes belong to the body, -1 where they are malformed. `payload` gets what
 * is inside, if it is there. */
static inline ssize_t body_feed(body *b, const char *data, size_t n, buffer *payload) {
    size_t at = 0;
    while (at < n && !b->done) {
        if (b->kind == BY_CLOSE || b->kind == BY_LENGTH || b->state == DATA) {
            size_t step = n - at;
            if (b->kind != BY_CLOSE && step > b->left)
                step = b->left;
            if (payload)
                buffer_add(payload, data + at, step);
            at += step;
            if (b->kind != BY_CLOSE)
                b->left -= step;
            if (b->kind == BY_LENGTH)
                b->done = b->left == 0;
            else if (b->kind == BY_CHUNKS && b->left == 0)
                b->state = AFTER_DATA, b->line = 0;
            continue;
        }
        char c = data[at++];
        if (b->state == SIZE) {
            int digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
            if (digit >= 0 && b->digits < 15)
                b->left = b->left * 16 + (uint64_t)digit, b->digits++;
            else if (b->digits && (c == '\r' || c == ';' || c == ' '))
                b->state = EXTENSION;
            else
                return -1;
        } else if (b->state == EXTENSION) {
            if (c == '\n')
                b->state = b->left ? DATA : TRAILER, b->digits = 0, b->line = 0;
        } else if (b->state == AFTER_DATA) {
            if (c != "\r\n"[b->line++])
                return -1;
            if (b->line == 2)
                b->state = SIZE;
        } else if (c == '\n') { /* TRAILER: an empty line ends the body */
            b->done = b->line == 0;
            b->line = 0;
        } else if (c != '\r') {
            b->line++;
        }
    }
    return (ssize_t)at;
}

#endif

/* Clients of a gateway: many connections, each with one request after another; every answer is checked.
 *
 *     load --port P [--connections N] [--total M | --seconds S] [--ramp-ms R] [--stream] [--chunks C] [--gap-us G]
 *          [--first-us F] [--prompt-bytes B] [--model NAME] [--header LINE] [--hold-s H] [--timeout-s T] [--slow-bytes-s B]
 *
 * With --hold-s it makes no request, but keeps its connections open for so long. --slow-bytes-s: how fast each client
 * reads. Prints one JSON object: requests that were whole and not, by cause; chunks; reads; and percentiles, in
 * microseconds, of `first` (request sent until the first content), `transit` (the model server's send() until the read
 * here, each chunk) and `whole` (request sent until the end of the answer).
 *
 * A stream is whole when its status is 200, its chunks come each once and in order, [DONE] behind them, and the body
 * ends as its framing says, with nothing behind it.
 */
#include "wire.h"
#include <arpa/inet.h>

enum { READ_BYTES = 262144, MAX_EVENTS = 256, MAX_SAMPLES = 1 << 22 };
enum { CONNECT, STATUS, FRAMING, EARLY_END, ORDER, MISSING, NOT_DONE, TOO_LATE, CAUSES };
static const char *const cause_names[CAUSES] = {"connect", "status", "framing", "early_end",
                                                "order",   "missing", "not_done", "too_late"};

typedef struct {
    int fd;                    /* -1: not open */
    bool connecting, asked, headed, counted_first, done;
    size_t sent;               /* of the request */
    uint64_t opens, asked_at;  /* opens: when the ramp lets it start */
    buffer in, text;           /* `in`: an incomplete head; `text`: payload that is no whole event yet */
    body body;
    bool closes;
    unsigned next;             /* number of the chunk that must come next */
    uint64_t may_read;         /* when a slow client reads again */
} client;

typedef struct {
    uint32_t *values;
    size_t count, size;
} samples;

static struct {
    int port, connections, ramp_ms, timeout_s, hold_s, slow;
    unsigned chunks;
    unsigned long gap_us, first_us, prompt_bytes;
    long long total;
    double seconds;
    bool stream;
    const char *model, *header;
} option = {.connections = 1, .timeout_s = 60, .chunks = 32, .model = "m", .header = ""};

static buffer request;
static client *clients;
static int poll_fd;
static uint64_t began, stops, causes[CAUSES], done, failed, started, chunks, reads, content_reads;
static int open_now, open_most, opened, refused;
static samples first, transit, whole;

static void sample(samples *s, uint64_t value) {
    if (s->count == MAX_SAMPLES)
        return;
    if (s->count == s->size) {
        s->size = s->size ? s->size * 2 : 4096;
        s->values = realloc(s->values, s->size * sizeof *s->values);
        if (!s->values)
            fail("realloc");
    }
    s->values[s->count++] = value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
}

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void print_samples(const char *name, samples *s) {
    if (s->count)
        qsort(s->values, s->count, sizeof *s->values, by_value);
    printf(",\"%s\":{\"count\":%zu", name, s->count);
    if (s->count) {
        static const struct { const char *name; double at; } points[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"max", 1.0}};
        for (size_t i = 0; i < sizeof points / sizeof *points; i++)
            printf(",\"%s\":%u", points[i].name, s->values[(size_t)(points[i].at * (double)(s->count - 1))]);
    }
    printf("}");
}

static void make_request(void) {
    static const char words[] = "The quick brown fox jumps over the lazy dog. ";
    buffer json = {0};
    char line[512];
    int n = snprintf(line, sizeof line, "{\"model\":\"%s\",\"messages\":[{\"role\":\"user\",\"content\":\"", option.model);
    buffer_add(&json, line, (size_t)n);
    for (unsigned long left = option.prompt_bytes; left;) {
        size_t step = left < sizeof words - 1 ? left : sizeof words - 1;
        buffer_add(&json, words, step);
        left -= step;
    }
    n = snprintf(line, sizeof line, "What is six times seven? [chunks=%u gap_us=%lu first_us=%lu]\"}],\"max_tokens\":64,\"stream\":%s}",
                 option.chunks, option.gap_us, option.first_us, option.stream ? "true" : "false");
    buffer_add(&json, line, (size_t)n);
    n = snprintf(line, sizeof line,
                 "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: load\r\nAccept: */*\r\n"
                 "%s%sContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                 option.port, option.header, *option.header ? "\r\n" : "", json.length);
    buffer_add(&request, line, (size_t)n);
    buffer_add(&request, json.data, json.length);
    buffer_free(&json);
}

static void close_client(client *c) {
    if (c->fd >= 0) {
        close(c->fd);
        open_now--;
    }
    c->fd = -1;
    c->connecting = c->asked = c->headed = false;
    c->in.length = c->text.length = 0;
}

static bool may_start(void) {
    if (option.hold_s)
        return false;
    return option.total ? started < (uint64_t)option.total : now_us() < stops;
}

static void end_with(client *c, int cause) {
    causes[cause]++;
    failed++;
    close_client(c);
    if (!may_start())
        c->done = true;
}

static void open_client(client *c) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)option.port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        fail("socket");
    if (option.slow) {
        int small = 4096;
        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    }
    no_delay(c->fd);
    open_now++;
    open_most = open_now > open_most ? open_now : open_most;
    c->connecting = true;
    c->asked_at = now_us();
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS) {
        refused++;
        end_with(c, CONNECT);
        return;
    }
    opened++;
    watch(poll_fd, EPOLL_CTL_ADD, c->fd, EPOLLOUT, c);
}

static void write_request(client *c) {
    ssize_t n = send(c->fd, request.data + c->sent, request.length - c->sent, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) {
        end_with(c, EARLY_END);
        return;
    }
    if (n > 0)
        c->sent += (size_t)n;
    watch(poll_fd, EPOLL_CTL_MOD, c->fd, c->sent < request.length ? EPOLLIN | EPOLLOUT : EPOLLIN, c);
}

static void ask(client *c) {
    if (!may_start()) {
        c->done = true;
        close_client(c);
        return;
    }
    started++;
    c->asked = true;
    c->headed = c->counted_first = false;
    c->sent = 0;
    c->next = 0;
    c->in.length = c->text.length = 0;
    c->asked_at = now_us();
    write_request(c);
}

/* One event of a stream; the cause of a failure, or -1. */
static int take_event(client *c, const char *event, size_t n, uint64_t now) {
    static const char content[] = "\"content\":\"";
    if (n >= 12 && memcmp(event, "data: [DONE]", 12) == 0) {
        if (c->next != option.chunks)
            return MISSING;
        c->next++;
        return -1;
    }
    const char *text = memmem(event, n, content, sizeof content - 1);
    if (!text || text[sizeof content - 1] < '0' || text[sizeof content - 1] > '9')
        return -1; /* a comment, a role, usage */
    char *colon;
    unsigned long number = strtoul(text + sizeof content - 1, &colon, 10);
    if (*colon != ':' || number != c->next)
        return ORDER;
    c->next++;
    chunks++;
    uint64_t sent = strtoull(colon + 1, NULL, 10);
    sample(&transit, now > sent ? now - sent : 0);
    if (!c->counted_first) {
        c->counted_first = true;
        sample(&first, now - c->asked_at);
    }
    return -1;
}

static int take_events(client *c, uint64_t now) {
    size_t at = 0;
    uint64_t before = chunks;
    if (!c->text.length)
        return -1;
    for (;;) {
        const char *begin = c->text.data + at, *end = memmem(begin, c->text.length - at, "\n\n", 2);
        if (!end)
            break;
        int cause = take_event(c, begin, (size_t)(end - begin), now);
        if (cause >= 0)
            return cause;
        at += (size_t)(end - begin) + 2;
    }
    content_reads += chunks > before;
    buffer_take(&c->text, at);
    return -1;
}

static void whole_answer(client *c, uint64_t now) {
    if (option.stream && c->next != option.chunks + 1) {
        end_with(c, NOT_DONE);
        return;
    }
    if (!option.stream && !memmem(c->text.data, c->text.length, "Forty-two.", 10)) {
        end_with(c, MISSING);
        return;
    }
    done++;
    sample(&whole, now - c->asked_at);
    c->asked = false;
    if (c->closes)
        close_client(c);
    if (!may_start()) {
        close_client(c);
        c->done = true;
    } else if (c->fd >= 0) {
        ask(c);
    }
}

static void take(client *c, const char *data, size_t n, uint64_t now) {
    if (!c->headed) {
        buffer_add(&c->in, data, n);
        size_t head;
        for (;;) {
            head = head_length(c->in.data, c->in.length);
            if (head == 0)
                return;
            if (strncmp(c->in.data + 9, "100", 3) != 0)
                break;
            buffer_take(&c->in, head);
        }
        if (head < 16 || strncmp(c->in.data + 9, "200", 3) != 0) {
            end_with(c, STATUS);
            return;
        }
        const char *connection = header(c->in.data, head, "Connection");
        c->closes = connection && strncasecmp(connection, "close", 5) == 0;
        body_begin(&c->body, c->in.data, head, BY_CLOSE);
        c->headed = true;
        data = c->in.data + head;
        n = c->in.length - head;
    }
    ssize_t used = body_feed(&c->body, data, n, &c->text);
    c->in.length = 0;
    if (used < 0 || (size_t)used < n) {
        end_with(c, FRAMING);
        return;
    }
    int cause = option.stream ? take_events(c, now) : -1;
    if (cause >= 0)
        end_with(c, cause);
    else if (c->body.done)
        whole_answer(c, now);
}

static void readable(client *c) {
    static char data[READ_BYTES];
    size_t want = sizeof data;
    uint64_t now = now_us();
    if (option.slow) { /* a tenth of a second's share, ten times a second */
        want = (size_t)option.slow / 10 ? (size_t)option.slow / 10 : 1;
        c->may_read = now + 100000;
        watch(poll_fd, EPOLL_CTL_MOD, c->fd, 0, c);
    }
    ssize_t n = recv(c->fd, data, want, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        if (c->asked && c->headed && n == 0 && c->body.kind == BY_CLOSE) {
            c->closes = true;
            whole_answer(c, now);
        } else if (c->asked) {
            end_with(c, EARLY_END);
        } else {
            close_client(c);
        }
        return;
    }
    reads++;
    if (!c->asked)
        end_with(c, FRAMING);
    else
        take(c, data, (size_t)n, now);
}

static void ready(client *c, uint32_t events) {
    if (c->fd < 0)
        return;
    if (c->connecting) {
        int error = 0;
        socklen_t length = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
        if (error) {
            refused++;
            end_with(c, CONNECT);
            return;
        }
        c->connecting = false;
        watch(poll_fd, EPOLL_CTL_MOD, c->fd, EPOLLIN, c);
        if (!option.hold_s)
            ask(c);
        return;
    }
    if (c->asked && c->sent < request.length && events & EPOLLOUT)
        write_request(c);
    if (c->fd >= 0 && events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        readable(c);
}

/* Opens what the ramp lets open, wakes slow readers, gives up what takes too long; whether anything is left to do. */
static bool look_after(uint64_t now) {
    bool busy = false;
    for (int i = 0; i < option.connections; i++) {
        client *c = clients + i;
        if (c->done)
            continue;
        if (c->fd < 0) {
            if (option.hold_s ? c->opens == 0 : !may_start()) {
                c->done = true;
                continue;
            }
            if (now >= c->opens) {
                open_client(c);
                if (option.hold_s)
                    c->opens = 0; /* not again, when the gateway closes it */
            }
        } else if (c->may_read && now >= c->may_read) {
            c->may_read = 0;
            watch(poll_fd, EPOLL_CTL_MOD, c->fd, EPOLLIN, c);
        }
        if (c->fd >= 0 && (c->asked || c->connecting) && now > c->asked_at + (uint64_t)option.timeout_s * 1000000)
            end_with(c, TOO_LATE);
        busy = true;
    }
    return option.hold_s ? now < stops : busy;
}

static void read_options(int count, char **words) {
    for (int i = 1; i < count; i++) {
        const char *name = words[i];
        if (strcmp(name, "--stream") == 0) {
            option.stream = true;
            continue;
        }
        if (i + 1 == count) {
            fprintf(stderr, "load: %s needs a value\n", name);
            exit(2);
        }
        const char *value = words[++i];
        if (strcmp(name, "--port") == 0) option.port = atoi(value);
        else if (strcmp(name, "--connections") == 0) option.connections = atoi(value);
        else if (strcmp(name, "--total") == 0) option.total = atoll(value);
        else if (strcmp(name, "--seconds") == 0) option.seconds = atof(value);
        else if (strcmp(name, "--ramp-ms") == 0) option.ramp_ms = atoi(value);
        else if (strcmp(name, "--chunks") == 0) option.chunks = (unsigned)atoi(value);
        else if (strcmp(name, "--gap-us") == 0) option.gap_us = strtoul(value, NULL, 10);
        else if (strcmp(name, "--first-us") == 0) option.first_us = strtoul(value, NULL, 10);
        else if (strcmp(name, "--prompt-bytes") == 0) option.prompt_bytes = strtoul(value, NULL, 10);
        else if (strcmp(name, "--model") == 0) option.model = value;
        else if (strcmp(name, "--header") == 0) option.header = value;
        else if (strcmp(name, "--hold-s") == 0) option.hold_s = atoi(value);
        else if (strcmp(name, "--slow-bytes-s") == 0) option.slow = atoi(value);
        else if (strcmp(name, "--timeout-s") == 0) option.timeout_s = atoi(value);
        else {
            fprintf(stderr, "load: there is no option %s\n", name);
            exit(2);
        }
    }
    if (!option.port || option.connections < 1) {
        fprintf(stderr, "load: needs --port, and one connection at least\n");
        exit(2);
    }
}

int main(int count, char **words) {
    struct epoll_event events[MAX_EVENTS];
    read_options(count, words);
    allow_many_sockets();
    make_request();
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    clients = calloc((size_t)option.connections, sizeof *clients);
    if (!clients)
        fail("calloc");
    began = now_us();
    stops = began + (uint64_t)((option.hold_s ? option.hold_s : option.seconds) * 1e6);
    for (int i = 0; i < option.connections; i++) {
        clients[i].fd = -1;
        clients[i].opens = began + (uint64_t)option.ramp_ms * 1000 * (uint64_t)i / (uint64_t)option.connections;
    }
    uint64_t looked = 0;
    for (;;) {
        uint64_t now = now_us();
        if (now - looked >= 1000) {
            looked = now;
            if (!look_after(now))
                break;
        }
        int n = epoll_wait(poll_fd, events, MAX_EVENTS, 1);
        for (int i = 0; i < n; i++)
            ready(events[i].data.ptr, events[i].events);
    }
    printf("{\"done\":%llu,\"failed\":%llu,\"seconds\":%.3f,\"chunks\":%llu,\"reads\":%llu,\"content_reads\":%llu,"
           "\"opened\":%d,\"refused\":%d,\"open_most\":%d,\"open_at_end\":%d,\"causes\":{",
           (unsigned long long)done, (unsigned long long)failed, (double)(now_us() - began) / 1e6,
           (unsigned long long)chunks, (unsigned long long)reads, (unsigned long long)content_reads, opened, refused,
           open_most, open_now);
    const char *comma = "";
    for (int i = 0; i < CAUSES; i++)
        if (causes[i]) {
            printf("%s\"%s\":%llu", comma, cause_names[i], (unsigned long long)causes[i]);
            comma = ",";
        }
    printf("}");
    print_samples("first_us", &first);
    print_samples("transit_us", &transit);
    print_samples("whole_us", &whole);
    printf("}\n");
    return failed ? 1 : 0;
}

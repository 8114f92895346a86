/* A model server that computes nothing: one thread, epoll, HTTP/1.1 with keep-alive.
 *
 *     model_server [--port P]        prints "listening on PORT"; P 0 takes a free one; SIGTERM ends it
 *
 * GET gets a list of models. POST gets an answer, or a stream if the body asks for one. What it is like stands in the
 * prompt, which every gateway passes on: "[chunks=32 gap_us=0 first_us=0]". Each event of a stream is an HTTP chunk and
 * a send() of its own; its content is "<number>:<microseconds of CLOCK_MONOTONIC when it was sent>".
 */
#include "wire.h"

enum { READ_BYTES = 65536, EVENT_BYTES = 512, MAX_EVENTS = 256 };

typedef struct client {
    int fd;
    buffer in, out;         /* `in`: one request or more; `out`: what the socket did not take */
    size_t head, eaten;     /* bytes of the request: its head, and with as much of its body as was seen */
    body body;
    uint64_t due, gap;      /* of the next event, microseconds */
    unsigned chunks, sent;
    size_t place;           /* in the heap, from 1; 0: not there */
    bool busy, stream, gone, closing;
    struct client *next_dead;
} client;

static int poll_fd;
static client *dead; /* freed when no event of this turn can name them any more */

/* Streams that wait for their next event: a heap, the first due at 1. */
static struct {
    client **at;
    size_t count, size;
} heap;

static void heap_put(size_t place, client *c) {
    heap.at[place] = c;
    c->place = place;
}

static void heap_up(size_t place, client *c) {
    for (; place > 1 && heap.at[place / 2]->due > c->due; place /= 2)
        heap_put(place, heap.at[place / 2]);
    heap_put(place, c);
}

static void heap_down(size_t place, client *c) {
    for (size_t child; (child = place * 2) <= heap.count; place = child) {
        if (child < heap.count && heap.at[child + 1]->due < heap.at[child]->due)
            child++;
        if (heap.at[child]->due >= c->due)
            break;
        heap_put(place, heap.at[child]);
    }
    heap_put(place, c);
}

static void heap_add(client *c) {
    if (heap.count + 2 > heap.size) {
        heap.size = heap.size ? heap.size * 2 : 1024;
        heap.at = realloc(heap.at, heap.size * sizeof *heap.at);
        if (!heap.at)
            fail("realloc");
    }
    heap_up(++heap.count, c);
}

static void heap_remove(client *c) {
    client *last = heap.at[heap.count--];
    size_t place = c->place;
    c->place = 0;
    if (last == c)
        return;
    if (place > 1 && heap.at[place / 2]->due > last->due)
        heap_up(place, last);
    else
        heap_down(place, last);
}

static void drop(client *c) {
    if (c->gone)
        return;
    c->gone = true;
    if (c->place)
        heap_remove(c);
    close(c->fd);
    c->next_dead = dead;
    dead = c;
}

static void bury(void) {
    while (dead) {
        client *c = dead;
        dead = c->next_dead;
        buffer_free(&c->in);
        buffer_free(&c->out);
        free(c);
    }
}

static void put(client *c, const char *data, size_t n) {
    if (c->gone)
        return;
    if (c->out.length == 0) {
        ssize_t sent = send(c->fd, data, n, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) {
            drop(c);
            return;
        }
        if (sent > 0)
            data += sent, n -= (size_t)sent;
        if (n == 0)
            return;
        watch(poll_fd, EPOLL_CTL_MOD, c->fd, EPOLLIN | EPOLLOUT, c);
    }
    buffer_add(&c->out, data, n);
}

static void put_event(client *c, const char *format, ...) {
    char event[EVENT_BYTES], wire[EVENT_BYTES + 16];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(event, sizeof event, format, arguments);
    va_end(arguments);
    int n = snprintf(wire, sizeof wire, "%x\r\n%.*s\r\n", (unsigned)length, length, event);
    put(c, wire, (size_t)n);
}

static void put_plain(client *c, const char *json) {
    char answer[1024];
    int n = snprintf(answer, sizeof answer,
                     "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                     strlen(json), json);
    put(c, answer, (size_t)n);
}

static void end_request(client *c) {
    c->busy = false;
    if (!c->gone && c->closing && c->out.length == 0)
        drop(c);
}

static void next_event(client *c) {
    static const char chunk[] =
        "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"m\","
        "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%u:%llu \"},\"finish_reason\":null}]}\n\n";
    static const char last[] =
        "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"m\","
        "\"choices\":[],\"usage\":{\"prompt_tokens\":21,\"completion_tokens\":%u,\"total_tokens\":%u}}\n\n";
    do {
        put_event(c, chunk, c->sent, (unsigned long long)now_us());
        c->sent++;
    } while (!c->gone && c->gap == 0 && c->sent < c->chunks);
    if (c->gone)
        return;
    if (c->sent < c->chunks) {
        c->due += c->gap;
        heap_add(c);
        return;
    }
    put_event(c, last, c->chunks, c->chunks + 21);
    put_event(c, "data: [DONE]\n\n");
    put(c, "0\r\n\r\n", 5);
    end_request(c);
}

static unsigned long told(const char *text, const char *end, const char *name, unsigned long otherwise) {
    const char *found = memmem(text, (size_t)(end - text), name, strlen(name));
    return found ? strtoul(found + strlen(name), NULL, 10) : otherwise;
}

static bool says(const char *text, size_t n, const char *what) {
    return memmem(text, n, what, strlen(what)) != NULL;
}

static void answer(client *c, const char *request, size_t n) {
    static const char stream_head[] =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
        "Transfer-Encoding: chunked\r\n\r\n";
    if (strncmp(request, "POST", 4) != 0) {
        put_plain(c, "{\"object\":\"list\",\"data\":[{\"id\":\"m\",\"object\":\"model\"}]}");
        end_request(c);
        return;
    }
    /* The directions stand in the last kilobyte, so that a large prompt costs no search. */
    const char *end = request + n, *directions = n > 1024 ? end - 1024 : request;
    c->stream = says(directions, (size_t)(end - directions), "\"stream\":true") ||
                says(directions, (size_t)(end - directions), "\"stream\": true");
    if (!c->stream) {
        put_plain(c, "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"m\","
                     "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"Forty-two.\"},"
                     "\"finish_reason\":\"stop\"}],"
                     "\"usage\":{\"prompt_tokens\":21,\"completion_tokens\":7,\"total_tokens\":28}}");
        end_request(c);
        return;
    }
    c->chunks = (unsigned)told(directions, end, "chunks=", 32);
    c->gap = told(directions, end, "gap_us=", 0);
    c->sent = 0;
    c->due = now_us() + told(directions, end, "first_us=", 0);
    put(c, stream_head, sizeof stream_head - 1);
    if (c->gone)
        return;
    if (c->due > now_us())
        heap_add(c);
    else
        next_event(c);
}

/* Answers the requests that are complete, one at a time. */
static void serve(client *c) {
    while (!c->gone && !c->busy && c->in.length) {
        if (c->head == 0) {
            c->head = head_length(c->in.data, c->in.length);
            if (c->head == 0)
                return;
            body_begin(&c->body, c->in.data, c->head, BY_LENGTH);
            c->eaten = c->head;
            if (header(c->in.data, c->head, "Expect"))
                put(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
        }
        ssize_t used = body_feed(&c->body, c->in.data + c->eaten, c->in.length - c->eaten, NULL);
        if (used < 0) {
            drop(c);
            return;
        }
        c->eaten += (size_t)used;
        if (!c->body.done)
            return;
        const char *connection = header(c->in.data, c->head, "Connection");
        c->closing = (connection && strncasecmp(connection, "close", 5) == 0) ||
                     (memmem(c->in.data, c->head, " HTTP/1.0\r\n", 11) && !connection);
        c->busy = true;
        /* Only what is read of it later is kept until the answer is made. */
        answer(c, c->in.data, c->eaten);
        if (c->gone)
            return;
        buffer_take(&c->in, c->eaten);
        c->head = c->eaten = 0;
    }
}

static void readable(client *c) {
    for (;;) {
        ssize_t n = recv(c->fd, buffer_room(&c->in, READ_BYTES), READ_BYTES, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN)) {
            drop(c);
            return;
        }
        if (n < 0)
            break;
        c->in.length += (size_t)n;
        if (n < READ_BYTES)
            break;
    }
    serve(c);
}

static void writable(client *c) {
    ssize_t n = send(c->fd, c->out.data, c->out.length, MSG_NOSIGNAL);
    if (n < 0) {
        if (errno != EAGAIN)
            drop(c);
        return;
    }
    buffer_take(&c->out, (size_t)n);
    if (c->out.length)
        return;
    watch(poll_fd, EPOLL_CTL_MOD, c->fd, EPOLLIN, c);
    if (!c->busy && c->closing)
        drop(c);
}

static void accept_all(int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        no_delay(fd);
        client *c = calloc(1, sizeof *c);
        if (!c)
            fail("calloc");
        c->fd = fd;
        watch(poll_fd, EPOLL_CTL_ADD, fd, EPOLLIN, c);
    }
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t length = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 4096) < 0)
        fail("listen");
    getsockname(fd, (struct sockaddr *)&address, &length);
    printf("listening on %d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static void stop(int number) {
    (void)number;
    _exit(0);
}

int main(int count, char **arguments) {
    int port = count == 3 && strcmp(arguments[1], "--port") == 0 ? atoi(arguments[2]) : 0;
    struct epoll_event events[MAX_EVENTS];
    signal(SIGTERM, stop);
    allow_many_sockets();
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    int listener = listen_on(port);
    watch(poll_fd, EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
    for (;;) {
        int timeout = -1;
        if (heap.count) {
            uint64_t now = now_us(), due = heap.at[1]->due;
            timeout = due <= now ? 0 : (int)((due - now + 999) / 1000);
        }
        int n = epoll_wait(poll_fd, events, MAX_EVENTS, timeout);
        for (int i = 0; i < n; i++) {
            client *c = events[i].data.ptr;
            if (!c) {
                accept_all(listener);
                continue;
            }
            if (!c->gone && events[i].events & EPOLLOUT)
                writable(c);
            if (!c->gone && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                readable(c);
        }
        uint64_t now = now_us();
        while (heap.count && heap.at[1]->due <= now) {
            client *c = heap.at[1];
            heap_remove(c);
            next_event(c);
            if (!c->gone && !c->busy)
                serve(c);
        }
        bury();
    }
}

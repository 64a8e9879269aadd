/* Sockets and their addresses; see wire.h.
 *
 * Addresses come from users and from peers. They are checked here before libzmq sees them, and names are resolved here, so that a bind and a
 * connect to the same text mean the same address. */
#include "wire.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "engine/memory.h"
#include "proto/weights.h"

enum {
    PORT_BYTES = 6,
    ENDPOINT_BYTES = 256,
    SOCKET_NAME_ROOM = 24, /* of a path of a socket: what follows the folder */
};

void wl_link_start_process (void)
{
    zsys_handler_set (NULL);
    zsys_init ();
    (void) !sodium_init (); /* who needs it asks again and checks */
}

void wl_link_end_process (void)
{
    zsys_shutdown ();
}

/* -- text of an endpoint ---------------------------------------------------------------------------------------------------------------- */

typedef struct tcp_place {
    char host[WL_HOST_BYTES]; /* without brackets */
    unsigned port;            /* 0: the system chooses */
} tcp_place;

static bool parse_port (const char *text, unsigned *port)
{
    if (strcmp (text, "*") == 0 || strcmp (text, "0") == 0) {
        *port = 0;
        return true;
    }
    size_t length = strlen (text);
    if (length == 0 || length >= PORT_BYTES || strspn (text, "0123456789") != length || text[0] == '0')
        return false;
    *port = (unsigned) strtoul (text, NULL, 10);
    return *port <= 65535;
}

/* "HOST:PORT", "[HOST]:PORT", ":PORT", "PORT". The host may be empty. */
static bool parse_place (const char *text, tcp_place *place)
{
    const char *colon = strrchr (text, ':'), *host = text;
    size_t length = colon ? (size_t) (colon - text) : 0;
    if (!parse_port (colon ? colon + 1 : text, &place->port))
        return false;
    if (length >= 2 && host[0] == '[' && host[length - 1] == ']') {
        host++;
        length -= 2;
    } else if (memchr (host, ':', length)) {
        return false; /* an IPv6 address without brackets: where its port begins is a guess */
    }
    if (length >= sizeof place->host)
        return false;
    memcpy (place->host, host, length);
    place->host[length] = 0;
    /* what names and addresses are made of; the rest (';', '/', …) means something to libzmq */
    return strspn (place->host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:%-_*") == length;
}

static bool is_path_ok (const char *path)
{
    struct sockaddr_un address;
    size_t length = strlen (path);
    return path[0] == '/' && length > 1 && length < sizeof address.sun_path && path[length - 1] != '/';
}

static const char *after (const char *text, const char *prefix)
{
    size_t length = strlen (prefix);
    return strncmp (text, prefix, length) == 0 ? text + length : NULL;
}

static bool is_endpoint (const char *endpoint, bool may_bind)
{
    const char *path = after (endpoint, "ipc://"), *place_text = after (endpoint, "tcp://");
    tcp_place place = {{0}, 0};
    if (path)
        return is_path_ok (path);
    if (!place_text || !strchr (place_text, ':') || !parse_place (place_text, &place) || !place.host[0])
        return false;
    return may_bind || (place.port && !strchr (place.host, '*'));
}

static void write_endpoint (char out[ENDPOINT_BYTES], const char *host, unsigned port)
{
    bool brackets = strchr (host, ':');
    snprintf (out, ENDPOINT_BYTES, "tcp://%s%s%s:%u", brackets ? "[" : "", host, brackets ? "]" : "", port);
}

/* -- resolving ----------------------------------------------------------------------------------------------------------------------------- */

static bool is_loopback_address (const struct sockaddr *address)
{
    if (address->sa_family == AF_INET)
        return ntohl (((const struct sockaddr_in *) (const void *) address)->sin_addr.s_addr) >> 24 == 127;
    return address->sa_family == AF_INET6 &&
           IN6_IS_ADDR_LOOPBACK (&((const struct sockaddr_in6 *) (const void *) address)->sin6_addr);
}

/* The addresses of a host, or NULL and getaddrinfo's reason. */
static struct addrinfo *resolve (const char *host, int flags, const char **reason)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags}, *found = NULL;
    int rc = getaddrinfo (host, NULL, &hints, &found);
    *reason = rc ? gai_strerror (rc) : "";
    return rc ? NULL : found;
}

static bool numeric_host (const struct sockaddr *address, socklen_t length, char host[WL_HOST_BYTES])
{
    return getnameinfo (address, length, host, WL_HOST_BYTES, NULL, 0, NI_NUMERICHOST) == 0;
}

bool wl_link_endpoint_ok (const char *endpoint)
{
    char host[WL_HOST_BYTES];
    bool loopback, wildcard;
    const char *reason;
    if (!is_endpoint (endpoint, false))
        return false;
    if (!wl_link_host (endpoint, host, &loopback, &wildcard))
        return true; /* ipc */
    struct addrinfo *found = wildcard ? NULL : resolve (host, AI_NUMERICHOST, &reason);
    bool ok = found != NULL;
    if (found)
        freeaddrinfo (found);
    return ok;
}

char *wl_link_address (const char *host_port, bool *is_loopback, wl_error *err)
{
    tcp_place place = {{0}, 0};
    char endpoint[ENDPOINT_BYTES];
    const char *path = after (host_port, "ipc://"), *text = after (host_port, "tcp://"), *reason;
    *is_loopback = false;
    if (path) {
        *is_loopback = true;
        if (!is_path_ok (path))
            wl_fail (err, WL_ERROR_USAGE, "%s: not the absolute path of a socket, or too long a one", host_port);
        return is_path_ok (path) ? wl_copy_text (host_port, strlen (host_port), err) : NULL;
    }
    if (!parse_place (text ? text : host_port, &place)) {
        wl_fail (err, WL_ERROR_USAGE,
                 "\"%s\" is no address: expected HOST:PORT, such as 192.168.1.5:7000 or [::1]:7000", host_port);
        return NULL;
    }
    if (!place.host[0])
        strcpy (place.host, "127.0.0.1");
    else if (strcmp (place.host, "*") == 0)
        strcpy (place.host, "0.0.0.0");
    struct addrinfo *found = resolve (place.host, 0, &reason), *best = found;
    for (struct addrinfo *a = found; a; a = a->ai_next)
        if (a->ai_family == AF_INET && best->ai_family != AF_INET)
            best = a;
    bool ok = best && numeric_host (best->ai_addr, best->ai_addrlen, place.host);
    if (ok) {
        *is_loopback = is_loopback_address (best->ai_addr);
        write_endpoint (endpoint, place.host, place.port);
    } else {
        wl_fail (err, WL_ERROR_USAGE, "%s: the host cannot be resolved%s%s", host_port, *reason ? ": " : "", reason);
    }
    if (found)
        freeaddrinfo (found);
    return ok ? wl_copy_text (endpoint, strlen (endpoint), err) : NULL;
}

bool wl_link_host (const char *endpoint, char host[WL_HOST_BYTES], bool *is_loopback, bool *is_wildcard)
{
    const char *text = after (endpoint, "tcp://"), *reason;
    tcp_place place = {{0}, 0};
    if (!text || !parse_place (text, &place) || !place.host[0])
        return false;
    memcpy (host, place.host, WL_HOST_BYTES);
    struct addrinfo *found = resolve (place.host, AI_NUMERICHOST, &reason);
    *is_loopback = found && is_loopback_address (found->ai_addr);
    *is_wildcard = strcmp (host, "*") == 0 || strcmp (host, "0.0.0.0") == 0 || strcmp (host, "::") == 0;
    if (found)
        freeaddrinfo (found);
    return true;
}

bool wl_link_local_host (const char *endpoint, char host[WL_HOST_BYTES], bool *is_loopback, wl_error *err)
{
    const char *text = after (endpoint, "tcp://"), *reason;
    tcp_place place = {{0}, 0};
    struct sockaddr_storage own = {.ss_family = AF_UNSPEC};
    socklen_t length = sizeof own;
    struct addrinfo *found = NULL;
    int probe = -1;
    bool ok = false;
    if (!text || !parse_place (text, &place)) {
        wl_fail (err, WL_ERROR_INTERNAL, "%s: no tcp endpoint", endpoint);
        goto done;
    }
    found = resolve (place.host, 0, &reason);
    if (!found) {
        wl_fail (err, WL_ERROR_CLUSTER, "%s: the host cannot be resolved: %s", endpoint, reason);
        goto done;
    }
    if (found->ai_family == AF_INET)
        ((struct sockaddr_in *) (void *) found->ai_addr)->sin_port = htons ((uint16_t) (place.port ? place.port : 9));
    else
        ((struct sockaddr_in6 *) (void *) found->ai_addr)->sin6_port = htons ((uint16_t) (place.port ? place.port : 9));
    /* Connecting a datagram socket sends nothing: it only chooses a route. */
    probe = socket (found->ai_family, SOCK_DGRAM, 0);
    if (probe < 0 || connect (probe, found->ai_addr, found->ai_addrlen) != 0 ||
        getsockname (probe, (struct sockaddr *) &own, &length) != 0 ||
        !numeric_host ((struct sockaddr *) &own, length, host)) {
        wl_fail (err, WL_ERROR_CLUSTER, "%s: this machine has no route to it: %s", endpoint, strerror (errno));
        goto done;
    }
    *is_loopback = is_loopback_address ((struct sockaddr *) &own);
    ok = true;
done:
    if (probe >= 0)
        close (probe);
    if (found)
        freeaddrinfo (found);
    return ok;
}

/* -- sockets ------------------------------------------------------------------------------------------------------------------------------- */

static bool set_option (void *socket, int option, int value)
{
    return zmq_setsockopt (socket, option, &value, sizeof value) == 0;
}

zsock_t *wl_link_new (wl_link_kind kind, size_t largest_frame, wl_error *err)
{
    enum { CONTROL_QUEUE = 1000, WAITING_QUEUE = 64, DATA_QUEUE = 8, WEIGHTS_QUEUE = 2 * WL_WEIGHTS_WINDOW };
    static const int types[] = {
        [WL_LINK_ROUTER] = ZMQ_ROUTER, [WL_LINK_DEALER] = ZMQ_DEALER,         [WL_LINK_PUSH] = ZMQ_PUSH,
        [WL_LINK_PULL] = ZMQ_PULL,     [WL_LINK_WEIGHTS_ROUTER] = ZMQ_ROUTER, [WL_LINK_WEIGHTS_DEALER] = ZMQ_DEALER};
    bool is_data = kind == WL_LINK_PUSH || kind == WL_LINK_PULL;
    bool is_weights = kind == WL_LINK_WEIGHTS_ROUTER || kind == WL_LINK_WEIGHTS_DEALER;
    /* messages; beyond it a data link blocks its sender, the others refuse */
    int queue = is_data ? DATA_QUEUE : is_weights ? WEIGHTS_QUEUE : CONTROL_QUEUE;
    int64_t largest = (int64_t) largest_frame;
    zsock_t *link = zsock_new (types[kind]);
    void *socket = link ? zsock_resolve (link) : NULL;
    /* A ZAP domain makes libzmq turn away peers of ZMTP 1 and 2. No authenticator need be there. Their routing ids would go through code
     * that aborts the process when the socket is closing (process_routing_id_msg of libzmq 4.3.4). */
    bool ok = socket && zmq_setsockopt (socket, ZMQ_ZAP_DOMAIN, "woolly", strlen ("woolly")) == 0 &&
              zmq_setsockopt (socket, ZMQ_MAXMSGSIZE, &largest, sizeof largest) == 0 &&
              set_option (socket, ZMQ_LINGER, 0) && set_option (socket, ZMQ_SNDHWM, queue) &&
              set_option (socket, ZMQ_RCVHWM, queue) && set_option (socket, ZMQ_TCP_KEEPALIVE, 1) &&
              set_option (socket, ZMQ_TCP_KEEPALIVE_IDLE, 10) && set_option (socket, ZMQ_TCP_KEEPALIVE_INTVL, 5) &&
              set_option (socket, ZMQ_TCP_KEEPALIVE_CNT, 3) && set_option (socket, ZMQ_HANDSHAKE_IVL, 5000) &&
              set_option (socket, ZMQ_RECONNECT_IVL, 50) && set_option (socket, ZMQ_RECONNECT_IVL_MAX, 1000);
    if (ok && (kind == WL_LINK_ROUTER || kind == WL_LINK_WEIGHTS_ROUTER))
        ok = set_option (socket, ZMQ_ROUTER_MANDATORY, 1); /* a vanished peer is an error, not a silent drop */
    if (ok && kind == WL_LINK_PUSH)
        ok = set_option (
            socket, ZMQ_IMMEDIATE,
            1); /* queue only for a peer that is there; on a DEALER it would lose what has arrived when the peer leaves */
    /* CURVE's keys are set here, before bind or connect, and wl_link_start_process starts its authenticator. */
    if (ok)
        return link;
    wl_fail (err, WL_ERROR_INTERNAL, "a socket could not be opened: %s", zmq_strerror (errno));
    zsock_destroy (&link);
    return NULL;
}

static bool is_ipv6 (const char *endpoint)
{
    return after (endpoint, "tcp://") && strchr (endpoint, '[');
}

/* What a peer on another host connects to, for what was bound. */
static void advertise (char endpoint[ENDPOINT_BYTES], const char *advertised_host)
{
    char host[WL_HOST_BYTES];
    bool loopback, wildcard;
    tcp_place place = {{0}, 0};
    if (advertised_host && wl_link_host (endpoint, host, &loopback, &wildcard) && wildcard &&
        parse_place (endpoint + strlen ("tcp://"), &place))
        write_endpoint (endpoint, advertised_host, place.port);
}

bool wl_link_bind (zsock_t *link, const char *address, const char *advertised_host, char **endpoint, wl_error *err)
{
    void *socket = zsock_resolve (link);
    char bound[ENDPOINT_BYTES] = "";
    size_t length = sizeof bound;
    if (!is_endpoint (address, true))
        return wl_fail (err, WL_ERROR_USAGE, "%s: no address that can be listened on", address);
    set_option (socket, ZMQ_IPV6, is_ipv6 (address));
    if (zmq_bind (socket, address) != 0) {
        if (errno == EADDRINUSE)
            return wl_fail (err, WL_ERROR_CLUSTER,
                            "%s: the port is in use: choose another, or end the program that holds it", address);
        if (errno == EADDRNOTAVAIL || errno == ENODEV)
            return wl_fail (err, WL_ERROR_CLUSTER, "%s: this machine has no such address", address);
        return wl_fail (err, WL_ERROR_CLUSTER, "%s: cannot be listened on: %s", address, zmq_strerror (errno));
    }
    if (zmq_getsockopt (socket, ZMQ_LAST_ENDPOINT, bound, &length) != 0)
        return wl_fail (err, WL_ERROR_INTERNAL, "%s: the bound address is unknown: %s", address, zmq_strerror (errno));
    advertise (bound, advertised_host);
    *endpoint = wl_copy_text (bound, strlen (bound), err);
    return *endpoint != NULL;
}

bool wl_link_connect (zsock_t *link, const char *endpoint, wl_error *err)
{
    void *socket = zsock_resolve (link);
    if (!wl_link_endpoint_ok (endpoint))
        return wl_fail (err, WL_ERROR_CLUSTER, "\"%s\": no endpoint that can be connected to", endpoint);
    set_option (socket, ZMQ_IPV6, is_ipv6 (endpoint));
    if (zmq_connect (socket, endpoint) != 0)
        return wl_fail (err, WL_ERROR_CLUSTER, "%s: cannot be connected to: %s", endpoint, zmq_strerror (errno));
    return true;
}

/* -- folders of sockets -------------------------------------------------------------------------------------------------------------------- */

char *wl_socket_folder_new (wl_error *err)
{
    struct sockaddr_un address;
    char path[sizeof address.sun_path];
    const char *bases[2] = {getenv ("TMPDIR"), "/tmp"};
    for (int i = 0; i < 2; i++) {
        int length = bases[i] && bases[i][0] == '/' ? snprintf (path, sizeof path, "%s/woolly-XXXXXX", bases[i]) : -1;
        if (length > 0 && (size_t) length + SOCKET_NAME_ROOM < sizeof path && mkdtemp (path)) /* mkdtemp: mode 0700 */
            return wl_copy_text (path, strlen (path), err);
    }
    wl_fail (err, WL_ERROR_INTERNAL, "no folder for sockets could be made under TMPDIR or /tmp: %s", strerror (errno));
    return NULL;
}

void wl_socket_folder_remove (const char *folder)
{
    DIR *listing = opendir (folder);
    struct stat status;
    struct dirent *entry;
    if (!listing)
        return;
    while ((entry = readdir (listing)))
        if (fstatat (dirfd (listing), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISSOCK (status.st_mode))
            unlinkat (dirfd (listing), entry->d_name, 0);
    closedir (listing);
    rmdir (folder);
}

/* -- waking a poll ----------------------------------------------------------------------------------------------------------------------------- */

bool wl_wake_open (int ends[2], wl_error *err)
{
    if (pipe (ends) != 0) {
        ends[0] = ends[1] = -1;
        return wl_fail (err, WL_ERROR_INTERNAL, "a pipe could not be opened: %s", strerror (errno));
    }
    for (int i = 0; i < 2; i++) {
        fcntl (ends[i], F_SETFL, O_NONBLOCK);
        fcntl (ends[i], F_SETFD, FD_CLOEXEC);
    }
    return true;
}

void wl_wake_signal (int end)
{
    int saved = errno;           /* may run in a signal handler */
    (void) !write (end, "w", 1); /* a full pipe wakes as well */
    errno = saved;
}

void wl_wake_drain (int end)
{
    char bytes[64];
    while (read (end, bytes, sizeof bytes) > 0)
        ;
}

void wl_wake_close (int ends[2])
{
    for (int i = 0; i < 2; i++) {
        if (ends[i] >= 0)
            close (ends[i]);
        ends[i] = -1;
    }
}

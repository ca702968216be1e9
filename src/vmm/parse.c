// SPDX-License-Identifier: Apache-2.0
/* The little grammars of a configuration: MAC addresses, port pairs, folder pairs, resource limits, modes, disk
 * names.
 *
 *     mac     = hex hex 5(sep hex hex)            one kind of separator, ':' or '-'
 *     ports   = port [":" port]                   1 … 65535
 *     folders = path ":" path [":" ("ro" | "rw")]   the second absolute and without a colon
 *     mode    = 1 to 4 octal digits
 *     rlimit  = (name | number) "=" value ":" value        value = number | "unlimited"
 *
 * Invariants: (1) nothing is accepted with anything before or behind it. (2) a result is written only on success.
 * (3) `*ret_why` is set whenever the result is -EINVAL or -ERANGE.
 *
 * Trust: every byte comes from a user, a file or another program's API call.
 */
#include "vmm/parse.h"

#include "base/alloc.h"
#include "base/text.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>

static int wrong(int result, const char *why, const char **ret_why)
{
    *ret_why = why;
    return result;
}

static int hex_digit(char character)
{
    if (character >= '0' && character <= '9')
        return character - '0';
    if (character >= 'a' && character <= 'f')
        return character - 'a' + 10;
    if (character >= 'A' && character <= 'F')
        return character - 'A' + 10;
    return -1;
}

int parse_mac(const char *text, uint8_t ret_mac[6], const char **ret_why)
{
    enum { mac_length = 17 };
    uint8_t mac[6];
    if (strlen(text) != mac_length)
        return wrong(-EINVAL, "it is not six pairs of hex digits with colons between them", ret_why);
    for (size_t i = 0; i < sizeof(mac); i++) {
        const char *pair = text + 3 * i;
        int high = hex_digit(pair[0]), low = hex_digit(pair[1]);
        if (high < 0 || low < 0)
            return wrong(-EINVAL, "it holds something else than hex digits between the separators", ret_why);
        bool is_last = i + 1 == sizeof(mac);
        if (!is_last && ((pair[2] != ':' && pair[2] != '-') || pair[2] != text[2]))
            return wrong(-EINVAL, "its pairs are not separated by colons throughout", ret_why);
        mac[i] = (uint8_t)(high << 4 | low);
    }
    memcpy(ret_mac, mac, sizeof(mac));
    return 0;
}

static int parse_port(const char *text, size_t length, uint16_t *ret_port, const char **ret_why)
{
    uint64_t port = 0;
    int result = text_to_u64(text, length, UINT16_MAX, &port);
    if (result == -EINVAL)
        return wrong(-EINVAL, length == 0 ? "a port is missing" : "a port is not a decimal number", ret_why);
    if (result < 0 || port == 0)
        return wrong(-ERANGE, "a port is not between 1 and 65535", ret_why);
    *ret_port = (uint16_t)port;
    return 0;
}

int parse_port_pair(const char *text, struct port_config *ret_pair, const char **ret_why)
{
    struct port_config pair;
    const char *colon = strchr(text, ':');
    size_t host_length = colon != NULL ? (size_t)(colon - text) : strlen(text);
    int result = parse_port(text, host_length, &pair.host, ret_why);
    if (result < 0)
        return result;
    pair.guest = pair.host;
    if (colon != NULL) {
        result = parse_port(colon + 1, strlen(colon + 1), &pair.guest, ret_why);
        if (result < 0)
            return result;
    }
    *ret_pair = pair;
    return 0;
}

static char *copy_part(const char *text, size_t length)
{
    char *copy = alloc_zero(length + 1);
    if (copy != NULL)
        memcpy(copy, text, length);
    return copy;
}

int parse_folder_pair(const char *text, char **ret_host, char **ret_guest, bool *ret_read_only, const char **ret_why)
{
    size_t length = strlen(text);
    bool is_read_only = length >= 3 && memcmp(text + length - 3, ":ro", 3) == 0;
    if (is_read_only || (length >= 3 && memcmp(text + length - 3, ":rw", 3) == 0))
        length -= 3;
    size_t guest = length; /* where the guest's path begins */
    while (guest > 0 && !(text[guest - 1] == ':' && guest < length && text[guest] == '/'))
        guest--;
    if (guest == 0)
        return wrong(-EINVAL, "it has no colon with an absolute path of the guest behind it", ret_why);
    if (guest == 1)
        return wrong(-EINVAL, "the path of the host is missing", ret_why);
    if (memchr(text + guest, ':', length - guest) != NULL) /* ":RO" must not become a part of the path */
        return wrong(-EINVAL, "what follows the path of the guest is neither :ro nor :rw", ret_why);
    auto_free char *host_copy = copy_part(text, guest - 1);
    auto_free char *guest_copy = copy_part(text + guest, length - guest);
    if (host_copy == NULL || guest_copy == NULL)
        return -ENOMEM;
    *ret_host = steal_ptr(host_copy);
    *ret_guest = steal_ptr(guest_copy);
    *ret_read_only = is_read_only;
    return 0;
}

/* Linux's numbers on every architecture that a guest may have (asm-generic/resource.h). */
static const char *const rlimit_names[] = {
    "CPU",     "FSIZE", "DATA",  "STACK",      "CORE",     "RSS",  "NPROC",  "NOFILE",
    "MEMLOCK", "AS",    "LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME",
};
_Static_assert(array_length(rlimit_names) == LIMIT_RLIMITS, "a name for every resource");

const char *rlimit_name(uint32_t resource)
{
    return resource < LIMIT_RLIMITS ? rlimit_names[resource] : "unknown";
}

static int parse_resource(const char *text, size_t length, uint32_t *ret_resource, const char **ret_why)
{
    uint64_t number = 0;
    int result = text_to_u64(text, length, LIMIT_RLIMITS - 1, &number);
    if (result == -ERANGE)
        return wrong(-ERANGE, "Linux has no resource limit of that number (0 to 15)", ret_why);
    if (result == 0) {
        *ret_resource = (uint32_t)number;
        return 0;
    }
    static const char prefix[] = "RLIMIT_";
    size_t prefix_length = sizeof(prefix) - 1;
    if (length > prefix_length && strncasecmp(text, prefix, prefix_length) == 0) {
        text += prefix_length;
        length -= prefix_length;
    }
    for (uint32_t i = 0; i < LIMIT_RLIMITS; i++) {
        if (strlen(rlimit_names[i]) == length && strncasecmp(text, rlimit_names[i], length) == 0) {
            *ret_resource = i;
            return 0;
        }
    }
    return wrong(-EINVAL,
                 "its name is not one of CPU, FSIZE, DATA, STACK, CORE, RSS, NPROC, NOFILE, MEMLOCK, AS, LOCKS, "
                 "SIGPENDING, MSGQUEUE, NICE, RTPRIO, RTTIME",
                 ret_why);
}

static int parse_limit(const char *text, size_t length, uint64_t *ret_value, const char **ret_why)
{
    static const char unlimited[] = "unlimited";
    if (length == sizeof(unlimited) - 1 && memcmp(text, unlimited, length) == 0) {
        *ret_value = RLIM_INFINITY;
        return 0;
    }
    int result = text_to_u64(text, length, UINT64_MAX, ret_value);
    if (result == -EINVAL)
        return wrong(result, "a limit is neither a number nor \"unlimited\"", ret_why);
    if (result < 0)
        return wrong(result, "a limit does not fit in 64 bits", ret_why);
    return 0;
}

int parse_rlimit(const char *text, struct rlimit_config *ret_limit, const char **ret_why)
{
    struct rlimit_config limit;
    const char *equals = strchr(text, '=');
    const char *colon = equals != NULL ? strchr(equals, ':') : NULL;
    if (colon == NULL)
        return wrong(-EINVAL, "it does not have the form NAME=SOFT:HARD", ret_why);
    int result = parse_resource(text, (size_t)(equals - text), &limit.resource, ret_why);
    if (result == 0)
        result = parse_limit(equals + 1, (size_t)(colon - equals - 1), &limit.soft, ret_why);
    if (result == 0)
        result = parse_limit(colon + 1, strlen(colon + 1), &limit.hard, ret_why);
    if (result < 0)
        return result;
    if (limit.soft > limit.hard)
        return wrong(-ERANGE, "its soft limit is above its hard limit", ret_why);
    *ret_limit = limit;
    return 0;
}

int parse_mode(const char *text, uint32_t *ret_mode, const char **ret_why)
{
    enum { most_digits = 4 };
    uint32_t mode = 0;
    size_t length = strlen(text);
    if (length == 0 || length > most_digits || strspn(text, "01234567") != length)
        return wrong(-EINVAL, "it is not one to four octal digits", ret_why);
    for (size_t i = 0; i < length; i++)
        mode = mode * 8 + (uint32_t)(text[i] - '0');
    *ret_mode = mode;
    return 0;
}

void format_disk_name(size_t index, char ret_name[disk_name_bytes])
{
    char letters[disk_name_bytes];
    size_t count = 0;
    /* Bijective: there is no zero, so each place counts from 1 and the carry takes one away. */
    for (size_t rest = index + 1; rest > 0 && count < disk_name_bytes - 3; rest = (rest - 1) / 26)
        letters[count++] = (char)('a' + (rest - 1) % 26);
    size_t used = 0;
    ret_name[used++] = 'v';
    ret_name[used++] = 'd';
    while (count > 0)
        ret_name[used++] = letters[--count];
    ret_name[used] = '\0';
}

// SPDX-License-Identifier: Apache-2.0
/* The little grammars of a configuration: MAC addresses, port pairs, folder pairs, resource limits, modes,
 * disk names.
 *
 * Each parser takes a whole string, returns 0 or a negative errno, and on failure says in one sentence what is wrong
 * with the text; the caller knows which field it came from.
 */
#ifndef VMM_PARSE_H
#define VMM_PARSE_H

#include "vmm/config.h"

/* "52:54:00:12:34:56", separators ':' or '-' throughout. -EINVAL. */
int parse_mac(const char *text, uint8_t ret_mac[6], const char **ret_why);

/* "8080:80", or "8080" for both. -EINVAL, or -ERANGE for a number that is no port. */
int parse_port_pair(const char *text, struct port_config *ret_pair, const char **ret_why);

/* An address of IPv4, in the first four bytes, or of IPv6. */
struct net_address {
    uint8_t bytes[16];
    bool is_ipv6;
    uint8_t prefix; /* bits of its network; all of the address's where none was given */
};

/* "10.0.2.2", and "10.0.2.15/24" with the prefix that it needs (parse_net.c). -EINVAL or -ERANGE. */
int parse_address(const char *text, struct net_address *ret_address, const char **ret_why);
int parse_network(const char *text, struct net_address *ret_address, const char **ret_why);

/* "8080:80", "127.0.0.1:8080:80", "[::1]:5353:53/udp". -EINVAL or -ERANGE. */
struct published_port {
    struct net_address address; /* of the host */
    uint16_t host, guest;
    bool is_udp;
};
int parse_published(const char *text, struct published_port *ret_port, const char **ret_why);

/* "HOST:GUEST[:ro|:rw]" in new memory. The guest's path begins at the last colon that a '/' follows, so the host's path
 * may hold colons; the guest's may not. -EINVAL or -ENOMEM. */
int parse_folder_pair(const char *text, char **ret_host, char **ret_guest, bool *ret_read_only, const char **ret_why);

/* "NAME=SOFT:HARD" or "NUMBER=SOFT:HARD". -EINVAL or -ERANGE. */
int parse_rlimit(const char *text, struct rlimit_config *ret_limit, const char **ret_why);

/* The resource's name without its prefix in capitals, such as "NOFILE". */
const char *rlimit_name(uint32_t resource);

/* Permissions of a folder in octal digits, "0755" or "1777". -EINVAL. */
int parse_mode(const char *text, uint32_t *ret_mode, const char **ret_why);

/* The name of the disk at this place: vda … vdz, vdaa …, as Linux counts (bijective base 26). */
enum { disk_name_bytes = 16 };
void format_disk_name(size_t index, char ret_name[disk_name_bytes]);

#endif

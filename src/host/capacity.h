// SPDX-License-Identifier: Apache-2.0
/* What this host can give to one machine. */
#ifndef HOST_CAPACITY_H
#define HOST_CAPACITY_H

#include <stdint.h>

#define HOST_UNKNOWN UINT64_MAX

struct host_capacity {
    uint32_t cpus;          /* online, the ones this process may use */
    uint32_t max_vcpus;     /* of one machine: KVM's limit where KVM opens, never more than LIMIT_VCPUS */
    uint64_t memory_mib;    /* the host's memory, or the limit of this process's cgroup where that is lower */
    uint64_t available_mib; /* of that; either is HOST_UNKNOWN where the host does not tell */
};

/* `root` stands before every path that is read: "" for the real host, a prepared folder in tests. Cannot fail: what
 * cannot be read does not limit. */
void host_capacity_read(const char *root, struct host_capacity *ret_capacity);

#endif

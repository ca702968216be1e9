// SPDX-License-Identifier: Apache-2.0
/* What the parts of the jail share: the plan that is made before the child exists, and the child's report. */
#ifndef ENGINE_UML_JAIL_PRIVATE_H
#define ENGINE_UML_JAIL_PRIVATE_H

#include "engine/uml/jail.h"

#include <sys/resource.h>
#include <sys/un.h>

/* What the child does between clone and exec, in this order; the one that failed is named in the error. */
enum jail_step {
    JAIL_STEP_GO,
    JAIL_STEP_SIGNALS,
    JAIL_STEP_DESCRIPTORS,
    JAIL_STEP_NO_NEW_PRIVS,
    JAIL_STEP_IDENTITY,
    JAIL_STEP_ROOT,
    JAIL_STEP_FILES,
    JAIL_STEP_SOCKETS,
    JAIL_STEP_READ_ONLY,
    JAIL_STEP_RLIMITS,
    JAIL_STEP_LANDLOCK,
    JAIL_STEP_CAPABILITIES,
    JAIL_STEP_PARENT,
    JAIL_STEP_STANDARD,
    JAIL_STEP_SECCOMP,
    JAIL_STEP_EXEC,
    JAIL_STEPS
};

/* Sent down to the child when its id maps are written. */
struct jail_go {
    uint32_t user, group; /* as the child calls them */
    bool changes_ids;     /* false: it stays who it is */
    bool is_root;         /* of the host, whatever it calls itself */
};

/* Sent up by the child, when a step failed that it cannot do without (then it ends), and before exec. */
struct jail_report {
    int32_t failed_step;             /* enum jail_step, or JAIL_STEPS */
    int32_t os_error;                /* positive */
    int32_t wall_errors[JAIL_WALLS]; /* positive; 0: it stands, or is not the child's to put up */
};

struct jail_rlimit {
    int resource;
    rlim_t limit;
};

/* An option of a tmpfs. */
struct jail_mount_option {
    const char *key;
    char value[24];
};

enum { JAIL_RLIMITS_MOST = 16, JAIL_CPUINFO_BYTES = 16384 };

/* Everything that the child needs, so that it neither allocates nor formats. */
struct jail_plan {
    bool is_needed[JAIL_WALLS]; /* a step that cannot put one of these up ends the start */
    bool has_own_root;          /* it makes a root of its own, in a mount namespace of its own */
    const char *folder;         /* borrowed: "", or the folder that stands for a root */
    uint64_t memory_bytes;
    uint64_t group_bytes;                       /* what all processes may use together */
    struct jail_mount_option root_options[3];   /* ending in an empty key */
    struct jail_mount_option memory_options[3]; /* size, nr_inodes */
    struct jail_mount_option state_options[3];
    char cpuinfo[JAIL_CPUINFO_BYTES];
    size_t cpuinfo_length;
    struct sockaddr_un *addresses; /* owned: one a socket */
    const int *socket_fds;         /* borrowed */
    size_t socket_count;
    int initramfs_fd; /* borrowed; -1: none */
    uint64_t initramfs_bytes;
    struct jail_rlimit rlimits[JAIL_RLIMITS_MOST];
    size_t rlimit_count;
    const struct jail_program *program; /* borrowed while jail_start runs */
    int own_end, parent_end;            /* of the channel between the two */
};

/* Fills in everything but what is_needed, has_own_root and the members around a start say. `folder` must outlive it. */
int jail_plan_make(struct jail_plan *plan, const struct jail_options *options, const char *folder,
                   struct vial_error *err);
struct jail_path jail_plan_path(const struct jail_plan *plan, const char *path);
void jail_plan_clear(struct jail_plan *plan);

/* The child's whole life in this program. Its caller has blocked all signals. */
_Noreturn void jail_child_run(const struct jail_plan *plan);

/* Steps of it that have files of their own. 0 or -errno. */
int jail_root_make(const struct jail_plan *plan);
int jail_root_fill(const struct jail_plan *plan);
int jail_root_seal(const struct jail_plan *plan);
int jail_landlock_restrict(const struct jail_plan *plan, int program_fd);
int jail_filter_install(void);

#endif

// SPDX-License-Identifier: Apache-2.0
/* The jail around a user-mode Linux kernel and the processes of its guest.
 *
 * Guest programs can write the memory of a user-mode Linux kernel (arch/um, "seccomp="), so this kernel is as hostile
 * as its guest, and the jail is the only boundary. It is made of walls that do not rely on each other: what a hole in
 * one would give is not reachable behind the next.
 *
 *     what the program could want        what stands before it
 *     files of the host                  no name for any (own root), Landlock, an id that owns nothing
 *     processes of the host              no number for any (PID namespace), another id, no ptrace & co (filter)
 *     the network                        no interface (network namespace), no sockets but Unix streams (filter)
 *     the host's kernel                  some 80 of its calls (filter), no capability, no namespace to get some in
 *     memory, processes, descriptors     cgroup, rlimits, sizes of its file systems
 *     staying when we are gone           death signal, PID namespace, cgroup
 *
 * The parent makes a plan (struct jail_plan), then a child by clone, which puts up the walls around itself and executes
 * the program (jail_child.c). In between the parent writes the child's id maps:
 *
 *     parent                                     child
 *     clone ───────────────────────────────────> waits
 *     id maps ── go ───────────────────────────> walls, root, sockets …
 *     <───────────────── report (what stands) ── then exec, which closes the channel
 *     <── end of channel: it runs     or  <───── report (the step that failed), and it ends
 *
 * All namespaces are asked for at once. Only if that fails they are tried one by one; those that are missing are then
 * reported, or refused where nothing makes up for them. The program becomes the first process of its PID namespace, so
 * the end of it is the end of all, which the kernel sees to.
 *
 * Invariants: (1) after a failed start nothing of the child is left. (2) a program runs with every needed wall or not
 * at all, unless the caller allows missing ones, and jail_has never claims one that does not stand. (3) the embedding
 * program sees no SIGCHLD of ours, and its wait() finds no child of ours (jail_guardian.c).
 *
 * Trust: the program is hostile from its first instruction; the host's kernel and /proc are believed.
 */
#include "engine/uml/jail.h"

#include "base/alloc.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/thread.h"
#include "engine/uml/jail_cgroup.h"
#include "engine/uml/jail_folder.h"
#include "engine/uml/jail_guardian.h"
#include "engine/uml/jail_namespaces.h"
#include "engine/uml/jail_private.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

const char *const jail_wall_names[JAIL_WALLS] = {
    [JAIL_USER_NS] = "user namespace",
    [JAIL_MOUNT_NS] = "mount namespace",
    [JAIL_PID_NS] = "PID namespace",
    [JAIL_NET_NS] = "network namespace",
    [JAIL_IPC_NS] = "IPC namespace",
    [JAIL_UTS_NS] = "UTS namespace",
    [JAIL_ROOT] = "root of its own",
    [JAIL_UNPRIVILEGED] = "unprivileged id",
    [JAIL_NO_NEW_PRIVS] = "no_new_privs",
    [JAIL_SECCOMP] = "seccomp filter",
    [JAIL_LANDLOCK] = "Landlock",
    [JAIL_RLIMITS] = "rlimits",
    [JAIL_CGROUP] = "cgroup",
};

/* Without one of these nothing else keeps the program from the host's files, processes, network or kernel. */
static const bool is_essential[JAIL_WALLS] = {
    [JAIL_MOUNT_NS] = true,     [JAIL_PID_NS] = true,       [JAIL_NET_NS] = true,  [JAIL_ROOT] = true,
    [JAIL_UNPRIVILEGED] = true, [JAIL_NO_NEW_PRIVS] = true, [JAIL_SECCOMP] = true,
};

static const char *const step_texts[JAIL_STEPS] = {
    [JAIL_STEP_GO] = "wait for its id maps",
    [JAIL_STEP_SIGNALS] = "reset its signals",
    [JAIL_STEP_DESCRIPTORS] = "keep its descriptors",
    [JAIL_STEP_NO_NEW_PRIVS] = "set no_new_privs",
    [JAIL_STEP_IDENTITY] = "take its id",
    [JAIL_STEP_ROOT] = "make a root of its own",
    [JAIL_STEP_FILES] = "make the files of its root",
    [JAIL_STEP_SOCKETS] = "listen on the devices' sockets",
    [JAIL_STEP_READ_ONLY] = "make its root read-only",
    [JAIL_STEP_RLIMITS] = "set its limits",
    [JAIL_STEP_LANDLOCK] = "restrict itself with Landlock",
    [JAIL_STEP_CAPABILITIES] = "drop its capabilities",
    [JAIL_STEP_PARENT] = "bind its life to ours",
    [JAIL_STEP_STANDARD] = "take its standard descriptors",
    [JAIL_STEP_SECCOMP] = "install its seccomp filter",
    [JAIL_STEP_EXEC] = "execute the kernel",
};

struct jail {
    struct jail_plan plan;
    unsigned long namespaces; /* CLONE_NEW* flags that it is made with */
    bool was_probed;          /* `namespaces` are those that this host grants */
    bool allows_missing_walls;
    struct jail_identity identity;
    int wall_errors[JAIL_WALLS];              /* positive; 0: it stands (after jail_start) */
    struct jail_cgroup *cgroup;               /* owned; NULL: none can be had */
    struct jail_folder *folder;               /* owned; NULL: it has a root of its own */
    _Atomic(struct jail_guardian *) guardian; /* owned; NULL before the program runs */
};

/* ---- preparing ---- */

static unsigned long all_namespaces(void)
{
    unsigned long all = 0;
    for (int wall = 0; wall < JAIL_WALLS; wall++)
        all |= jail_namespace_flag(wall);
    return all;
}

/* Who insists on the essential walls has a mount namespace or no jail, so where things are is known. Who does not must
 * ask first. */
static int choose_root(struct jail *jail, struct vial_error *err)
{
    jail->namespaces = all_namespaces();
    if (jail->allows_missing_walls) {
        jail->namespaces = jail_namespaces_probe(jail->wall_errors);
        jail->was_probed = true;
    }
    jail->plan.has_own_root = (jail->namespaces & jail_namespace_flag(JAIL_MOUNT_NS)) != 0;
    return jail->plan.has_own_root ? 0 : jail_folder_new(&jail->folder, err);
}

int jail_prepare(const struct jail_options *options, struct jail **ret_jail, struct vial_error *err)
{
    struct jail *jail = alloc_zero(sizeof(*jail));
    if (jail == NULL)
        return error_no_memory(err, VIAL_PHASE_START);
    jail->allows_missing_walls = options->allows_missing_walls;
    for (int wall = 0; wall < JAIL_WALLS; wall++)
        jail->plan.is_needed[wall] = is_essential[wall] && !options->allows_missing_walls;
    int result = jail_identity_choose(&jail->identity);
    if (result < 0)
        error_set_os(err, VIAL_PHASE_START, result, "it cannot be found out which ids there are");
    if (result == 0)
        result = choose_root(jail, err);
    if (result == 0)
        result = jail_plan_make(&jail->plan, options, jail_folder_path(jail->folder), err);
    if (result < 0) {
        jail_free(jail);
        return result;
    }
    *ret_jail = jail;
    return 0;
}

/* ---- starting ---- */

/* What became of one attempt. */
struct attempt {
    int clone_error; /* negative, or 0 */
    int guide_error; /* negative: what we do for the child failed */
    bool was_reported;
    struct jail_report report;
};

/* The pipe that the child reports to, or -errno: nobody else but the child has its other end (jail_child.c). */
static int receive_reports(const struct jail_guardian *guardian, int channel)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    char byte;
    struct iovec span = {&byte, sizeof(byte)};
    struct msghdr message = {
        .msg_iov = &span, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)};
    struct pollfd ready[] = {{.fd = channel, .events = POLLIN},
                             {.fd = jail_guardian_pidfd(guardian), .events = POLLIN}};
    while (poll(ready, array_length(ready), -1) < 0)
        if (errno != EINTR)
            return -errno;
    if ((ready[0].revents & POLLIN) == 0 || recvmsg(channel, &message, MSG_CMSG_CLOEXEC) != sizeof(byte) ||
        CMSG_FIRSTHDR(&message) == NULL)
        return -ESRCH;
    return *(const int *)(const void *)CMSG_DATA(CMSG_FIRSTHDR(&message));
}

/* Until the pipe ends: with the child, or with its exec. The last report counts. */
static void read_reports(int reports_fd, struct attempt *attempt)
{
    struct jail_report report;
    for (;;) {
        ssize_t got = read(reports_fd, &report, sizeof(report)); /* whole: it is less than PIPE_BUF */
        if (got < 0 && errno == EINTR)
            continue;
        if (got != sizeof(report))
            return;
        attempt->report = report;
        attempt->was_reported = true;
    }
}

/* What only the parent can do for the child: name its ids, give it what must be its own. */
static int guide_child(struct jail *jail, const struct jail_guardian *guardian, int channel)
{
    struct jail_go go = {0};
    uint32_t host_user = 0;
    pid_t pid = jail_guardian_child(guardian);
    bool has_user_namespace = (jail->namespaces & jail_namespace_flag(JAIL_USER_NS)) != 0;
    int result = jail_identity_give(&jail->identity, pid, has_user_namespace, &go, &host_user);
    if (result == 0 && jail->folder != NULL)
        result = jail_folder_give(jail->folder, host_user);
    if (result == 0 && jail->cgroup != NULL && !jail_guardian_is_in_cgroup(guardian))
        result = jail_cgroup_add(jail->cgroup, pid);
    if (result == 0 && send(channel, &go, sizeof(go), MSG_NOSIGNAL) < 0)
        result = -errno;
    return result;
}

/* One attempt with the namespaces that the jail has now. 0 when the program runs. */
static int attempt_start(struct jail *jail, struct attempt *ret_attempt)
{
    int ends[2];
    struct jail_guardian *guardian = NULL;
    *ret_attempt = (struct attempt){0};
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return ret_attempt->clone_error = -errno;
    auto_close int parent_end = ends[0], own_end = ends[1];
    jail->plan.parent_end = parent_end;
    jail->plan.own_end = own_end;
    int cgroup_fd = jail->cgroup != NULL ? jail_cgroup_fd(jail->cgroup) : -1;
    ret_attempt->clone_error = jail_guardian_new(&jail->plan, jail->namespaces, cgroup_fd, &guardian);
    if (ret_attempt->clone_error < 0)
        return ret_attempt->clone_error;
    own_end = fd_close(own_end); /* the child has its own copy */
    ret_attempt->guide_error = guide_child(jail, guardian, parent_end);
    auto_close int reports_fd = ret_attempt->guide_error == 0 ? receive_reports(guardian, parent_end) : -1;
    if (reports_fd >= 0)
        read_reports(reports_fd, ret_attempt);
    if (!ret_attempt->was_reported || ret_attempt->report.failed_step != JAIL_STEPS) {
        jail_guardian_free(guardian);
        return -EPERM;
    }
    jail->guardian = guardian;
    return 0;
}

/* Whether fewer namespaces could help: everything up to the first use of one. */
static bool is_about_namespaces(const struct attempt *attempt)
{
    if (attempt->clone_error < 0)
        return attempt->clone_error != -ENOMEM && attempt->clone_error != -EAGAIN;
    return attempt->guide_error < 0 || (attempt->was_reported && (attempt->report.failed_step == JAIL_STEP_IDENTITY ||
                                                                  attempt->report.failed_step == JAIL_STEP_ROOT));
}

/* ---- explaining a failure ---- */

static const char *step_remedy(enum jail_step step, int os_error)
{
    if (step == JAIL_STEP_EXEC && os_error == EACCES)
        return "let everybody execute the file (chmod a+rx), on a file system without noexec";
    if (step == JAIL_STEP_EXEC && (os_error == ENOEXEC || os_error == ENOENT))
        return "give a user-mode Linux kernel: a static executable for this machine (kernel/build uml makes one)";
    if (step == JAIL_STEP_SECCOMP)
        return "run a host kernel with CONFIG_SECCOMP_FILTER";
    if (step == JAIL_STEP_IDENTITY)
        return "run as an ordinary user, or as root with CAP_SETUID and CAP_SETGID";
    return "";
}

static int explain_step(const struct attempt *attempt, struct vial_error *err)
{
    enum jail_step step = attempt->report.failed_step;
    int os_error = attempt->report.os_error;
    int result = error_set_os(err, VIAL_PHASE_START, os_error, "the child in the jail could not %s", step_texts[step]);
    error_remedy(err, "%s", step_remedy(step, os_error));
    return result;
}

/* Files in /proc belong to root for a process that has changed its ids, until it says otherwise (proc(5)); and so would
 * those of our child, which we have to write to. */
static int explain_guide(int error, struct vial_error *err)
{
    int result = error_set_os(err, VIAL_PHASE_START, error, "the child in the jail cannot be given its ids");
    if (error == -EACCES && prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 1)
        error_remedy(err, "this program has changed its ids: let it call prctl(PR_SET_DUMPABLE, 1) afterwards");
    else if (error == -ENOENT)
        error_remedy(err, "mount /proc");
    return result;
}

static int explain(const struct attempt *attempt, struct vial_error *err)
{
    if (attempt->clone_error < 0)
        return error_set_os(err, VIAL_PHASE_START, attempt->clone_error, "a child for the jail cannot be made");
    if (attempt->guide_error < 0)
        return explain_guide(attempt->guide_error, err);
    if (attempt->was_reported)
        return explain_step(attempt, err);
    return error_set(err, VIAL_ERROR_OS, VIAL_PHASE_START, "the jail's child was killed while it made the jail");
}

/* After a probe: the first wall that cannot be done without. */
static int check_namespaces(const struct jail *jail, struct vial_error *err)
{
    for (int wall = 0; wall < JAIL_WALLS; wall++) {
        if (!jail->plan.is_needed[wall] || jail_namespace_flag(wall) == 0 || jail->wall_errors[wall] == 0)
            continue;
        int result = error_set_os(err, VIAL_PHASE_START, jail->wall_errors[wall],
                                  "the jail cannot be made: this user may not make or use a %s", jail_wall_names[wall]);
        error_remedy(err, "%s", jail_namespace_remedy(wall, jail->wall_errors[wall]));
        return result;
    }
    return 0;
}

/* A group may be there and yet take no process: its kind, or what is above it, is in the way (cgroups(7)). */
static bool is_about_cgroup(const struct attempt *attempt)
{
    return attempt->clone_error == -EOPNOTSUPP || attempt->clone_error == -EBUSY || attempt->clone_error == -EACCES ||
           attempt->clone_error == -ENODEV;
}

/* All namespaces first, which is one clone; where that fails, those that this host grants. */
static int start_with_fallback(struct jail *jail, struct vial_error *err)
{
    struct attempt attempt;
    unsigned long before = jail->namespaces;
    int result = attempt_start(jail, &attempt);
    if (result < 0 && jail->cgroup != NULL && is_about_cgroup(&attempt)) {
        jail->wall_errors[JAIL_CGROUP] = -attempt.clone_error;
        jail->cgroup = jail_cgroup_free(jail->cgroup);
        result = attempt_start(jail, &attempt);
    }
    if (result < 0 && !jail->was_probed && is_about_namespaces(&attempt)) {
        jail->namespaces = jail_namespaces_probe(jail->wall_errors);
        jail->was_probed = true;
        result = check_namespaces(jail, err);
        if (result < 0)
            return result;
        result = jail->namespaces == before ? -EPERM : attempt_start(jail, &attempt);
    }
    if (result < 0)
        return explain(&attempt, err);
    for (int wall = 0; wall < JAIL_WALLS; wall++)
        if (jail_namespace_flag(wall) == 0 && wall != JAIL_CGROUP)
            jail->wall_errors[wall] = attempt.report.wall_errors[wall];
    if (!jail->plan.has_own_root)
        jail->wall_errors[JAIL_ROOT] = jail->wall_errors[JAIL_MOUNT_NS];
    return 0;
}

int jail_start(struct jail *jail, const struct jail_program *program, struct vial_error *err)
{
    THREAD_DEFER_CANCEL();
    jail->plan.program = program;
    jail->wall_errors[JAIL_CGROUP] = -jail_cgroup_new(jail->plan.group_bytes, &jail->cgroup);
    int result = start_with_fallback(jail, err);
    jail->plan.program = NULL;
    if (result == 0)
        log_debug("jail.started", LOG_INT("pid", jail_pid(jail)));
    return result;
}

/* ---- asking ---- */

int jail_pidfd(const struct jail *jail)
{
    return jail->guardian != NULL ? jail_guardian_pidfd(jail->guardian) : -1;
}

int jail_end(const struct jail *jail, struct jail_end *ret_end)
{
    return jail->guardian != NULL ? jail_guardian_end(jail->guardian, ret_end) : -EAGAIN;
}

pid_t jail_pid(const struct jail *jail)
{
    return jail->guardian != NULL ? jail_guardian_child(jail->guardian) : -1;
}

bool jail_has(const struct jail *jail, enum jail_wall wall)
{
    return jail->guardian != NULL && jail->wall_errors[wall] == 0;
}

int jail_describe(const struct jail *jail, struct buffer *buffer)
{
    const char *between = "";
    for (int wall = 0; wall < JAIL_WALLS; wall++) {
        if (!jail_has(jail, wall))
            continue;
        buffer_format(buffer, "%s%s", between, jail_wall_names[wall]);
        between = ", ";
    }
    between = "; missing: ";
    for (int wall = 0; wall < JAIL_WALLS; wall++) {
        if (jail_has(jail, wall))
            continue;
        buffer_format(buffer, "%s%s (%s)", between, jail_wall_names[wall], strerrordesc_np(jail->wall_errors[wall]));
        between = ", ";
    }
    return buffer->error;
}

struct jail_path jail_memory_folder(const struct jail *jail)
{
    return jail_plan_path(&jail->plan, "/memory");
}

struct jail_path jail_state_folder(const struct jail *jail)
{
    return jail_plan_path(&jail->plan, "/run");
}

struct jail_path jail_initramfs_path(const struct jail *jail)
{
    return jail_plan_path(&jail->plan, "/initrd");
}

struct jail_path jail_socket_path(const struct jail *jail, size_t index)
{
    char path[32];
    snprintf(path, sizeof(path), "/socket/%zu", index);
    return jail_plan_path(&jail->plan, path);
}

/* ---- ending ---- */

void jail_kill(struct jail *jail)
{
    if (jail->guardian != NULL)
        jail_guardian_kill_child(jail->guardian);
}

struct jail *jail_free(struct jail *jail)
{
    if (jail == NULL)
        return NULL;
    jail->guardian = jail_guardian_free(jail->guardian);
    jail->cgroup = jail_cgroup_free(jail->cgroup);
    jail->folder = jail_folder_free(jail->folder);
    jail_plan_clear(&jail->plan);
    free(jail);
    return NULL;
}

// SPDX-License-Identifier: Apache-2.0
/* Who a program runs as: names looked up in the guest's own /etc/passwd and /etc/group.
 *
 *     ""            number 0, with what the files say about it
 *     USER          its group and all that have it as a member
 *     USER:GROUP    that group, and no other
 *
 * A name is looked up first, and then taken as a number, which needs no line in the files. The C library's own lookup
 * would ask a name service over a socket of the guest.
 *
 * The last answer is kept as long as neither file changes: most programs run as the same user, and on a shared folder
 * each file costs the host some requests.
 *
 * Invariants: (1) nothing here waits: what is no regular file, or longer than anybody's, is not read.
 *
 * Trust: the files belong to the guest. What they say is about its own users.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { most_file_bytes = 4 << 20 };

static FILE *open_list(const char *path)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return NULL;
    bool is_list = fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size <= most_file_bytes;
    FILE *list = is_list ? fdopen(fd, "r") : NULL;
    if (list == NULL)
        close(fd);
    return list;
}

/* All ones stand for "no change" in system calls. */
static bool to_number(const char *text, uint32_t *ret_number)
{
    uint64_t number = 0;
    if (*text == '\0')
        return false;
    for (; *text >= '0' && *text <= '9' && number < UINT32_MAX; text++)
        number = number * 10 + (uint64_t)(*text - '0');
    if (*text != '\0' || number >= UINT32_MAX)
        return false;
    *ret_number = (uint32_t)number;
    return true;
}

static void take_entry(const struct passwd *entry, struct user *user)
{
    user->uid = entry->pw_uid;
    user->gid = entry->pw_gid;
    snprintf(user->name, sizeof(user->name), "%s", entry->pw_name);
    snprintf(user->home, sizeof(user->home), "%s", entry->pw_dir);
    snprintf(user->shell, sizeof(user->shell), "%s", entry->pw_shell);
}

/* By name or, with NULL, by number: whether there is such a line. */
static bool find_entry(const char *name, uid_t uid, struct user *user)
{
    bool is_found = false;
    FILE *list = open_list("/etc/passwd");
    for (const struct passwd *entry; list != NULL && !is_found && (entry = fgetpwent(list)) != NULL;) {
        is_found = name != NULL ? strcmp(entry->pw_name, name) == 0 : entry->pw_uid == uid;
        if (is_found)
            take_entry(entry, user);
    }
    if (list != NULL)
        fclose(list);
    return is_found;
}

static bool has_member(const struct group *entry, const char *name)
{
    for (char *const *member = entry->gr_mem; *member != NULL; member++)
        if (strcmp(*member, name) == 0)
            return true;
    return false;
}

static void add_groups(struct user *user)
{
    FILE *list = open_list("/etc/group");
    user->groups[user->group_count++] = user->gid;
    for (const struct group *entry; list != NULL && (entry = fgetgrent(list)) != NULL;)
        if (user->group_count < sizeof(user->groups) / sizeof(user->groups[0]) && entry->gr_gid != user->gid &&
            has_member(entry, user->name))
            user->groups[user->group_count++] = entry->gr_gid;
    if (list != NULL)
        fclose(list);
}

static int find_group(const char *name, gid_t *ret_gid)
{
    bool is_found = false;
    FILE *list = open_list("/etc/group");
    for (const struct group *entry; list != NULL && !is_found && (entry = fgetgrent(list)) != NULL;)
        if ((is_found = strcmp(entry->gr_name, name) == 0))
            *ret_gid = entry->gr_gid;
    if (list != NULL)
        fclose(list);
    return is_found || to_number(name, ret_gid) ? 0 : -ENOENT;
}

/* What tells that a file has changed. */
struct version {
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec modified, changed;
};

static void read_versions(struct version versions[2])
{
    static const char *const paths[2] = {"/etc/passwd", "/etc/group"};
    struct stat status;
    memset(versions, 0, 2 * sizeof(versions[0]));
    for (int i = 0; i < 2; i++) {
        if (stat(paths[i], &status) < 0)
            continue;
        versions[i].device = status.st_dev;
        versions[i].inode = status.st_ino;
        versions[i].size = status.st_size;
        versions[i].modified = status.st_mtim;
        versions[i].changed = status.st_ctim;
    }
}

static int look_up(const char *text, struct user *ret_user)
{
    struct user user = {0};
    char name[AGENT_MOST_USER_BYTES + 1];
    snprintf(name, sizeof(name), "%s", text);
    char *group = strchr(name, ':');
    if (group != NULL)
        *group++ = '\0';
    bool has_entry = find_entry(name[0] != '\0' ? name : NULL, 0, &user);
    if (!has_entry && name[0] != '\0') {
        if (!to_number(name, &user.uid))
            return -ENOENT;
        has_entry = find_entry(NULL, user.uid, &user);
    }
    int result = group != NULL ? find_group(group, &user.gid) : 0;
    if (result == 0 && group == NULL && has_entry)
        add_groups(&user);
    else
        user.groups[user.group_count++] = user.gid;
    if (result == 0)
        *ret_user = user;
    return result;
}

int user_find(const char *text, struct user *ret_user)
{
    static struct {
        char text[AGENT_MOST_USER_BYTES + 1];
        struct version versions[2];
        struct user user;
        bool is_known;
    } last;
    struct version versions[2];
    read_versions(versions);
    if (last.is_known && strcmp(last.text, text) == 0 && memcmp(last.versions, versions, sizeof(versions)) == 0) {
        *ret_user = last.user;
        return 0;
    }
    int result = look_up(text, &last.user);
    last.is_known = result == 0;
    snprintf(last.text, sizeof(last.text), "%s", text);
    memcpy(last.versions, versions, sizeof(versions));
    if (result == 0)
        *ret_user = last.user;
    return result;
}

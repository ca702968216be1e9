// SPDX-License-Identifier: Apache-2.0
/* What the guest's init is to mount and which interfaces it is to set up, and what it means when it could not.
 *
 *     root          in the plan                                    what the kernel mounted before
 *     folder        nothing; PRESENT as a layer if throw_away      the folder
 *     host          PRESENT as a layer                             the host's root, without its secrets
 *     builtin       nothing                                        an empty root
 *     disk          the disk as the root                           an empty root, left behind
 *     layers        disks as layers, one of them as the upper      an empty root, left behind
 *
 * Where the kernel unpacked an initramfs instead, a folder is mounted by its tag. Below the root come mapped folders,
 * disks and memory.
 *
 * An interface gets what the configuration gives it. One of passt's that is given no addresses has what was settled
 * when passt was started (network.c). Networks that nothing is to be done about are left out.
 *
 * Invariants: (1) the order of the mounts is that of their roles, and the guest names a mount by its place in it; a
 * network by its place among those that are not left out.
 *
 * Trust: the configuration was validated. A failure is a hostile guest's word: its numbers are looked up in tables.
 */
#include "vmm/plan.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/path.h"
#include "base/text.h"
#include "vmm/network.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- making it ---- */

static const char *given(const char *text)
{
    return text != NULL ? text : "";
}

static const char *fstype_of(const char *text)
{
    return text != NULL && strcmp(text, "auto") != 0 ? text : "";
}

static void add(struct plan *plan, const struct init_mount *mount)
{
    plan->mounts[plan->count++] = *mount;
}

static void add_disk(struct plan *plan, enum init_mount_role role, const struct mount_config *mount, const char *target)
{
    const struct disk_config *disk = config_find_disk(plan->config, mount->disk);
    bool is_read_only = mount->read_only || role == INIT_ROLE_LOWER || (disk != NULL && disk->read_only);
    add(plan, &(struct init_mount){
                  .role = role,
                  .kind = INIT_MOUNT_DISK,
                  .flags = is_read_only ? INIT_MOUNT_READ_ONLY : 0u,
                  .source = mount->disk,
                  .target = target,
                  .fstype = fstype_of(mount->fstype),
                  .options = given(mount->options),
              });
}

/* A folder as the root, or as a layer of it. */
static void add_folder_root(struct plan *plan)
{
    const struct fs_config *root = &plan->config->root;
    bool is_present = plan->config->kernel.initramfs == NULL;
    if (is_present && !root->throw_away)
        return;
    add(plan, &(struct init_mount){
                  .role = root->throw_away ? INIT_ROLE_LOWER : INIT_ROLE_ROOT,
                  .kind = is_present ? INIT_MOUNT_PRESENT : INIT_MOUNT_VIRTIOFS,
                  .flags = !is_present && (root->read_only || root->throw_away) ? INIT_MOUNT_READ_ONLY : 0u,
                  .source = is_present ? "" : root->tag,
                  .target = "",
                  .fstype = "",
                  .options = !is_present && root->dax_window_mib > 0 ? CONFIG_DAX_OPTION : "",
              });
}

static void add_layers(struct plan *plan)
{
    const struct vial_vm_config *config = plan->config;
    for (size_t i = 0; i < config->root_lower.count; i++) {
        struct mount_config lower = {.disk = config->root_lower.items[i], .fstype = config->root_lower_fstype};
        add_disk(plan, INIT_ROLE_LOWER, &lower, "");
    }
    if (config->root_upper.disk != NULL)
        add_disk(plan, INIT_ROLE_UPPER, &config->root_upper, "");
}

static void add_root(struct plan *plan)
{
    switch (plan->config->root_kind) {
    case ROOT_NONE:
        break;
    case ROOT_FOLDER:
    case ROOT_BUILTIN:
    case ROOT_HOST:
        add_folder_root(plan);
        break;
    case ROOT_DISK:
        add_disk(plan, INIT_ROLE_ROOT, &plan->config->root_disk, "");
        break;
    case ROOT_LAYERS:
        add_layers(plan);
        break;
    }
}

/* Room in the list of texts was made before: a text's owner is the plan at once. */
static const char *own(struct plan *plan, char *text)
{
    plan->texts.items[plan->texts.count++] = text;
    return text;
}

static int own_target(struct plan *plan, const char *guest, const char **ret_target)
{
    char *normal = NULL;
    int result = path_normalize(guest, &normal);
    if (result == 0)
        *ret_target = own(plan, normal);
    return result;
}

static int add_mapped_dirs(struct plan *plan)
{
    int result = 0;
    for (size_t i = 0; i < plan->config->mapped_dir_count && result == 0; i++) {
        const struct mapped_dir_config *dir = &plan->config->mapped_dirs[i];
        struct init_mount mount = {
            .role = INIT_ROLE_PLACE,
            .kind = INIT_MOUNT_VIRTIOFS,
            .flags = INIT_MOUNT_NODEV | (dir->read_only ? INIT_MOUNT_READ_ONLY : 0u),
            .source = dir->tag,
            .fstype = "",
            .options = "",
        };
        result = own_target(plan, dir->guest, &mount.target);
        if (result == 0)
            add(plan, &mount);
    }
    return result;
}

static int add_disks(struct plan *plan)
{
    int result = 0;
    for (size_t i = 0; i < plan->config->mount_count && result == 0; i++) {
        const struct mount_config *mount = &plan->config->mounts[i];
        const char *target = NULL;
        result = own_target(plan, mount->guest, &target);
        if (result == 0)
            add_disk(plan, INIT_ROLE_PLACE, mount, target);
    }
    return result;
}

static int add_memory(struct plan *plan)
{
    int result = 0;
    for (size_t i = 0; i < plan->config->tmpfs_count && result == 0; i++) {
        const struct tmpfs_config *tmpfs = &plan->config->tmpfs[i];
        struct init_mount mount = {
            .role = INIT_ROLE_PLACE,
            .kind = INIT_MOUNT_TMPFS,
            .flags = INIT_MOUNT_NOSUID | INIT_MOUNT_NODEV,
            .source = "",
            .fstype = "",
        };
        char options[64];
        int length = snprintf(options, sizeof(options), "mode=%o", tmpfs->mode);
        if (tmpfs->size_mib > 0)
            snprintf(options + length, sizeof(options) - (size_t)length, ",size=%llum",
                     (unsigned long long)tmpfs->size_mib);
        char *copy = alloc_string(options);
        if (copy == NULL)
            return -ENOMEM;
        mount.options = own(plan, copy);
        result = own_target(plan, tmpfs->guest, &mount.target);
        if (result == 0)
            add(plan, &mount);
    }
    return result;
}

/* The words of a list, in memory of the plan. */
static int join(struct plan *plan, const struct string_list *list, const char **ret_words)
{
    auto_buffer struct buffer words = BUFFER_INIT(LIMIT_NET_WORDS_BYTES - 1);
    for (size_t i = 0; i < list->count; i++)
        buffer_format(&words, "%s%s", i > 0 ? " " : "", list->items[i]);
    char *text = buffer_steal(&words);
    if (text == NULL)
        return words.error < 0 ? words.error : -ENOMEM;
    *ret_words = own(plan, text);
    return 0;
}

static int join_lists(struct plan *plan, const struct net_config *net, struct init_network *network)
{
    int result = join(plan, &net->addresses, &network->addresses);
    if (result == 0)
        result = join(plan, &net->gateways, &network->gateways);
    return result == 0 ? join(plan, &net->nameservers, &network->nameservers) : result;
}

/* What passt gives where nothing else is said. */
static int add_passt(struct plan *plan, const struct net_config *net, struct init_network *network)
{
    const struct net_addresses *settled = &net->settled;
    struct string_list places = {.items = (char *[]){NULL, NULL}}, ways = {.items = (char *[]){NULL, NULL}};
    for (int i = 0; i < 2; i++)
        if (settled->address[i][0] != '\0' && (i == 0 || net_takes_ipv6(net))) {
            places.items[places.count++] = (char *)(uintptr_t)settled->address[i]; /* only read */
            ways.items[ways.count++] = (char *)(uintptr_t)settled->gateway[i];
        }
    int result = join(plan, &places, &network->addresses);
    if (result == 0)
        result = join(plan, &ways, &network->gateways);
    if (result == 0)
        result = join(plan, &net->nameservers, &network->nameservers);
    if (settled->forwarder != NULL)
        network->nameservers = settled->forwarder;
    return result;
}

static int add_networks(struct plan *plan)
{
    int result = 0;
    for (size_t i = 0; i < plan->config->net_count && result == 0; i++) {
        const struct net_config *net = &plan->config->net[i];
        struct init_network *network = &plan->networks[plan->network_count];
        if (!net_is_configured(net))
            continue;
        network->wants_dhcp = net->dhcp;
        memcpy(network->mac, net->mac, sizeof(network->mac));
        if (net->kind == VIAL_NET_PASST && !net->dhcp)
            result = add_passt(plan, net, network);
        else
            result = join_lists(plan, net, network);
        plan->network_count++;
    }
    return result;
}

int plan_make(struct plan *plan, const struct vial_vm_config *config, struct vial_error *err)
{
    enum { most_texts = 2, most_roots = 2, most_words = 3 };
    size_t places = config->mapped_dir_count + config->mount_count + config->tmpfs_count;
    *plan = (struct plan){
        .config = config,
        .mounts = alloc_zero((places + config->root_lower.count + most_roots) * sizeof(plan->mounts[0])),
        .networks = alloc_zero((config->net_count + 1) * sizeof(plan->networks[0])),
        .texts.items = alloc_zero(((places + 1) * most_texts + config->net_count * most_words) *
                                  sizeof(plan->texts.items[0])),
    };
    int result = plan->mounts != NULL && plan->networks != NULL && plan->texts.items != NULL ? 0 : -ENOMEM;
    if (result == 0) {
        add_root(plan);
        result = add_mapped_dirs(plan);
    }
    if (result == 0)
        result = add_disks(plan);
    if (result == 0)
        result = add_memory(plan);
    if (result == 0)
        result = add_networks(plan);
    if (result < 0) {
        plan_free(plan);
        return error_no_memory(err, VIAL_PHASE_START); /* paths were normalized when they were validated */
    }
    return 0;
}

void plan_free(struct plan *plan)
{
    for (size_t i = 0; i < plan->texts.count; i++)
        free(plan->texts.items[i]);
    free(plan->texts.items);
    free(plan->mounts);
    free(plan->networks);
    *plan = (struct plan)PLAN_EMPTY;
}

/* ---- what failed ---- */

static bool is_about_network(const struct init_answer *failure)
{
    return failure->stage == INIT_STAGE_INTERFACE || failure->stage == INIT_STAGE_LEASE;
}

bool plan_is_blamed(const struct init_answer *failure)
{
    return (failure->stage >= INIT_STAGE_SYSTEM && failure->stage <= INIT_STAGE_ROOT) || is_about_network(failure);
}

static const char *os_text(const struct init_answer *failure)
{
    const char *why = strerrordesc_np((int)failure->os_error);
    return why != NULL ? why : "an unknown error of the guest";
}

/* "the disk data at /data": short enough to leave room for the reason, and safe to show. */
enum { subject_bytes = 208, source_bytes = 40 };

static void name_mount(const struct init_mount *mount, char subject[subject_bytes])
{
    static const char *const things[] = {
        [INIT_MOUNT_DISK] = "the disk ",
        [INIT_MOUNT_VIRTIOFS] = "the folder",
        [INIT_MOUNT_TMPFS] = "memory",
        [INIT_MOUNT_PRESENT] = "what is there",
    };
    static const char *const roles[] = {
        [INIT_ROLE_ROOT] = " as the root",
        [INIT_ROLE_LOWER] = " as a layer of the root",
        [INIT_ROLE_UPPER] = " as the root's upper layer",
        [INIT_ROLE_PLACE] = " at ",
    };
    struct error_text target = error_short(mount->target);
    char safe[sizeof(target.text)];
    text_escape(safe, sizeof(safe), target.text, strlen(target.text), "");
    snprintf(subject, subject_bytes, "%s%.*s%s%s", things[mount->kind], source_bytes,
             mount->kind == INIT_MOUNT_DISK ? mount->source : "", roles[mount->role], safe);
}

static void explain_mount(const struct init_mount *mount, const struct init_answer *failure, char *text, size_t size)
{
    char subject[subject_bytes];
    const char *why = os_text(failure);
    bool is_disk = mount->kind == INIT_MOUNT_DISK, has_type = mount->fstype[0] != '\0';
    name_mount(mount, subject);
    if (failure->stage == INIT_STAGE_SOURCE)
        snprintf(text, size, "cannot mount %s: the guest has no such disk (%s)", subject, why);
    else if (failure->stage == INIT_STAGE_TARGET && failure->os_error == EROFS)
        snprintf(text, size, "cannot mount %s: there is no such folder, and the root is read-only", subject);
    else if (failure->stage == INIT_STAGE_TARGET)
        snprintf(text, size, "cannot mount %s: the folder cannot be made (%s)", subject, why);
    else if (is_disk && failure->os_error == EINVAL && !has_type)
        snprintf(text, size, "cannot mount %s: no file system is recognised on it", subject);
    else if (is_disk && failure->os_error == EINVAL)
        snprintf(text, size, "cannot mount %s: it holds no %s, or the options are wrong (%s)", subject, mount->fstype,
                 why);
    else if (is_disk && failure->os_error == ENODEV && has_type)
        snprintf(text, size, "cannot mount %s: the guest's kernel knows no file system %s", subject, mount->fstype);
    else
        snprintf(text, size, "cannot mount %s: %s", subject, why);
}

/* The network's place in the configuration; false for one that the guest was not told of. */
static bool find_network(const struct plan *plan, uint32_t number, size_t *ret_index)
{
    for (size_t i = 0; number < plan->network_count && i < plan->config->net_count; i++)
        if (net_is_configured(&plan->config->net[i]) && number-- == 0) {
            *ret_index = i;
            return true;
        }
    return false;
}

static void explain_network(const struct plan *plan, const struct init_answer *failure, char *text, size_t size)
{
    const char *why = os_text(failure);
    size_t index;
    if (find_network(plan, failure->mount, &index))
        snprintf(text, size, "net[%zu]: %s: %s", index,
                 failure->stage == INIT_STAGE_LEASE ? "nobody gives the guest an address by DHCP"
                                                    : "the guest's interface cannot be set up",
                 why);
    else if (failure->mount == INIT_NO_MOUNT && failure->stage == INIT_STAGE_INTERFACE && failure->os_error == EXDEV)
        snprintf(text, size,
                 "the name servers cannot be shown: /etc/resolv.conf is missing, and its folder is the host's");
    else if (failure->mount == INIT_NO_MOUNT && failure->stage == INIT_STAGE_INTERFACE)
        snprintf(text, size, "the name servers cannot be shown in /etc/resolv.conf: %s", why);
    else
        snprintf(text, size, "%s: %s", init_stage_name(failure->stage), why);
}

void plan_explain(const struct plan *plan, const struct init_answer *failure, char *text, size_t size)
{
    static const char *const wholes[] = {
        [INIT_STAGE_SYSTEM] = "/proc, /sys or /dev cannot be mounted in the guest's root",
        [INIT_STAGE_LAYERS] = "the layers of the root cannot be merged",
        [INIT_STAGE_ROOT] = "the root cannot be changed to what was mounted for it",
    };
    const char *whole = failure->stage < array_length(wholes) ? wholes[failure->stage] : NULL;
    if (is_about_network(failure))
        explain_network(plan, failure, text, size);
    else if (failure->mount < plan->count)
        explain_mount(&plan->mounts[failure->mount], failure, text, size);
    else
        snprintf(text, size, "%s: %s", whole != NULL ? whole : init_stage_name(failure->stage), os_text(failure));
}

// SPDX-License-Identifier: Apache-2.0
/* Tests of what the passthrough backend holds: nodes, descriptors, handles, memory; and of many threads. */
#include "test.h"

#include "base/alloc.h"
#include "device/fs/passthrough.h"
#include "fs_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* ---- budgets and faults ---- */

TEST(ten_thousand_nodes_fit_into_64_descriptors)
{
    enum { count = 10000, budget = 64 };
    static uint64_t nodes[count];
    char name[32], text[32], expected[32];
    CHECK_INT(begin_with((struct passthrough_options){.most_descriptors = budget}), 0);
    for (int i = 0; i < 10; i++) {
        snprintf(name, sizeof(name), "d%d", i);
        CHECK_INT(fs.ops.make_folder(fs.user, &fs_root, ROOT, name, 0755, &entry), 0);
    }
    int before = count_descriptors();
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "share/d%d/%d", i % 10, i);
        snprintf(text, sizeof(text), "%s/%d", strchr(name, '/') + 1, i);
        FILE *file = fopen(below(strchr(name, '/') + 1), "w");
        CHECK(file != NULL && fprintf(file, "%d", i) > 0 && fclose(file) == 0);
        CHECK_INT(fs_walk(strchr(name, '/') + 1, &entry), 0);
        nodes[i] = entry.node;
        CHECK(i % 500 != 0 || count_descriptors() <= before + budget + 2);
    }
    CHECK_INT(lookup(ROOT, "d0"), 0);
    CHECK_INT(fs.ops.rename(fs.user, &fs_root, ROOT, "d3", entry.node, "moved", 0), 0);
    CHECK_INT(lookup(entry.node, "moved"), 0);
    CHECK_INT(fs.ops.rename(fs.user, &fs_root, entry.node, "3", entry.node, "three", 0), 0);
    for (int i = 0; i < count; i++) {
        snprintf(expected, sizeof(expected), "%d", i);
        CHECK(fs_read_node(nodes[i], text, sizeof(text)) > 0);
        CHECK_TEXT(text, expected);
        CHECK(i % 500 != 0 || count_descriptors() <= before + budget + 2);
    }
    CHECK_INT(rename(below("d1/1"), below("d1/elsewhere")), 0); /* by the host: stale until it is looked up again */
    CHECK(fs_read_node(nodes[1], text, sizeof(text)) == -ESTALE);
    CHECK_INT(fs_walk("d1/elsewhere", &entry), 0);
    CHECK_INT(entry.node, nodes[1]);
    CHECK_INT(fs_read_node(nodes[1], text, sizeof(text)), 1);
    CHECK_INT(unlink(below("d2/2")), 0); /* replaced by the host: never another file under the old number */
    test_text_file("share/d2/2", "another");
    CHECK_INT(fs_read_node(nodes[2], text, sizeof(text)), -ESTALE);
    end();
}

TEST(a_deep_place_is_opened_again)
{
    enum { depth = 600 };
    static uint64_t nodes[depth];
    CHECK_INT(begin_with((struct passthrough_options){.most_descriptors = 2}), 0);
    char name[200];
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    uint64_t folder = ROOT;
    for (int i = 0; i < depth; i++) { /* 120000 bytes of path */
        CHECK_INT(fs.ops.make_folder(fs.user, &fs_root, folder, name, 0755, &entry), 0);
        folder = nodes[i] = entry.node;
    }
    CHECK_INT(fs.ops.attributes(fs.user, &fs_root, ROOT, NULL, &attributes), 0);
    CHECK_INT(fs.ops.attributes(fs.user, &fs_root, nodes[3], NULL, &attributes), 0);
    CHECK_INT(fs.ops.attributes(fs.user, &fs_root, nodes[4], NULL, &attributes), 0);
    CHECK_INT(fs.ops.attributes(fs.user, &fs_root, nodes[depth - 1], NULL, &attributes), 0);
    for (int i = depth - 1; i >= 0; i--)
        CHECK_INT(fs.ops.remove_folder(fs.user, &fs_root, i > 0 ? nodes[i - 1] : ROOT, name), 0);
    end();
}

TEST(forgotten_nodes_are_gone)
{
    CHECK_INT(begin(), 0);
    test_text_file("share/d/a", "");
    CHECK_INT(fs_walk("d/a", &entry), 0);
    uint64_t node = entry.node;
    CHECK_INT(fs_walk("d/a", &entry), 0);
    CHECK_INT(entry.node, node);
    int before = count_descriptors();
    fs.ops.forget(fs.user, node, 1);
    CHECK_INT(fs.ops.attributes(fs.user, &fs_root, node, NULL, &attributes), 0);
    fs.ops.forget(fs.user, node, UINT64_MAX);
    fs.ops.forget(fs.user, node, 1);
    fs.ops.forget(fs.user, ROOT, UINT64_MAX);
    CHECK_INT(fs.ops.attributes(fs.user, &fs_root, node, NULL, &attributes), -ESTALE);
    CHECK_INT(fs.ops.attributes(fs.user, &fs_root, ROOT, NULL, &attributes), 0);
    CHECK_INT(count_descriptors(), before - 2); /* the folder, which nobody needed but its child, went as well */
    CHECK_INT(fs_walk("d/a", &entry), 0);
    CHECK(entry.node > node); /* no number is used twice */
    end();
}

TEST(handles_leave_the_process_some_descriptors)
{
    struct rlimit before, few = {200, 200};
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &before), 0);
    few.rlim_max = before.rlim_max;
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &few), 0); /* which is read when the table is made */
    CHECK_INT(begin(), 0);
    test_text_file("share/a", "");
    CHECK_INT(lookup(ROOT, "a"), 0);
    uint64_t handle = 0;
    int result = 0, count = 0;
    while (result == 0 && count < 1000) {
        result = fs.ops.open(fs.user, &fs_root, entry.node, O_RDONLY, &handle);
        count += result == 0;
    }
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &before), 0);
    CHECK_INT(result, -ENFILE);
    CHECK_INT(count, 100);
    end();
}

TEST(no_memory_is_an_error_and_no_leak)
{
    share = test_make_folder("share");
    test_text_file("share/d/a", "text");
    FOR_EACH_FAULT
    {
        char text[16];
        struct passthrough_options options = {.path = share, .has_owner = !passthrough_is_privileged()};
        int result = passthrough_new(&options, &fs);
        CHECK(result == 0 || (result == -ENOMEM && fault_was_hit()));
        if (result < 0)
            continue;
        uint64_t handle = 0;
        result = (int)fs_read_file("d/a", text, sizeof(text));
        CHECK(result == 4 || (result == -ENOMEM && fault_was_hit()));
        result = create(ROOT, "new", 0644, O_RDWR, &handle);
        CHECK(result == 0 || (result == -ENOMEM && fault_was_hit()));
        result = fs.ops.rename(fs.user, &fs_root, ROOT, "new", ROOT, "newer", 0);
        CHECK(result == 0 || result == -ENOENT);
        const char *listed = fs_list_text(ROOT);
        CHECK(strncmp(listed, "d ", 2) == 0 || fault_was_hit());
        result = (int)fs.ops.list_xattr(fs.user, &fs_root, ROOT, text, sizeof(text));
        CHECK(result == 0 || (result == -ENOMEM && fault_was_hit()));
        end();
    }
}

TEST(places_never_close_a_circle)
{
    struct host_nodes nodes;
    uint64_t ids[2] = {0, 0}, again = 0;
    const struct host_identity identities[2] = {{.device = 1, .inode = 10}, {.device = 1, .inode = 11}};
    CHECK_INT(host_nodes_init(&nodes, open(test_folder(), O_PATH | O_CLOEXEC), 0, false), 0);
    struct host_node *folder = nodes.root;
    for (size_t i = 0; i < array_length(ids); i++) { /* /0/1 */
        int fd = open(test_folder(), O_PATH | O_CLOEXEC);
        CHECK_INT(host_nodes_found(&nodes, folder, i == 0 ? "0" : "1", fd, &identities[i], &ids[i]), 0);
        auto_pin struct host_pin pin = HOST_PIN_NONE;
        CHECK_INT(host_nodes_pin(&nodes, ids[i], &pin), 0);
        folder = pin.node;
    }
    /* While the host made it /1/0, somebody saw 0 in 1, but nobody yet that 1 is in the root. */
    CHECK_INT(host_nodes_found(&nodes, folder, "0", -1, &identities[0], &again), 0);
    CHECK_INT(again, ids[0]);
    CHECK_INT(nodes.count, 3);
    {
        auto_pin struct host_pin pin = HOST_PIN_NONE; /* a folder that the host mounted in itself: no children, yet */
        CHECK_INT(host_nodes_pin(&nodes, ids[1], &pin), 0);
        CHECK_INT(host_nodes_found(&nodes, pin.node, "self", -1, &identities[1], &again), 0);
        CHECK_INT(again, ids[1]);
    }
    host_nodes_forget(&nodes, ids[0], 2);
    host_nodes_forget(&nodes, ids[1], 2);
    CHECK_INT(nodes.count, 1); /* a circle would hold itself */
    host_nodes_end(&nodes);
}

TEST(a_number_used_again_for_another_type_is_another_node)
{
    struct host_nodes nodes;
    uint64_t file = 0, pipe_node = 0;
    struct host_identity identity = {.device = 1, .inode = 10, .type = S_IFREG}; /* born who knows when */
    CHECK_INT(host_nodes_init(&nodes, open(test_folder(), O_PATH | O_CLOEXEC), 0, false), 0);
    int fd = open(test_folder(), O_PATH | O_CLOEXEC);
    CHECK_INT(host_nodes_found(&nodes, nodes.root, "a", fd, &identity, &file), 0);
    CHECK(host_nodes_shed(&nodes));
    identity.type = S_IFIFO;
    fd = open(test_folder(), O_PATH | O_CLOEXEC);
    CHECK_INT(host_nodes_found(&nodes, nodes.root, "a", fd, &identity, &pipe_node), 0);
    CHECK(pipe_node != file);
    host_nodes_end(&nodes);
}

TEST(what_a_node_says_does_not_open_a_fifo)
{
    CHECK_INT(begin(), 0);
    struct passthrough *passthrough = fs.user;
    const struct host_identity lie = {.device = 1, .inode = 10, .type = S_IFREG};
    uint64_t node = 0, handle = 0;
    int map_fd = -1;
    CHECK_INT(mkfifo(below("pipe"), 0600), 0);
    int fd = open(below("pipe"), O_PATH | O_CLOEXEC);
    CHECK_INT(host_nodes_found(&passthrough->nodes, passthrough->nodes.root, "pipe", fd, &lie, &node), 0);
    CHECK_INT(fs.ops.open(fs.user, &fs_root, node, O_RDWR, &handle), -ENXIO); /* O_RDONLY would wait for a writer */
    CHECK_INT(fs.ops.map(fs.user, &fs_root, node, true, &map_fd), -ENXIO);
    end();
}

static double cpu_seconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

TEST(depth_costs_nothing)
{
    enum { tenth = 3000 };
    static uint64_t ids[10 * tenth];
    struct host_nodes nodes;
    double first = 0, last = 0, begun = cpu_seconds();
    CHECK_INT(host_nodes_init(&nodes, open(test_folder(), O_PATH | O_CLOEXEC), 0, false), 0);
    struct host_pin folder = HOST_PIN_NONE;
    for (int i = 0; i < 10 * tenth; i++) {
        struct host_identity identity = {.device = 1, .inode = (uint64_t)i + 1, .type = S_IFDIR};
        struct host_node *parent = i > 0 ? folder.node : nodes.root;
        int fd = open("/", O_PATH | O_CLOEXEC);
        CHECK_INT(host_nodes_found(&nodes, parent, "d", fd, &identity, &ids[i]), 0);
        host_pin_drop(&folder);
        CHECK_INT(host_nodes_pin(&nodes, ids[i], &folder), 0);
        first = i == tenth ? cpu_seconds() - begun : first;
        begun = i == 9 * tenth ? cpu_seconds() : begun;
    }
    last = cpu_seconds() - begun;
    host_pin_drop(&folder);
    for (int i = 10 * tenth - 1; i >= 0; i--)
        host_nodes_forget(&nodes, ids[i], 1);
    CHECK_INT(nodes.count, 1);
    host_nodes_end(&nodes);
    CHECK(last < 5 * first); /* a walk up for each: 20 times and more */
}

/* ---- many threads ---- */

enum { threads = 8, rounds = 300 };
static _Atomic int failures;

static void *hammer(void *user)
{
    unsigned seed = *(unsigned *)user;
    char name[16], text[32];
    for (int i = 0; i < rounds; i++) {
        struct vial_fs_entry mine;
        uint64_t handle = 0;
        snprintf(name, sizeof(name), "f%d", rand_r(&seed) % 6);
        int result = fs.ops.create(fs.user, &fs_root, ROOT, name, 0644, O_RDWR, &mine, &handle);
        if (result == 0) {
            struct iovec part = {text, sizeof(text)};
            struct vial_fs_attributes found;
            failures += fs.ops.write(fs.user, mine.node, handle, &part, 1, 0, 0) != sizeof(text);
            failures += fs.ops.attributes(fs.user, &fs_root, mine.node, &handle, &found) != 0;
            failures += fs.ops.close(fs.user, mine.node, handle) != 0;
            fs.ops.forget(fs.user, mine.node, 1);
        } else {
            failures += result != -ENOENT && result != -ESTALE;
        }
        struct vial_fs_entry folder;
        result = fs.ops.lookup(fs.user, &fs_root, ROOT, "d", &folder);
        failures += result != 0;
        snprintf(text, sizeof(text), "g%d", rand_r(&seed) % 6);
        (void)fs.ops.rename(fs.user, &fs_root, ROOT, name, folder.node, text, 0);
        (void)fs.ops.rename(fs.user, &fs_root, folder.node, text, ROOT, name, 0);
        if (i % 3 == 0)
            (void)fs.ops.unlink(fs.user, &fs_root, ROOT, name);
        fs.ops.forget(fs.user, folder.node, 1);
    }
    return NULL;
}

TEST(eight_threads_at_once)
{
    CHECK_INT(begin_with((struct passthrough_options){.most_descriptors = 3}), 0);
    CHECK_INT(mkdir(below("d"), 0755), 0);
    pthread_t thread[threads];
    unsigned seeds[threads];
    failures = 0;
    for (unsigned i = 0; i < threads; i++) {
        seeds[i] = i;
        CHECK_INT(pthread_create(&thread[i], NULL, hammer, &seeds[i]), 0);
    }
    for (unsigned i = 0; i < threads; i++)
        pthread_join(thread[i], NULL);
    CHECK_INT(failures, 0);
    end();
}

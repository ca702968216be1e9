// SPDX-License-Identifier: Apache-2.0
/* The books of the file server: which nodes and handles a guest has, and which files are kept open for it. */
#include "test.h"

#include "base/limits.h"
#include "device/fs/handles.h"
#include "device/fs/kept.h"
#include "device/fs/known.h"
#include "device/fs/request.h"

#include <errno.h>

static struct known *known;
static struct handles *handles;
static uint64_t owed;

static void begin(void)
{
    if (known_new(&known) < 0 || handles_new(&handles) < 0)
        abort();
}

static void end(void)
{
    known = known_free(known);
    handles = handles_free(handles);
}

TEST(a_node_is_known_from_its_first_lookup_to_its_last)
{
    begin();
    CHECK(!known_pin(known, 7) && !known_pin(known, 0));
    CHECK_INT(known_add(known, 7, false, &owed), 0);
    CHECK_INT(known_add(known, 7, false, &owed), 0);
    CHECK_INT(owed, 0);
    CHECK(known_pin(known, 7));
    CHECK_INT(known_unpin(known, 7), 0);
    CHECK_INT(known_forget(known, 7, 1), 1);
    CHECK_INT(known_forget(known, 7, 100), 1); /* no more than there is */
    CHECK_INT(known_forget(known, 7, 1), 0);
    CHECK(!known_pin(known, 7));
    CHECK_INT(known_count(known), 0);
    end();
}

TEST(a_pinned_node_is_forgotten_at_its_last_pin)
{
    begin();
    CHECK_INT(known_add(known, 7, true, &owed), 0);
    known_pin_again(known, 7);
    CHECK_INT(known_forget(known, 7, 1), 0);
    CHECK(!known_pin(known, 7)); /* hidden at once */
    CHECK_INT(known_forget(known, 7, 1), 0);
    CHECK_INT(known_unpin(known, 7), 0);
    CHECK_INT(known_unpin(known, 7), 1);
    CHECK_INT(known_count(known), 0);
    end();
}

TEST(a_node_can_come_back_while_it_goes)
{
    begin();
    CHECK_INT(known_add(known, 7, true, &owed), 0);
    CHECK_INT(known_add(known, 7, false, &owed), 0);
    CHECK_INT(known_forget(known, 7, 2), 0);
    CHECK_INT(known_add(known, 7, false, &owed), 0);
    CHECK_INT(owed, 2); /* the former life's */
    CHECK(known_pin(known, 7));
    CHECK_INT(known_unpin(known, 7), 0);
    CHECK_INT(known_unpin(known, 7), 0);
    CHECK_INT(known_forget(known, 7, 2), 1);
    end();
}

TEST(the_root_stays)
{
    begin();
    CHECK(known_pin(known, 1));
    CHECK_INT(known_forget(known, 1, 5), 0);
    CHECK_INT(known_add(known, 1, false, &owed), 0);
    CHECK_INT(known_forget(known, 1, 5), 1);
    CHECK_INT(known_unpin(known, 1), 0);
    CHECK(known_pin(known, 1));
    end();
}

/* Against a plain array, with numbers that collide often. */
TEST(the_table_keeps_what_it_was_given)
{
    enum { numbers = 3000, rounds = 200000 };
    static uint32_t held[numbers];
    uint32_t random = 1;
    begin();
    memset(held, 0, sizeof(held));
    for (int i = 0; i < rounds; i++) {
        random = random * 1664525 + 1013904223;
        uint32_t number = random >> 8 & 0xffff;
        number = number % numbers;
        uint64_t node = 2 + ((uint64_t)number << 20);
        if ((random >> 30) != 0 && held[number] == 0) {
            CHECK_INT(known_add(known, node, false, &owed), 0);
            held[number]++;
        } else {
            CHECK_INT(known_forget(known, node, 1), held[number] > 0);
            held[number] -= held[number] > 0;
        }
    }
    size_t count = 0, cursor = 0, found = 0;
    uint64_t node, lookups;
    for (uint32_t i = 0; i < numbers; i++) {
        count += held[i] > 0;
        CHECK_INT(known_pin(known, 2 + ((uint64_t)i << 20)), held[i] > 0);
        if (held[i] > 0)
            known_unpin(known, 2 + ((uint64_t)i << 20));
    }
    CHECK_INT(known_count(known), count);
    while (known_next(known, &cursor, &node, &lookups))
        found++;
    CHECK_INT(found, count);
    known_reset(known);
    CHECK_INT(known_count(known), 0);
    CHECK(known_pin(known, 1));
    end();
}

static uint64_t forgotten_node, forgotten_lookups;

static void note_forget(void *user, uint64_t node, uint64_t lookups)
{
    (void)user;
    forgotten_node = node;
    forgotten_lookups += lookups;
}

TEST(there_is_an_end_to_nodes)
{
    begin();
    for (uint64_t i = 0; i < LIMIT_FS_KNOWN_NODES; i++)
        CHECK_INT(known_add(known, 2 + i, false, &owed), 0);
    CHECK_INT(known_add(known, 1, false, &owed), 0); /* the root is always there */
    CHECK_INT(known_add(known, 2 + LIMIT_FS_KNOWN_NODES, false, &owed), -ENFILE);
    CHECK_INT(known_add(known, 2, false, &owed), 0);
    /* An entry that does not get into the books is forgotten in the backend, and so is one that is none. */
    struct fs_server server = {.known = known, .backend = {.ops = {.forget = note_forget}}};
    struct vial_fs_entry entry = {.node = 2 + LIMIT_FS_KNOWN_NODES};
    struct fuse_entry_out out;
    forgotten_node = forgotten_lookups = 0;
    CHECK_INT(entry_tell(&server, &entry, false, &out), -ENFILE);
    CHECK(forgotten_node == entry.node && forgotten_lookups == 1);
    CHECK_INT(entry_tell(&server, &(struct vial_fs_entry){.node = 0}, false, &out), -EIO);
    CHECK_INT(known_forget(known, 3, 1), 1);
    CHECK_INT(entry_tell(&server, &entry, false, &out), 0);
    CHECK(out.nodeid == entry.node && forgotten_lookups == 1);
    CHECK_INT(known_count(known), LIMIT_FS_KNOWN_NODES);
    end();
}

TEST(contents_are_compared_by_stamp)
{
    begin();
    CHECK(!known_restamp(known, 7, 4)); /* not known */
    known_add(known, 7, false, &owed);
    CHECK(!known_restamp(known, 7, 4));
    CHECK(known_restamp(known, 7, 4));
    CHECK(!known_restamp(known, 7, 8));
    CHECK(!known_restamp(known, 8, 0) && !known_restamp(known, 7, 0));
    end();
}

static uint64_t open_handle(enum handle_kind kind, uint64_t node, uint64_t handle)
{
    uint64_t number = UINT64_MAX;
    if (handles_reserve(handles, &number) == 0)
        handles_fill(handles, number, &(struct handle){.kind = kind, .node = node, .handle = handle});
    return number;
}

TEST(a_handle_belongs_to_its_node_and_kind)
{
    struct handle handle;
    begin();
    uint64_t number = open_handle(HANDLE_FILE, 7, 70);
    CHECK_INT(handles_pin(handles, number, HANDLE_FILE, 7, &handle), 0);
    CHECK_INT(handle.handle, 70);
    CHECK(!handles_unpin(handles, number));
    CHECK_INT(handles_pin(handles, number, HANDLE_FOLDER, 7, &handle), -EBADF);
    CHECK_INT(handles_pin(handles, number, HANDLE_FILE, 8, &handle), -EBADF);
    CHECK_INT(handles_pin(handles, number + 1, HANDLE_FILE, 7, &handle), -EBADF);
    CHECK_INT(handles_pin(handles, number + (UINT64_C(1) << 32), HANDLE_FILE, 7, &handle), -EBADF);
    CHECK_INT(handles_pin(handles, UINT64_MAX, HANDLE_FILE, 7, &handle), -EBADF);
    end();
}

TEST(a_released_handle_closes_at_its_last_pin)
{
    struct handle handle;
    begin();
    uint64_t number = open_handle(HANDLE_FILE, 7, 70);
    CHECK_INT(handles_pin(handles, number, HANDLE_FILE, 7, &handle), 0);
    CHECK_INT(handles_pin(handles, number, HANDLE_FILE, 7, &handle), 0);
    CHECK_INT(handles_release(handles, number), 0);
    CHECK_INT(handles_release(handles, number), -EBADF);
    CHECK_INT(handles_pin(handles, number, HANDLE_FILE, 7, &handle), -EBADF);
    CHECK(!handles_unpin(handles, number));
    CHECK_INT(handles_count(handles), 1);
    CHECK(handles_unpin(handles, number));
    CHECK_INT(handles_count(handles), 0);
    uint64_t next = open_handle(HANDLE_FILE, 7, 71);
    CHECK((uint32_t)next == (uint32_t)number && next != number);
    CHECK_INT(handles_pin(handles, number, HANDLE_FILE, 7, &handle), -EBADF);
    end();
}

TEST(a_reserved_handle_means_nothing_yet)
{
    struct handle handle;
    uint64_t number = 0;
    begin();
    CHECK_INT(handles_reserve(handles, &number), 0);
    CHECK_INT(handles_pin(handles, number, 0, 0, &handle), -EBADF);
    handles_cancel(handles, number);
    CHECK_INT(handles_count(handles), 0);
    end();
}

TEST(there_is_an_end_to_handles)
{
    uint64_t number = 0;
    begin();
    for (uint64_t i = 0; i < LIMIT_FS_OPEN_HANDLES; i++)
        CHECK(open_handle(HANDLE_FILE, 7, i) != UINT64_MAX);
    CHECK_INT(handles_reserve(handles, &number), -ENFILE);
    struct handle handle;
    size_t cursor = 0, found = 0;
    while (handles_next(handles, &cursor, &handle))
        found++;
    CHECK_INT(found, LIMIT_FS_OPEN_HANDLES);
    handles_reset(handles);
    CHECK_INT(handles_count(handles), 0);
    CHECK_INT(handles_reserve(handles, &number), 0);
    CHECK(number >> 32 == 1);
    handles_cancel(handles, number);
    end();
}

TEST(a_kept_file_is_found_by_its_node)
{
    struct kept *kept = NULL;
    struct kept_file file, again, closed;
    CHECK_INT(kept_new(2, &kept), 0);
    CHECK(!kept_pin(kept, 7, &file));
    CHECK(!kept_take(kept, &closed) && !kept_drop(kept, 7, &closed) && !kept_drop(kept, 0, &closed));
    CHECK(!kept_add(kept, 7, 70, &file, &closed));
    CHECK(file.node == 7 && file.handle == 70);
    CHECK(kept_add(kept, 7, 71, &again, &closed)); /* by somebody slower */
    CHECK(again.handle == 70 && closed.node == 7 && closed.handle == 71);
    CHECK(!kept_unpin(kept, &again));
    CHECK(!kept_take(kept, &closed)); /* in use */
    CHECK(!kept_unpin(kept, &file));
    CHECK(kept_pin(kept, 7, &file) && file.handle == 70);
    CHECK(!kept_unpin(kept, &file));
    CHECK(kept_take(kept, &closed) && closed.node == 7 && closed.handle == 70);
    CHECK(!kept_pin(kept, 7, &file) && !kept_take(kept, &closed));
    kept_free(kept);
    CHECK(kept_free(NULL) == NULL);
}

TEST(a_kept_file_that_is_dropped_closes_at_its_last_pin)
{
    struct kept *kept = NULL;
    struct kept_file first, second, third, closed;
    CHECK_INT(kept_new(2, &kept), 0);
    CHECK(!kept_add(kept, 7, 70, &first, &closed));
    CHECK(kept_pin(kept, 7, &second));
    CHECK(!kept_drop(kept, 7, &closed) && !kept_drop(kept, 7, &closed));
    CHECK(!kept_pin(kept, 7, &third));
    CHECK(!kept_add(kept, 7, 71, &third, &closed)); /* its node has another one now */
    CHECK(third.handle == 71);
    CHECK(!kept_unpin(kept, &first));
    CHECK(kept_unpin(kept, &second));
    CHECK(!kept_unpin(kept, &third));
    CHECK(kept_drop(kept, 7, &closed) && closed.handle == 71);
    CHECK(!kept_take(kept, &closed));
    kept_free(kept);
}

TEST(the_kept_file_that_was_not_used_for_longest_goes)
{
    struct kept *kept = NULL;
    struct kept_file files[4], closed;
    CHECK_INT(kept_new(2, &kept), 0);
    CHECK(!kept_add(kept, 1, 10, &files[0], &closed) && !kept_add(kept, 2, 20, &files[1], &closed));
    CHECK(!kept_add(kept, 3, 30, &files[2], &closed)); /* all are in use: it is for once */
    CHECK(files[2].node == 3 && files[2].handle == 30 && !kept_pin(kept, 3, &files[3]));
    CHECK(kept_unpin(kept, &files[2]));
    CHECK(!kept_unpin(kept, &files[0]) && !kept_unpin(kept, &files[1]));
    CHECK(kept_pin(kept, 1, &files[0]) && !kept_unpin(kept, &files[0]));
    CHECK(kept_add(kept, 3, 30, &files[2], &closed));
    CHECK(closed.node == 2 && closed.handle == 20);
    CHECK(kept_pin(kept, 1, &files[0]) && !kept_pin(kept, 2, &files[1]));
    kept_free(kept);
}

TEST(books_survive_no_memory)
{
    FOR_EACH_FAULT
    {
        known = NULL;
        handles = NULL;
        int result = known_new(&known);
        if (result == 0)
            result = handles_new(&handles);
        for (uint64_t i = 0; i < 100 && result == 0; i++) {
            size_t before = known_count(known);
            result = known_add(known, 2 + i, false, &owed);
            CHECK_INT(known_count(known), before + (result == 0));
        }
        uint64_t number;
        for (uint64_t i = 0; i < 10 && result == 0; i++)
            result = handles_reserve(handles, &number);
        CHECK_INT(result, fault_was_hit() ? -ENOMEM : 0);
        end();
    }
}

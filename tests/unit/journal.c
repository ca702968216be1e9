// SPDX-License-Identifier: Apache-2.0
/* Tests of sandbox/journal: records, characters in pieces, rotation, and disks without room. */
#include "test.h"

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/fd.h"
#include "sandbox/journal.h"
#include "sandbox/journal_record.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_folder(void)
{
    return open(test_folder(), O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static char *read_log(const char *name)
{
    struct buffer text = BUFFER_INIT(16 << 20);
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", test_folder(), name);
    if (fd_read_file(path, &text) < 0)
        return NULL;
    return buffer_steal(&text);
}

static long long size_of(const char *name)
{
    struct stat status;
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", test_folder(), name);
    return stat(path, &status) == 0 ? (long long)status.st_size : -1;
}

TEST(a_program_s_output_is_json)
{
    auto_close int folder = open_folder();
    struct journal *journal = NULL;
    CHECK_INT(journal_new(folder, "exec.log", JOURNAL_JSON, 1 << 20, &journal), 0);
    journal_add_output(journal, 12, "out", "a \"b\"\\\n\t\x1b", 9);
    journal_add_output(journal, 13, "err", "caf\xc3\xa9", 5);
    journal_add_output(journal, 14, "tty", "\xff\xfe", 2);
    journal_add_output(journal, 15, "out", "a\0b", 3);
    journal_free(journal);
    auto_free char *text = read_log("exec.log");
    CHECK_TEXT(text, "{\"t\":12,\"s\":\"out\",\"text\":\"a \\\"b\\\"\\\\\\n\\u0009\\u001b\"}\n"
                     "{\"t\":13,\"s\":\"err\",\"text\":\"caf\xc3\xa9\"}\n"
                     "{\"t\":14,\"s\":\"tty\",\"base64\":\"//4=\"}\n"
                     "{\"t\":15,\"s\":\"out\",\"base64\":\"YQBi\"}\n");
}

TEST(characters_in_pieces_are_put_together)
{
    static const char snowman[] = "\xe2\x98\x83";
    auto_close int folder = open_folder();
    struct journal *journal = NULL;
    CHECK_INT(journal_new(folder, "exec.log", JOURNAL_JSON, 1 << 20, &journal), 0);
    for (size_t i = 0; i < 3; i++)
        journal_add_output(journal, i, "out", snowman + i, 1);
    journal_add_output(journal, 4, "out", "x\xe2\x98", 3); /* its end never comes */
    journal_add_output(journal, 5, "err", "\x83", 1);      /* that of another stream is not its */
    journal_add_output(journal, 6, "out", "y", 1);
    journal_add_output(journal, 7, "out", "\xf0\x9f", 2);
    journal_free(journal);
    auto_free char *text = read_log("exec.log");
    CHECK(strstr(text, "{\"t\":2,\"s\":\"out\",\"text\":\"\xe2\x98\x83\"}\n") == text);
    CHECK(strstr(text, "{\"t\":4,\"s\":\"out\",\"text\":\"x\"}\n") != NULL);
    CHECK(strstr(text, "{\"t\":5,\"s\":\"err\",\"base64\":\"gw==\"}\n") != NULL);
    CHECK(strstr(text, "{\"t\":6,\"s\":\"out\",\"base64\":\"4pg=\"}\n{\"t\":6,\"s\":\"out\",\"text\":\"y\"}\n") !=
          NULL);
    CHECK(strstr(text, "\"base64\":\"8J8=\"}\n") != NULL);
}

/* Whatever is called text is taken by a strict reader, and nothing of it is lost: all triples of odd bytes. */
TEST(whatever_comes_is_json_and_comes_back)
{
    static const unsigned char odd[] = {0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc2, 0xdf,
                                        0xe0, 0xe1, 0xed, 0xef, 0xf0, 0xf1, 0xf4, 0xf5, 0xff, '"',  '\\', '\n'};
    enum { count = sizeof(odd) };
    for (size_t i = 0; i < count * count * count; i++) {
        char bytes[3] = {(char)odd[i % count], (char)odd[i / count % count], (char)odd[i / count / count]};
        bool is_text = false;
        size_t decided = journal_judge_text(bytes, sizeof(bytes), &is_text);
        CHECK(decided <= 3);
        if (!is_text || decided == 0)
            continue;
        struct buffer record = BUFFER_INIT(256);
        buffer_add_text(&record, "\"");
        journal_add_escaped(&record, bytes, decided);
        buffer_add_text(&record, "\"");
        json_t *value = json_loadb(record.data, record.length, JSON_DECODE_ANY, NULL);
        bool is_same = json_is_string(value) && json_string_length(value) == decided &&
                       memcmp(json_string_value(value), bytes, decided) == 0;
        json_decref(value);
        buffer_free(&record);
        CHECK(is_same);
    }
}

TEST(lines_stand_behind_their_time)
{
    auto_close int folder = open_folder();
    struct journal *journal = NULL;
    CHECK_INT(journal_new(folder, "console.log", JOURNAL_LINES, 1 << 20, &journal), 0);
    journal_add_console(journal, 0, "one\r\ntw", 7);
    journal_add_console(journal, UINT64_C(951782400123456789), "o\n\nrest", 7);
    journal_add_line(journal, UINT64_C(1709164799000000001), "line");
    journal_free(journal);
    auto_free char *text = read_log("console.log");
    CHECK(strstr(text, "1970-01-01T00:00:00.000000000Z one\n2000-02-29T00:00:00.123456789Z two\n"
                       "2000-02-29T00:00:00.123456789Z \n2024-02-28T23:59:59.000000001Z line\n") == text);
    CHECK(strstr(text, "Z rest\n") != NULL);
}

TEST(a_line_without_an_end_is_bounded)
{
    auto_close int folder = open_folder();
    struct journal *journal = NULL;
    auto_free char *bytes = alloc_zero(100000);
    memset(bytes, 'x', 100000);
    CHECK_INT(journal_new(folder, "console.log", JOURNAL_LINES, 1 << 20, &journal), 0);
    journal_add_console(journal, 0, bytes, 100000);
    journal_free(journal);
    auto_free char *text = read_log("console.log");
    const char *end = strchr(text, '\n');
    CHECK_INT(end - text, 31 + (16 << 10));
    CHECK_INT(strlen(text), 100000 + 7 * 32);
}

TEST(files_are_rotated_and_no_more_than_three)
{
    auto_close int folder = open_folder();
    struct journal *journal = NULL;
    CHECK_INT(journal_new(folder, "console.log", JOURNAL_LINES, 4096, &journal), 0);
    for (int i = 0; i < 2000; i++) {
        char line[32];
        snprintf(line, sizeof(line), "line %d\n", i);
        journal_add_console(journal, 0, line, strlen(line));
    }
    journal_free(journal);
    CHECK(size_of("console.log.1") >= 4096 && size_of("console.log.1") < 4200);
    CHECK(size_of("console.log.2") >= 4096 && size_of("console.log.3") == -1);
    auto_free char *newest = read_log("console.log"), *older = read_log("console.log.1");
    CHECK(newest != NULL && (newest[0] == '\0' || strstr(newest, "line 1999\n") != NULL));
    int first = 0, last = 0;
    CHECK(sscanf(older + 31, "line %d", &first) == 1);
    CHECK(newest[0] == '\0' || (sscanf(newest + 31, "line %d", &last) == 1 && last > first));
    CHECK_INT(journal_new(folder, "console.log", JOURNAL_LINES, 4096, &journal), 0); /* goes on where it was */
    CHECK_INT(journal_lost_bytes(journal), 0);
    journal_free(journal);
}

/* On any thread, and so without the system calls of a rotation. */
TEST(lines_of_our_own_are_bounded_until_it_is_tended)
{
    auto_close int folder = open_folder();
    struct journal *journal = NULL;
    CHECK_INT(journal_new(folder, "runtime.log", JOURNAL_LINES, 4096, &journal), 0);
    for (int i = 0; i < 1000; i++)
        journal_add_line(journal, 0, "a line of our own");
    CHECK(size_of("runtime.log") <= 8192 && size_of("runtime.log.1") == -1);
    CHECK(journal_lost_bytes(journal) > 0);
    journal_tend(journal);
    CHECK(size_of("runtime.log") == 0);
    journal_add_line(journal, 0, "again");
    journal_free(journal);
    auto_free char *text = read_log("runtime.log");
    CHECK(strstr(text, "bytes were lost here\n") != NULL && strstr(text, " again\n") != NULL);
}

static void limit_files(rlim_t bytes)
{
    struct rlimit limit = {.rlim_cur = bytes, .rlim_max = RLIM_INFINITY};
    setrlimit(RLIMIT_FSIZE, &limit);
}

/* A limit of a file's size cuts writes off as a full disk does. */
TEST(a_disk_without_room_costs_records_and_tells)
{
    auto_close int folder = open_folder();
    struct journal *journal = NULL;
    signal(SIGXFSZ, SIG_IGN);
    CHECK_INT(journal_new(folder, "exec.log", JOURNAL_JSON, 1 << 20, &journal), 0);
    limit_files(100);
    for (int i = 0; i < 10; i++)
        journal_add_output(journal, 1, "out", "0123456789", 10);
    long long cut = size_of("exec.log");
    limit_files(RLIM_INFINITY);
    journal_add_output(journal, 2, "out", "after", 5);
    uint64_t lost = journal_lost_bytes(journal);
    journal_free(journal);
    auto_free char *text = read_log("exec.log");
    CHECK_INT(cut, 100);
    CHECK_INT(lost, 80);
    CHECK(strstr(text, "\n{\"t\":2,\"s\":\"lost\",\"bytes\":80}\n{\"t\":2,\"s\":\"out\",\"text\":\"after\"}\n") !=
          NULL);
}

TEST(a_log_that_is_no_file_is_refused)
{
    auto_close int folder = open_folder();
    struct journal *journal = NULL;
    CHECK_INT(symlinkat("elsewhere", folder, "exec.log"), 0);
    CHECK_INT(journal_new(folder, "exec.log", JOURNAL_JSON, 4096, &journal), -ELOOP);
    test_make_folder("runtime.log");
    CHECK_INT(journal_new(folder, "runtime.log", JOURNAL_JSON, 4096, &journal), -EISDIR);
}

TEST(memory_that_is_missing_costs_records_only)
{
    FOR_EACH_FAULT
    {
        auto_close int folder = open_folder();
        struct journal *journal = NULL;
        int result = journal_new(folder, "log", JOURNAL_JSON, 4096, &journal);
        if (result == 0) {
            journal_add_output(journal, 0, "out", "text", 4);
            journal_add_output(journal, 0, "out", "\xff", 1);
        }
        CHECK(result == 0 || fault_was_hit());
        CHECK(result < 0 || fault_was_hit() == (journal_lost_bytes(journal) > 0));
        journal_free(journal);
    }
}

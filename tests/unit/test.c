// SPDX-License-Identifier: Apache-2.0
/* The runner behind test.h: one process a test program, one TAP line a test.
 *
 * Invariants: (1) a test that fails a check, leaves a descriptor open, or crashes is not ok. (2) the scratch folder is
 * gone afterwards. (3) a program without tests fails.
 */
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

enum { most_tests = 128, most_paths = 64, path_bytes = 4096 };

static struct {
    const char *name;
    test_function *function;
} tests[most_tests];
static size_t test_count;
static bool has_failed;
static const char *skip_reason; /* borrowed */
static char folder[path_bytes];
static char paths[most_paths][path_bytes];
static size_t path_count;

void test_register(const char *name, test_function *function)
{
    if (test_count == most_tests)
        abort();
    tests[test_count].name = name;
    tests[test_count++].function = function;
}

void test_fail(const char *file, int line, const char *format, ...)
{
    has_failed = true;
    printf("# %s:%d: ", file, line);
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
}

void test_skip(const char *reason)
{
    skip_reason = reason;
}

const char *test_folder(void)
{
    return folder;
}

static char *path_below(const char *name)
{
    if (path_count == most_paths)
        abort();
    char *path = paths[path_count++];
    if (snprintf(path, path_bytes, "%s/%s", folder, name) >= path_bytes)
        abort();
    for (char *slash = strchr(path + strlen(folder) + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(path, 0755) < 0 && errno != EEXIST)
            abort();
        *slash = '/';
    }
    return path;
}

const char *test_file(const char *name, const void *bytes, size_t length)
{
    char *path = path_below(name);
    FILE *file = fopen(path, "w");
    if (file == NULL || fwrite(bytes, 1, length, file) != length || fclose(file) != 0)
        abort();
    return path;
}

const char *test_text_file(const char *name, const char *text)
{
    return test_file(name, text, strlen(text));
}

const char *test_make_folder(const char *name)
{
    char *path = path_below(name);
    if (mkdir(path, 0755) < 0)
        abort();
    return path;
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status;
    (void)type;
    (void)walk;
    return remove(path);
}

static int count_descriptors(void)
{
    DIR *list = opendir("/proc/self/fd");
    int count = 0;
    while (list != NULL && readdir(list) != NULL)
        count++;
    if (list != NULL)
        closedir(list);
    return count;
}

static void run(size_t index)
{
    const char *temporary = getenv("TMPDIR");
    snprintf(folder, sizeof(folder), "%s/vial-test-XXXXXX", temporary != NULL ? temporary : "/tmp");
    if (mkdtemp(folder) == NULL)
        abort();
    has_failed = false;
    skip_reason = NULL;
    path_count = 0;
    int before = count_descriptors();
    tests[index].function();
    int after = count_descriptors();
    if (after > before)
        test_fail(__FILE__, __LINE__, "%d descriptors are still open", after - before);
    nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    bool is_skipped = skip_reason != NULL && !has_failed;
    printf("%sok %zu - %s%s%s\n", has_failed ? "not " : "", index + 1, tests[index].name, is_skipped ? " # SKIP " : "",
           is_skipped ? skip_reason : "");
    fflush(stdout);
}

int main(void)
{
    size_t failed = 0;
    printf("1..%zu\n", test_count);
    for (size_t i = 0; i < test_count; i++) {
        run(i);
        failed += has_failed;
    }
    return failed > 0 || test_count == 0;
}

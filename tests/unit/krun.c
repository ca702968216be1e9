// SPDX-License-Identifier: Apache-2.0
/* Tests of what runs in the guest only: guest/json, and guest/krun, which reads the guest's own configuration. */
#include "test.h"

#include "base/alloc.h"
#include "krun.h"

#include <errno.h>
#include <stdio.h>

/* A text in memory of exactly its size, so that a sanitizer sees what lies outside. */
static char *text;
static size_t place;

static char *take_text(const char *source, size_t length)
{
    free(text);
    text = malloc(length > 0 ? length : 1);
    if (length > 0)
        memcpy(text, source, length);
    place = SIZE_MAX;
    return text;
}

static void forget(void)
{
    free(text);
    text = NULL;
}

/* ---- JSON ---- */

static struct json_tree tree;

static int read_json(const char *source)
{
    tree = (struct json_tree)JSON_TREE_INIT;
    take_text(source, strlen(source));
    return json_tree_read(&tree, text, strlen(source), &place);
}

TEST(a_text_becomes_a_tree)
{
    CHECK_INT(read_json(" {\"a\" : [1, \"two\", {}, [ ] , null,true, false],\"b\":{\"c\":\"d\"}\n}\t"), 0);
    const struct json_node *a = json_tree_member(&tree, tree.nodes, "a"), *each = NULL;
    static const enum json_kind kinds[] = {JSON_KIND_NUMBER, JSON_KIND_TEXT, JSON_KIND_OBJECT, JSON_KIND_ARRAY,
                                           JSON_KIND_NULL,   JSON_KIND_BOOL, JSON_KIND_BOOL};
    size_t count = 0;
    CHECK(a != NULL && a->kind == JSON_KIND_ARRAY && a->place == 8 && tree.nodes[0].place == 1);
    for (each = json_tree_child(&tree, a); each != NULL; each = json_tree_next(&tree, each), count++) {
        CHECK(count < array_length(kinds) && each->kind == kinds[count] && each->key == NULL);
        if (each->kind == JSON_KIND_TEXT)
            CHECK_TEXT(each->text, "two");
    }
    CHECK_INT(count, array_length(kinds));
    const struct json_node *b = json_tree_member(&tree, tree.nodes, "b");
    CHECK(b != NULL && json_tree_next(&tree, b) == NULL);
    CHECK_TEXT(json_tree_member(&tree, b, "c")->text, "d");
    CHECK(json_tree_member(&tree, b, "d") == NULL && json_tree_member(&tree, a, "c") == NULL);
    CHECK(json_tree_child(&tree, json_tree_member(&tree, b, "c")) == NULL);
    json_tree_free(&tree);
    forget();
}

TEST(of_several_members_the_last_counts_and_null_is_none)
{
    CHECK_INT(read_json("{\"a\": 1, \"a\": \"x\", \"b\": \"y\", \"b\": null}"), 0);
    CHECK_TEXT(json_tree_member(&tree, tree.nodes, "a")->text, "x");
    CHECK(json_tree_member(&tree, tree.nodes, "b") == NULL);
    json_tree_free(&tree);
    forget();
}

TEST(strings_are_what_they_stand_for)
{
    static const struct {
        const char *written, *meant;
    } cases[] = {
        {"\"\"", ""},
        {"\"plain\"", "plain"},
        {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t"},
        {"\"\\u0041\\u00e9\\u20AC\\uffff\"", "A\xc3\xa9\xe2\x82\xac\xef\xbf\xbf"},
        {"\"\\ud83d\\ude00x\"", "\xf0\x9f\x98\x80x"},
        {"\"\\ud800\\udc00\\udbff\\udfff\"", "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"},
        {"\"\xff\xfe\x7f\"", "\xff\xfe\x7f"}, /* no UTF-8, but a path may be that */
    };
    for (size_t i = 0; i < array_length(cases); i++) {
        CHECK_INT(read_json(cases[i].written), 0);
        CHECK_TEXT(tree.nodes[0].text, cases[i].meant);
        json_tree_free(&tree);
    }
    forget();
}

TEST(what_is_no_json)
{
    static const struct {
        const char *text;
        size_t place;
    } cases[] = {
        {"", 0},
        {"  ", 2},
        {"x", 0},
        {"nul", 0},
        {"{", 1},
        {"[", 1},
        {"]", 0},
        {"[1", 2},
        {"[1,]", 3},
        {"[,1]", 1},
        {"[1 2]", 3},
        {"{\"a\"}", 4},
        {"{\"a\":}", 5},
        {"{\"a\":1,}", 7},
        {"{a:1}", 1},
        {"{1:1}", 1},
        {"[1}", 2},
        {"{\"a\":1]", 6},
        {"1 1", 2},
        {"{} {}", 3},
        {"-", 1},
        {"01", 1},
        {"1.", 2},
        {".5", 0},
        {"1e", 2},
        {"1e+", 3},
        {"+1", 0},
        {"0x1", 1},
        {"truex", 4},
        {"\"", 1},
        {"\"a", 2},
        {"\"\\", 2},
        {"\"\\x\"", 2},
        {"\"\\u12\"", 5},
        {"\"\\u12g4\"", 5},
        {"\"\\u0000\"", 7},
        {"\"\n\"", 1},
        {"\"\\ud800\"", 7},
        {"\"\\udc00\"", 7},
        {"\"\\ud800\\u0041\"", 13},
        {"\"\\ud800x\"", 7},
        {"\"\x1f\"", 1},
        {"'a'", 0},
    };
    for (size_t i = 0; i < array_length(cases); i++) {
        CHECK_INT(read_json(cases[i].text), -EBADMSG);
        CHECK_INT(place, cases[i].place);
        CHECK(tree.nodes == NULL && tree.count == 0);
    }
    for (const char *const *good = (const char *const[]){"0", "-0", "10.50", "1E9", "-1.5e-3", "2e+1", "null", NULL};
         *good != NULL; good++) {
        CHECK_INT(read_json(*good), 0);
        json_tree_free(&tree);
    }
    forget();
}

TEST(a_nul_is_no_space)
{
    tree = (struct json_tree)JSON_TREE_INIT;
    CHECK_INT(json_tree_read(&tree, take_text("[]\0", 3), 3, &place), -EBADMSG);
    CHECK_INT(place, 2);
    CHECK_INT(json_tree_read(&tree, take_text("\"\0\"", 3), 3, &place), -EBADMSG);
    forget();
}

TEST(trees_have_a_bound)
{
    auto_free char *many = malloc(2 * LIMIT_JSON_NODES + 2);
    char deep[2 * LIMIT_JSON_DEPTH + 3] = "";
    tree = (struct json_tree)JSON_TREE_INIT;
    for (size_t i = 0; i < LIMIT_JSON_DEPTH; i++) {
        deep[i] = '[';
        deep[LIMIT_JSON_DEPTH + i] = ']';
    }
    CHECK_INT(read_json(deep), 0);
    json_tree_free(&tree);
    memset(deep, '[', LIMIT_JSON_DEPTH + 1);
    CHECK_INT(read_json(deep), -E2BIG);
    CHECK_INT(place, LIMIT_JSON_DEPTH + 1);
    many[0] = '[';
    for (size_t i = 0; i < LIMIT_JSON_NODES; i++)
        memcpy(many + 1 + 2 * i, "0,", 2);
    size_t length = 2 * (size_t)(LIMIT_JSON_NODES - 1);
    many[length] = ']'; /* the array and all but one number */
    CHECK_INT(json_tree_read(&tree, take_text(many, length + 1), length + 1, &place), 0);
    CHECK_INT(tree.count, LIMIT_JSON_NODES);
    json_tree_free(&tree);
    memcpy(many + length, ",0]", 3);
    CHECK_INT(json_tree_read(&tree, take_text(many, length + 3), length + 3, &place), -E2BIG);
    forget();
}

/* ---- what a file says ---- */

static struct krun_config config;

static int read_config(const char *source)
{
    config = (struct krun_config)KRUN_CONFIG_INIT;
    take_text(source, strlen(source));
    return krun_read(&config, text, strlen(source), &place);
}

static void end(void)
{
    krun_free(&config);
    forget();
}

static void check_says(const char *source, const char *args, const char *env, const char *workdir)
{
    char joined[256] = "";
    CHECK_INT(read_config(source), 0);
    for (size_t i = 0; i < config.arg_count; i++)
        snprintf(joined + strlen(joined), sizeof(joined) - strlen(joined), "%s|", config.args[i]);
    CHECK_TEXT(joined, args);
    joined[0] = '\0';
    for (size_t i = 0; i < config.env_count; i++)
        snprintf(joined + strlen(joined), sizeof(joined) - strlen(joined), "%s|", config.env[i]);
    CHECK_TEXT(joined, env);
    CHECK((config.workdir == NULL) == (workdir == NULL));
    if (workdir != NULL && config.workdir != NULL)
        CHECK_TEXT(config.workdir, workdir);
    end();
}

TEST(the_styles_of_a_file)
{
    check_says("{}", "", "", NULL);
    check_says("{\"process\": {\"args\": [\"a\", \"\"], \"env\": [\"A=b\"], \"cwd\": \"/w\"}, \"Cmd\": [\"x\"]}", "a||",
               "A=b|", "/w");
    check_says(
        "{\"config\": {\"Entrypoint\": [\"e\"], \"Cmd\": [\"c\", \"d\"], \"Env\": [\"A=b\", \"C=\"], \"WorkingDir\": "
        "\"/w\"}}",
        "e|c|d|", "A=b|C=|", "/w");
    check_says("{\"Cmd\": [\"c\"], \"Entrypoint\": null, \"WorkingDir\": \"\"}", "c|", "", NULL);
    check_says("{\"Entrypoint\": [\"e\"]}", "e|", "", NULL);
    check_says("{\"args\": [\"a\"], \"env\": [\"A=b\"], \"cwd\": \"w\"}", "a|", "A=b|", "w");
    check_says("{\"process\": {}, \"config\": {\"Cmd\": [\"c\"]}}", "", "", NULL);
    check_says("{\"process\": null, \"config\": {\"Cmd\": [\"c\"]}, \"linux\": {\"x\": [{}]}}", "c|", "", NULL);
}

TEST(tmpfs_of_a_file)
{
    CHECK_INT(read_config("{\"mounts\": [{\"type\": \"proc\", \"destination\": \"x\"}, {\"destination\": \"/y\"},"
                          "{\"type\": \"tmpfs\", \"destination\": \"/a\"}, {\"type\": 1},"
                          "{\"options\": [\"ro\", \"size=1m\"], \"type\": \"tmpfs\", \"destination\": \"/b\"}]}"),
              0);
    CHECK_INT(config.mount_count, 2);
    CHECK_TEXT(config.mounts[0].target, "/a");
    CHECK_TEXT(config.mounts[0].options, "");
    CHECK_TEXT(config.mounts[1].target, "/b");
    CHECK_TEXT(config.mounts[1].options, "ro,size=1m");
    CHECK(text[config.mounts[1].place] == '{' && config.mounts[1].place > config.mounts[0].place);
    end();
}

TEST(what_makes_no_sense_in_a_file)
{
    static const struct {
        const char *text;
        size_t place;
        int result;
    } cases[] = {
        {"[]", 0, -EINVAL},
        {" \"x\"", 1, -EINVAL},
        {"{\"process\": []}", 12, -EINVAL},
        {"{\"config\": 1}", 11, -EINVAL},
        {"{\"Cmd\": \"x\"}", 8, -EINVAL},
        {"{\"Cmd\": [\"x\", 1]}", 14, -EINVAL},
        {"{\"Cmd\": [\"\"]}", 8, -EINVAL},
        {"{\"Entrypoint\": [\"\"], \"Cmd\": [\"x\"]}", 15, -EINVAL},
        {"{\"Env\": {}}", 8, -EINVAL},
        {"{\"Env\": [null]}", 9, -EINVAL},
        {"{\"WorkingDir\": []}", 15, -EINVAL},
        {"{\"mounts\": {}}", 11, -EINVAL},
        {"{\"mounts\": [1]}", 12, -EINVAL},
        {"{\"mounts\": [{\"type\": \"tmpfs\"}]}", 12, -EINVAL},
        {"{\"mounts\": [{\"type\": \"tmpfs\", \"destination\": \"a\"}]}", 45, -EINVAL},
        {"{\"mounts\": [{\"type\": \"tmpfs\", \"destination\": \"/\", \"options\": \"ro\"}]}", 61, -EINVAL},
        {"{\"mounts\": [{\"type\": \"tmpfs\", \"destination\": \"/\", \"options\": [1]}]}", 62, -EINVAL},
        {"{\"mounts\": [{\"type\": \"tmpfs\", \"destination\": \"/\", \"options\": [\"a,b\"]}]}", 62, -EINVAL},
        {"{\"Cmd\": [\"x\"]", 13, -EBADMSG},
    };
    for (size_t i = 0; i < array_length(cases); i++) {
        CHECK_INT(read_config(cases[i].text), cases[i].result);
        CHECK_INT(place, cases[i].place);
        CHECK(config.strings == NULL && config.mounts == NULL && config.tree.nodes == NULL);
    }
    end();
}

TEST(what_a_file_says_has_a_bound)
{
    enum { most = 2 * LIMIT_STRINGS };
    const size_t size = 4 * most + 4 * LIMIT_MOUNT_OPTIONS_BYTES;
    auto_free char *many = malloc(size);
    size_t length = (size_t)snprintf(many, size, "{\"Env\":[");
    for (size_t i = 0; i < most; i++)
        length += (size_t)snprintf(many + length, size - length, "\"\"%s", i + 1 < most ? "," : "]}");
    CHECK_INT(read_config(many), 0);
    CHECK_INT(config.env_count, most);
    end();
    CHECK_INT(snprintf(many + length - 2, 6, ",\"\"]}"), 5);
    CHECK_INT(read_config(many), -E2BIG);
    CHECK_INT(place, length - 1);
    length = (size_t)snprintf(many, size, "{\"mounts\":[{\"type\":\"tmpfs\",\"destination\":\"/\",\"options\":[\"");
    memset(many + length, 'o', LIMIT_MOUNT_OPTIONS_BYTES - 1);
    length += LIMIT_MOUNT_OPTIONS_BYTES - 1;
    memcpy(many + length, "\"]}]}", 6);
    CHECK_INT(read_config(many), 0);
    CHECK_INT(strlen(config.mounts[0].options), LIMIT_MOUNT_OPTIONS_BYTES - 1);
    end();
    memcpy(many + length, "oo\"]}]}", 8);
    CHECK_INT(read_config(many), -E2BIG);
    length = (size_t)snprintf(many, size, "{\"mounts\":[{\"type\":\"tmpfs\",\"destination\":\"/");
    memset(many + length, 'x', LIMIT_EXEC_PATH_BYTES);
    memcpy(many + length + LIMIT_EXEC_PATH_BYTES, "\"}]}", 5);
    CHECK_INT(read_config(many), -E2BIG);
    length = (size_t)snprintf(many, size, "{\"mounts\":[");
    for (size_t i = 0; i <= LIMIT_TMPFS; i++)
        length += (size_t)snprintf(many + length, size - length, "{\"type\":\"tmpfs\",\"destination\":\"/\"}%s",
                                   i < LIMIT_TMPFS ? "," : "]}");
    CHECK_INT(read_config(many), -E2BIG);
    end();
}

/* ---- requests ---- */

static struct init_request whole;
static void *table;

/* What the request becomes with that file, as one line: program|arguments; environment; folder. */
static const char *complete(const struct init_request *request, const char *source)
{
    static char line[512];
    if (read_config(source) < 0 || krun_complete(request, &config, &whole, &table) < 0)
        return "failed";
    if (whole.args[-1] != whole.path || whole.args[whole.arg_count] != NULL || whole.env[whole.env_count] != NULL ||
        whole.wants_config || whole.uid != request->uid || whole.rlimit_count != request->rlimit_count)
        return "broken";
    snprintf(line, sizeof(line), "%s", whole.path);
    for (size_t i = 0; i < whole.arg_count; i++)
        snprintf(line + strlen(line), sizeof(line) - strlen(line), "|%s", whole.args[i]);
    for (size_t i = 0; i < whole.env_count; i++)
        snprintf(line + strlen(line), sizeof(line) - strlen(line), "%s%s", i == 0 ? "; " : " ", whole.env[i]);
    snprintf(line + strlen(line), sizeof(line) - strlen(line), "; %s", whole.workdir);
    free(table);
    end();
    return line;
}

TEST(the_order_of_programs)
{
    static const char *const args[] = {"one", "two"}, *const nameless[] = {"", "two"};
    static const char file[] = "{\"Cmd\": [\"c\", \"d\"]}";
    struct init_request request = {.path = "", .workdir = "", .wants_config = true, .uid = 7, .rlimit_count = 1};
    CHECK_TEXT(complete(&request, "{}"), "/bin/sh; HOME=/ TERM=linux; /");
    CHECK_TEXT(complete(&request, file), "c|d; HOME=/ TERM=linux; /");
    request.args = args;
    request.arg_count = 2;
    CHECK_TEXT(complete(&request, "{}"), "one|two; HOME=/ TERM=linux; /");
    CHECK_TEXT(complete(&request, file), "c|d; HOME=/ TERM=linux; /");
    request.path = "/given";
    CHECK_TEXT(complete(&request, file), "/given|one|two; HOME=/ TERM=linux; /");
    request.arg_count = 0;
    CHECK_TEXT(complete(&request, file), "/given; HOME=/ TERM=linux; /");
    request.path = "";
    request.args = nameless; /* there is no program of that name, but arguments are not lost */
    request.arg_count = 2;
    CHECK_TEXT(complete(&request, "{}"), "/bin/sh||two; HOME=/ TERM=linux; /");
}

TEST(the_order_of_variables_and_folders)
{
    static const char *const env[] = {"HOMES=x", "A=given", "HOME=/given", "TERM=given", "KRUN=1"};
    static const char *const better[] = {"KRUN_HOME=/krun", "KRUN_TERM=krun"};
    static const char file[] =
        "{\"env\": [\"A=file\", \"B=file\", \"HOME=/file\", \"TERM=file\", \"none\", \"=x\", \"B=2\","
        " \"HOM=y\"], \"cwd\": \"/file\"}";
    struct init_request request = {.path = "p", .workdir = "", .env = env, .env_count = 5, .wants_config = true};
    CHECK_TEXT(complete(&request, file), "p; HOMES=x A=given HOME=/file TERM=file KRUN=1 B=file HOM=y; /file");
    CHECK_TEXT(complete(&request, "{}"), "p; HOMES=x A=given HOME=/given TERM=given KRUN=1; /");
    request.workdir = "/given";
    request.env = better;
    request.env_count = 2;
    CHECK_TEXT(complete(&request, "{\"env\": [\"HOME=/file\"], \"cwd\": \"/file\"}"),
               "p; KRUN_HOME=/krun KRUN_TERM=krun HOME=/krun TERM=krun; /given");
    request.env_count = 1;
    CHECK_TEXT(krun_variable(&request, "KRUN_HOME"), "/krun");
    CHECK(krun_variable(&request, "KRUN") == NULL && krun_variable(&request, "KRUN_TERM") == NULL);
}

TEST(krun_survives_no_memory)
{
    static const char source[] = "{\"Cmd\": [\"c\"], \"Env\": [\"A=b\"], \"mounts\": [{\"type\": \"tmpfs\","
                                 " \"destination\": \"/\"}]}";
    struct init_request request = {.path = "", .workdir = "", .wants_config = true};
    FOR_EACH_FAULT
    {
        char copy[sizeof(source)];
        table = NULL;
        memcpy(copy, source, sizeof(source));
        config = (struct krun_config)KRUN_CONFIG_INIT;
        int result = krun_read(&config, copy, sizeof(source) - 1, &place);
        if (result == 0)
            result = krun_complete(&request, &config, &whole, &table);
        CHECK_INT(result, fault_was_hit() ? -ENOMEM : 0);
        CHECK((table == NULL) == (result < 0));
        krun_free(&config);
        free(table);
    }
}

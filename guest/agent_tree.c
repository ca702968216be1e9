// SPDX-License-Identifier: Apache-2.0
/* Trees of files, copied out (PULL) and in (PUSH), as streams of proto/tree.h.
 *
 *     folder ── tree_reader ──> DATA 1, a chunk in a step as far as there is credit ──> DONE
 *     DATA 0 ── tree_writer ──> folder, as they come; DONE when the stream and the tree are whole
 *
 * The thing itself is named in its folder, which is opened: a link on the way there is followed as everywhere, the last
 * name is not.
 *
 * Invariants: (1) DONE is said of a whole tree only.
 *
 * Trust: the tree is the guest's, the stream the host's; the code for both trusts neither.
 */
#include "agent.h"

#include "proto/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct tree_session {
    struct session session;
    struct tree_reader *reader; /* owned, or NULL */
    struct tree_writer *writer; /* owned, or NULL */
    int folder;                 /* owned, or -1 */
};

static struct tree_session *tree_of(struct session *session)
{
    return (struct tree_session *)session;
}

static void free_tree(struct session *session)
{
    struct tree_session *tree = tree_of(session);
    tree_reader_free(tree->reader);
    tree_writer_free(tree->writer);
    if (tree->folder >= 0)
        close(tree->folder);
}

static void fail(struct session *session, enum agent_stage stage, int result, const struct tree_failure *failure)
{
    session_fail(session, stage, failure->os_error > 0 ? -failure->os_error : result, failure->path);
}

static void step_pull(struct session *session)
{
    struct tree_failure failure = {0};
    size_t room_bytes = 0;
    uint8_t *room = session_room(session, &room_bytes);
    if (room == NULL)
        return;
    long length = tree_reader_next(tree_of(session)->reader, room, room_bytes, &failure);
    if (length < 0) {
        fail(session, AGENT_STAGE_READ, (int)length, &failure);
        return;
    }
    if (length > 0) {
        session_send(session, room_bytes, (size_t)length);
        return;
    }
    session_send_end(session, AGENT_STDOUT);
    session_done(session);
}

static void take_stream(struct session *session, const uint8_t *bytes, size_t length)
{
    struct tree_failure failure = {0};
    int result = tree_writer_add(tree_of(session)->writer, bytes, length, &failure);
    if (result < 0)
        fail(session, AGENT_STAGE_WRITE, result, &failure);
    else
        session_consume(session, length);
}

static void finish_push(struct session *session)
{
    struct tree_failure failure = {0};
    int result = tree_writer_end(tree_of(session)->writer, &failure);
    if (result < 0)
        fail(session, AGENT_STAGE_WRITE, result, &failure);
    else
        session_done(session);
}

static const struct session_ops pull_ops = {.step = step_pull, .free = free_tree};
static const struct session_ops push_ops = {.take = take_stream, .input_done = finish_push, .free = free_tree};

/* The name at the end of the path, which is cut off from it: the folder stays. Slashes behind the name are no part of
 * it; the root is a folder without a name. */
static const char *split(char *path, const char **ret_folder)
{
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        path[--length] = '\0';
    char *slash = strrchr(path, '/');
    *ret_folder = slash == path ? "/" : path;
    *slash = '\0'; /* paths are absolute */
    return slash + 1;
}

static int open_tree(struct tree_session *tree, const struct agent_message *message, char *path)
{
    const char *folder = "/";
    const char *name = split(path, &folder);
    uint32_t flags = (message->file.flags & AGENT_FILE_OWNERS) != 0 ? TREE_OWNERS : 0;
    tree->folder = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (tree->folder < 0)
        return -errno;
    if (message->kind == AGENT_PULL)
        return tree_reader_new(tree->folder, name, &tree->reader);
    return tree_writer_new(tree->folder, name, flags | (name[0] == '\0' ? TREE_NO_TOP : 0), &tree->writer);
}

void tree_begin(struct agent *agent, const struct agent_message *message, const char *path)
{
    bool is_pull = message->kind == AGENT_PULL;
    struct tree_session *tree = (struct tree_session *)session_new(agent, message->id, is_pull ? &pull_ops : &push_ops,
                                                                   sizeof(*tree));
    if (tree == NULL)
        return;
    char *parts = agent_copy_span(&message->file.path);
    tree->folder = -1;
    int result = parts == NULL ? -ENOMEM : open_tree(tree, message, parts);
    free(parts);
    if (result < 0) {
        session_fail(&tree->session, AGENT_STAGE_OPEN, result, path);
        return;
    }
    tree->session.outputs[0].credit = message->file.window;
    if (!is_pull)
        session_grant(&tree->session, AGENT_DEFAULT_WINDOW);
    session_started(&tree->session, 0);
    session_set_busy(&tree->session, is_pull);
}

/* /etc/passwd and /etc/group as text, because a static program has no NSS. */
#include "agent.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Split a line at its colons, in place. */
static int split(char *line, char *parts[], int most)
{
    int count = 0;

    line[strcspn(line, "\n")] = 0;
    while (count < most && line != NULL)
        parts[count++] = strsep(&line, ":");
    return count;
}

static bool listed(char *members, const char *name)
{
    for (char *member; (member = strsep(&members, ",")) != NULL;)
        if (!strcmp(member, name))
            return true;
    return false;
}

static void find_groups(struct user *user)
{
    char *line = NULL, *parts[4];
    size_t size = 0;
    FILE *file = fopen("/etc/group", "re");

    user->groups[0] = user->gid;
    user->groups_count = 1;
    while (file != NULL && user->groups_count < MAX_GROUPS && getline(&line, &size, file) > 0)
        if (split(line, parts, 4) == 4 && listed(parts[3], user->name))
            user->groups[user->groups_count++] = (gid_t)strtoul(parts[2], NULL, 10);
    if (file != NULL)
        fclose(file);
    free(line);
}

bool user_find(const char *who, struct user *user)
{
    char *line = NULL, *parts[7], *end;
    size_t size = 0;
    bool found = false;
    const unsigned long number = strtoul(who, &end, 10);
    const bool numeric = *who && !*end;
    FILE *file = fopen("/etc/passwd", "re");

    while (file != NULL && !found && getline(&line, &size, file) > 0) {
        if (split(line, parts, 7) != 7)
            continue;
        found = numeric ? strtoul(parts[2], NULL, 10) == number : !strcmp(parts[0], who);
        if (!found)
            continue;
        user->uid = (uid_t)strtoul(parts[2], NULL, 10);
        user->gid = (gid_t)strtoul(parts[3], NULL, 10);
        snprintf(user->name, sizeof user->name, "%s", parts[0]);
        snprintf(user->home, sizeof user->home, "%s", parts[5]);
        snprintf(user->shell, sizeof user->shell, "%s", *parts[6] ? parts[6] : "/bin/sh");
    }
    if (file != NULL)
        fclose(file);
    free(line);
    if (found)
        find_groups(user);
    return found;
}

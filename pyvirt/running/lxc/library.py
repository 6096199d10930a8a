"""The door to liblxc, opened when the first container needs it.

The structures are those of ``lxc/lxccontainer.h`` and ``lxc/attach_options.h``, to which
liblxc only ever adds at the end.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from pyvirt.errors import UnsupportedError

_DECLARATIONS = """
typedef int pid_t; typedef unsigned int uid_t; typedef unsigned int gid_t;
typedef int (*lxc_attach_exec_t)(void *payload);

typedef struct { size_t size; gid_t *list; } lxc_groups_t;

typedef struct {
    int attach_flags; int namespaces; long personality; char *initial_cwd;
    uid_t uid; gid_t gid; int env_policy;
    char **extra_env_vars; char **extra_keep_env;
    int stdin_fd, stdout_fd, stderr_fd, log_fd;
    char *lsm_label;
    lxc_groups_t groups;
} lxc_attach_options_t;

typedef struct { char *program; char **argv; } lxc_attach_command_t;

struct lxc_container {
    char *name; char *configfile; char *pidfile;
    void *slock; void *privlock; int numthreads; void *lxc_conf;
    char *error_string; int error_num; bool daemonize; char *config_path;
    bool (*is_defined)(struct lxc_container *c);
    const char *(*state)(struct lxc_container *c);
    bool (*is_running)(struct lxc_container *c);
    bool (*freeze)(struct lxc_container *c);
    bool (*unfreeze)(struct lxc_container *c);
    pid_t (*init_pid)(struct lxc_container *c);
    bool (*load_config)(struct lxc_container *c, const char *alt_file);
    bool (*start)(struct lxc_container *c, int useinit, char *const argv[]);
    void *startl;
    bool (*stop)(struct lxc_container *c);
    bool (*want_daemonize)(struct lxc_container *c, bool state);
    void *want_close_all_fds;
    char *(*config_file_name)(struct lxc_container *c);
    bool (*wait)(struct lxc_container *c, const char *state, int timeout);
    bool (*set_config_item)(struct lxc_container *c, const char *key, const char *value);
    void *destroy, *save_config, *create, *createl, *rename;
    bool (*reboot)(struct lxc_container *c);
    bool (*shutdown)(struct lxc_container *c, int timeout);
    void *clear_config, *clear_config_item;
    int (*get_config_item)(struct lxc_container *c, const char *key, char *retv, int inlen);
    void *get_running_config_item, *get_keys, *get_interfaces, *get_ips;
    int (*get_cgroup_item)(struct lxc_container *c, const char *item, char *retv, int inlen);
    bool (*set_cgroup_item)(struct lxc_container *c, const char *item, const char *value);
    void *get_config_path, *set_config_path, *clone;
    int (*console_getfd)(struct lxc_container *c, int *ttynum, int *ptxfd);
    void *console;
    int (*attach)(struct lxc_container *c, lxc_attach_exec_t function, void *payload,
                  lxc_attach_options_t *options, pid_t *attached);
    void *attach_run_wait, *attach_run_waitl;
    void *snapshot, *snapshot_list, *snapshot_restore, *snapshot_destroy;
    bool (*may_control)(struct lxc_container *c);
    bool (*add_device_node)(struct lxc_container *c, const char *source, const char *target);
    bool (*remove_device_node)(struct lxc_container *c, const char *source, const char *target);
    bool (*attach_interface)(struct lxc_container *c, const char *device, const char *name);
    bool (*detach_interface)(struct lxc_container *c, const char *device, const char *name);

};

struct lxc_container *lxc_container_new(const char *name, const char *configpath);
int lxc_container_put(struct lxc_container *c);
const char *lxc_get_version(void);
int lxc_attach_run_command(void *payload);
bool lxc_config_item_is_supported(const char *key);
"""

#: Debian's name of the package with it.
PACKAGE = "liblxc1"


@cache
def library() -> tuple[Any, Any]:
    """cffi's view, and liblxc. `UnsupportedError` where it is not installed."""
    from cffi import FFI

    ffi = FFI()
    ffi.cdef(_DECLARATIONS)
    try:
        lib = ffi.dlopen("liblxc.so.1")
    except OSError:
        hint = f"install it (Debian: apt-get install {PACKAGE})"
        raise UnsupportedError("liblxc.so.1", "this host", hint) from None
    return ffi, lib


def supports(key: str) -> bool:
    """Whether liblxc was built with the configuration key `key`."""
    _, lib = library()
    return bool(lib.lxc_config_item_is_supported(key.encode()))


def version() -> str:
    """The version of liblxc."""
    ffi, lib = library()
    return str(ffi.string(lib.lxc_get_version()).decode())
